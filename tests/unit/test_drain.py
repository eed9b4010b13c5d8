"""Draining hosts: whom they still feed, and what their neighbours hear."""

from __future__ import annotations

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.errors import UnknownNodesError
from dragonfly_ray.model import digest
from dragonfly_ray.scheduling.reconciler import IdleSince
from dragonfly_ray.targets import Member, select
from tests.unit.one_scheduler import PIECES, SOURCE, TASK, Cluster, host, settings, started

__all__ = ["settings"]
EVERYTHING = tuple(range(PIECES))
RECORD = tuple((i, digest(b"%d" % i)) for i in EVERYTHING)


def drain(cluster: Cluster, *nodes: str) -> None:
    cluster.said.clear()
    cluster.do(cluster.core.mark(nodes, nodes, cluster.now))


def neighbours(cluster: Cluster, of: int) -> dict[str, bool]:
    """Whom a host was told of last -> whether it is to ask them for nothing."""
    return {n.host.id: n.silent for n in cluster.sent(m.Deliver, of)[-1].neighbours}


def test_a_host_that_others_can_do_without_is_asked_for_nothing_and_told_everything() -> None:
    cluster = started(3)
    cluster.report(0, got=(1, 2), origin=RECORD[1:3])
    cluster.report(1, got=(1, 2))
    drain(cluster, "n0")
    for other in (1, 2):
        (news,) = cluster.sent(m.TaskUpdate, other)
        assert [(n.host.id, n.silent) for n in news.joined] == [("h0", True)]
    assert cluster.sent(m.TaskUpdate, 0) == []
    cluster.core.tick(cluster.now)
    assert len(cluster.sent(m.TaskUpdate)) == 2, "said once"


def test_what_it_alone_holds_still_comes_from_it_until_somebody_else_has_it() -> None:
    cluster = started(3)
    cluster.report(0, got=(1, 2), origin=RECORD[1:3])
    drain(cluster, "n0")
    assert cluster.sent(m.TaskUpdate) == []
    cluster.report(1, got=(1,))
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.sent(m.TaskUpdate) == []
    cluster.report(2, got=(2,))
    cluster.do(cluster.core.tick(cluster.now))
    assert all(n.joined[0].silent for other in (1, 2) for n in cluster.sent(m.TaskUpdate, other))
    cluster.said.clear()
    cluster.do(cluster.core.probed("h2", "gone", cluster.now))
    cluster.do(cluster.core.tick(cluster.now))
    again = [n for news in cluster.sent(m.TaskUpdate, 1) for n in news.joined]
    assert [(n.host.id, n.silent) for n in again] == [("h0", False)], "it alone holds piece 2 again"


def test_it_parts_from_its_neighbours_once_it_has_all_of_it() -> None:
    cluster = started(3)
    cluster.report(1, got=EVERYTHING, origin=RECORD)
    drain(cluster, "n0")
    assert len(cluster.sent(m.TaskUpdate)) == 2
    cluster.said.clear()
    cluster.report(0, got=EVERYTHING)
    cluster.do(cluster.core.tick(cluster.now))
    assert {n.left for n in cluster.sent(m.TaskUpdate, 2)} == {("h0",)}
    assert len(cluster.sent(m.TaskUpdate)) == 2


def test_undrained_it_is_asked_again() -> None:
    cluster = started(3)
    cluster.report(1, got=EVERYTHING, origin=RECORD)
    cluster.report(0, got=EVERYTHING)
    drain(cluster, "n0")
    assert [n.left for n in cluster.sent(m.TaskUpdate, 2)] == [("h0",)]
    drain(cluster)
    assert [(n.host.id, n.silent) for n in cluster.sent(m.TaskUpdate, 2)[0].joined] == [("h0", False)]


def test_nobody_new_is_sent_to_it() -> None:
    cluster = started(2)
    for number in (0, 1):
        cluster.report(number, got=EVERYTHING, origin=RECORD)
        cluster.end(number)
    cluster.do(cluster.core.announce(m.Announce(host(2)), cluster.now))
    drain(cluster, "n0")
    cluster.submit([2], "t.0")
    cluster.resolved("t.0")
    assert neighbours(cluster, 2) == {"h1": False}


def test_a_newcomer_is_sent_to_it_where_nobody_else_has_anything() -> None:
    cluster = started(1)
    cluster.report(0, got=EVERYTHING, origin=RECORD)
    cluster.end(0)
    cluster.do(cluster.core.announce(m.Announce(host(1)), cluster.now))
    drain(cluster, "n0")
    cluster.submit([1], "t.0")
    cluster.resolved("t.0")
    assert neighbours(cluster, 1) == {"h0": False}


def test_two_that_drain_are_no_help_to_each_other() -> None:
    cluster = started(3)
    for number in (0, 1):
        cluster.report(number, got=(1,), origin=RECORD[1:2])
    drain(cluster, "n0", "n1")
    assert cluster.sent(m.TaskUpdate) == [], "h2 has nothing of it yet"


def test_it_reads_the_origin_only_if_nobody_else_can() -> None:
    cluster = started(2)
    drain(cluster, "n0")
    assert cluster.report(0, claim=4).lease == ()
    assert cluster.report(1, claim=4).lease
    drain(cluster, "n0", "n1")
    assert cluster.report(0, claim=4, bytes_origin=1).lease


def test_a_cordoned_seed_is_left_alone() -> None:
    cluster = Cluster([host(0, seed=True), host(1, seed=True), host(2)], policy="seeds")
    cluster.do(cluster.core.mark(["n0"], [], cluster.now))
    cluster.submit([2])
    cluster.resolved()
    assert cluster.sent(m.Deliver, 0) == []
    assert cluster.sent(m.Deliver, 1)[0].helper
    cluster.core.mark(["n0", "n1"], [], cluster.now)
    cluster.submit([2], "t.0")
    cluster.resolved("t.0")
    assert cluster.core.specs["t.0"].task_id == TASK.id
    assert SOURCE.url == TASK.url


def test_cordoned_nodes_are_meant_only_where_they_are_named() -> None:
    nodes = [
        Member(f"{i}" * 12, f"10.0.0.{i}", f"w{i}", labels={"a": "b"}, seed=True, cordoned=i < 2)
        for i in range(4)
    ]
    open_ = {nodes[2].node_id, nodes[3].node_id}
    for group in ("all", "seeds", 2, "100%", {"a": "b"}):
        assert {m.node_id for m in select(group, nodes)} == open_
    for name in ("10.0.0.1", "w1", "1" * 12, "1" * 8):
        assert select(name, nodes) == [nodes[1]]
    assert len(select(["all", "w0"], nodes)) == 3
    with pytest.raises(UnknownNodesError, match=r"3 requested, only 2 are alive and not cordoned \(of 4\)"):
        select(3, nodes)
    with pytest.raises(UnknownNodesError, match="all live nodes are cordoned"):
        select("all", nodes[:2])


def test_idle_counts_from_look_to_look() -> None:
    idle = IdleSince()
    for now in (1.0, 2.0):
        idle.seen("n", False, now)
    assert not idle.for_long("n")
    idle.seen("n", False, 3.0)
    assert idle.for_long("n")
    idle.seen("n", True, 3.5)
    assert not idle.for_long("n")
    idle.seen("n", False, 9.0)
    assert not idle.for_long("n")


def test_nodes_that_are_gone_are_forgotten() -> None:
    idle = IdleSince()
    for number in range(100):
        node = f"n{number}"
        idle.seen(node, False, 0.0)
        idle.seen(node, False, 10.0)
        idle.keep([node])
    assert not idle.for_long("n0")
    assert idle.for_long("n99")
    assert len(idle._seen) == 1
