"""Hosts that die, fall silent and come back, and schedulers that know nothing: message by message."""

from __future__ import annotations

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import Endpoint, Host, digest
from dragonfly_ray.scheduling.scheduler import Probe
from tests.unit.one_scheduler import PIECES, TASK, Cluster, host, started


def test_what_a_lost_host_alone_had_is_leased_again() -> None:
    cluster = started(3)
    everything = range(PIECES)
    cluster.report(0, got=tuple(everything), origin=tuple((i, digest(b"%d" % i)) for i in everything))
    cluster.report(1, got=(5,))
    assert cluster.report(2, claim=4).lease == ()
    cluster.do(cluster.core.probed("h0", "gone", cluster.now))
    again: set[int] = set()
    for _ in range(2 * PIECES):
        again.update(cluster.report(2, claim=4, bytes_origin=len(again)).lease)
    assert again == set(everything) - {5}
    assert cluster.view()["nodes"]["n0"]["kind"] == "node-lost"  # type: ignore[index]


def test_a_silent_host_is_probed_then_lost() -> None:
    cluster = started(2)
    cluster.now += 3.0
    cluster.report(1)
    probes = [a for a in cluster.core.tick(cluster.now) if isinstance(a, Probe)]
    assert probes == [Probe("h0")]
    cluster.do(cluster.core.probed("h0", "silent", cluster.now))
    assert any(n.left == ("h0",) for n in cluster.sent(m.TaskUpdate, 1)), "nobody waits for it meanwhile"
    cluster.now += 8.0
    cluster.report(1)
    cluster.do(cluster.core.probed("h0", "silent", cluster.now))
    assert cluster.view()["nodes"]["n0"]["kind"] == "node-lost"  # type: ignore[index]
    cluster.end(1)
    assert cluster.view()["phase"] == "ended"


def test_a_host_that_nobody_asked_for_long_is_not_taken_for_lost() -> None:
    cluster = Cluster(host(i) for i in range(2))
    cluster.now += 1000.0  # idle: no word was due
    cluster.submit([0, 1])
    cluster.now += 0.25
    assert cluster.core.tick(cluster.now) == []
    cluster.now += 3.0
    assert {a.host for a in cluster.core.tick(cluster.now) if isinstance(a, Probe)} == {"h0", "h1"}
    cluster.do(cluster.core.probed("h0", "silent", cluster.now))
    assert {n["state"] for n in cluster.view()["nodes"].values()} == {"waiting"}  # type: ignore[attr-defined]


def test_a_peer_that_died_gets_its_delivery_again_when_it_is_back() -> None:
    cluster = started(2)
    cluster.do(cluster.core.probed("h0", "died", cluster.now))
    assert cluster.view()["nodes"]["n0"]["state"] == "waiting"  # type: ignore[index]
    before = len(cluster.sent(m.Deliver, 0))
    cluster.do(cluster.core.announce(m.Announce(host(0, incarnation="2")), cluster.now))
    assert len(cluster.sent(m.Deliver, 0)) == before + 1
    assert any(n.joined for n in cluster.sent(m.TaskUpdate, 1))


def test_a_store_that_moves_to_another_node_does_not_hide_the_loss_of_its_first() -> None:
    cluster = started(2)
    moved = Host("h0", "n9", (Endpoint("10.0.0.1", 1),), "host9", incarnation="2")
    cluster.do(cluster.core.announce(m.Announce(moved), cluster.now))
    cluster.end(1)
    cluster.do(cluster.core.node_gone("n0", cluster.now))
    assert cluster.view()["nodes"]["n0"]["kind"] == "node-lost"  # type: ignore[index]
    assert cluster.view()["phase"] == "ended"


def everything_read_by(cluster: Cluster, number: int) -> None:
    every = range(PIECES)
    cluster.report(number, got=tuple(every), origin=tuple((i, digest(b"%d" % i)) for i in every))


def held(cluster: Cluster, pieces: int) -> m.Held:
    return m.Held(TASK, pieces.to_bytes(-(-PIECES // 8), "little"), cluster.core.tasks[TASK.id].digests())


@pytest.mark.parametrize("node", ["n0", "n9"])
def test_a_store_that_is_back_feeds_the_others_though_nothing_is_delivered_to_it(node: str) -> None:
    """The only copy of most pieces: a restarted peer's, on its node or another."""
    cluster = started(3)
    cluster.core.specs["s.0"].proved = True
    everything_read_by(cluster, 0)
    cluster.do(cluster.core.probed("h0", "gone", cluster.now))
    back = Host("h0", node, (Endpoint("10.0.0.1", 1),), "host9", incarnation="2")
    before = len(cluster.sent(m.TaskUpdate, 1))
    every = (1 << PIECES) - 1
    cluster.do(cluster.core.announce(m.Announce(back, (held(cluster, every),)), cluster.now))
    joined = [n for news in cluster.sent(m.TaskUpdate, 1)[before:] for n in news.joined]
    assert [n.host for n in joined] == [back]


def test_a_holder_that_is_found_again_feeds_the_others() -> None:
    """Its process lived on, silent for too long: what it alone has is not asked of the origin."""
    cluster = started(3)
    everything_read_by(cluster, 0)
    cluster.end(0)
    cluster.do(cluster.core.probed("h0", "silent", cluster.now + 100.0))
    before = len(cluster.sent(m.TaskUpdate, 1))
    every = (1 << PIECES) - 1
    cluster.do(cluster.core.announce(m.Announce(host(0), (held(cluster, every),)), cluster.now + 101.0))
    assert [n.host.id for news in cluster.sent(m.TaskUpdate, 1)[before:] for n in news.joined] == ["h0"]


def test_a_host_that_nobody_feeds_reads_from_the_origin_in_the_end() -> None:
    cluster = started(3)
    everything_read_by(cluster, 0)
    assert cluster.report(1, claim=4, bytes_peers=1).lease == ()
    cluster.now += 5.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease == (), "slow is not stuck"
    cluster.now += 5.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease == ()
    cluster.now += 4.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease == (), "it may be on its way"
    cluster.now += 2.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease


def test_a_successor_is_not_judged_by_what_became_of_its_predecessor() -> None:
    cluster = started(2)
    cluster.do(cluster.core.announce(m.Announce(host(0, incarnation="2")), cluster.now))
    cluster.do(cluster.core.probed("h0", "died", cluster.now, "1"))
    assert cluster.core.hosts["h0"].alive
    cluster.do(cluster.core.probed("h0", "died", cluster.now, "2"))
    assert cluster.core.missed() == ["n0"]


def test_a_new_scheduler_learns_everything_from_announcements() -> None:
    old = started(2)
    deliveries = {n: old.sent(m.Deliver, n)[0] for n in (0, 1)}
    new = Cluster([])
    assert not new.report(0).known
    for number in (0, 1):
        held = m.Held(TASK, b"\x01" + bytes(12), digest(b"x") + bytes(32 * (PIECES - 1)))
        new.do(new.core.announce(m.Announce(host(number), (held,), (deliveries[number],)), new.now))
    assert new.report(0).known
    assert new.core.tasks[TASK.id].record == {0: digest(b"x")}
    new.submit([0, 1])
    new.end(0)
    new.end(1)
    assert new.view()["phase"] == "ended"


def test_a_peer_that_was_back_before_the_scheduler_knew_anything_gets_its_delivery_again() -> None:
    """Scheduler and a peer are killed together; the peer is the first to make itself known."""
    before = started(3)
    delivery = before.sent(m.Deliver, 1)[0]
    after = Cluster([host(0, incarnation="2")])
    after.do(after.core.announce(m.Announce(host(1), (), (delivery,)), after.now))
    assert len(after.sent(m.Deliver, 0)) == 1
    assert after.view()["nodes"]["n0"]["state"] == "running"  # type: ignore[index]
    assert any(n.host.incarnation == "2" for news in after.sent(m.TaskUpdate, 1) for n in news.joined)
    again = before.sent(m.Deliver, 2)[0]
    after.do(after.core.announce(m.Announce(host(2), (), (again,)), after.now))
    assert len(after.sent(m.Deliver)) == 1, "who has it is not given it again"
    assert {n.host.id for news in after.sent(m.TaskUpdate, 2) for n in news.joined} == {"h0", "h1"}


def test_a_peer_that_has_one_delivery_in_hand_gets_the_other_that_it_lacks() -> None:
    before = started(2)
    before.submit([0, 1], "s.1")
    before.resolved("s.1")
    first, second = (next(d for d in before.sent(m.Deliver, 1) if d.spec.id == i) for i in ("s.0", "s.1"))
    mine = before.sent(m.Deliver, 0)[0]
    after = Cluster([])
    after.do(after.core.announce(m.Announce(host(0), (), (mine,)), after.now))
    after.do(after.core.announce(m.Announce(host(1), (), (first, second)), after.now))
    assert [d.spec.id for d in after.sent(m.Deliver, 0)] == ["s.1"]
    assert not after.sent(m.Deliver, 1)
