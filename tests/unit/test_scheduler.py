"""The scheduler's decisions, message by message, without Ray and clocks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import Endpoint, Host, digest
from dragonfly_ray.scheduling import trust
from dragonfly_ray.scheduling.evaluator import BalancedEvaluator, Facts
from dragonfly_ray.scheduling.scheduler import Ask, SchedulerCore, Send
from tests.unit.one_scheduler import PIECES, SOURCE, TASK, Cluster, host, settings, started


def test_one_host_resolves_for_all_and_everybody_gets_the_delivery() -> None:
    cluster = started()
    assert len([a for a in cluster.said if isinstance(a, Ask)]) == 1
    deliveries = cluster.sent(m.Deliver)
    assert len(deliveries) == 4
    assert all(len(d.neighbours) == 3 for d in deliveries)


def test_a_resolver_with_a_full_disk_does_not_end_it_for_all() -> None:
    cluster = Cluster(host(i) for i in range(3))
    cluster.submit(range(3))
    full = m.Resolved(kind="storage-full", message="full")
    cluster.do(cluster.core.resolved("s.0", full, cluster.now))
    asked = [a.host for a in cluster.said if isinstance(a, Ask)]
    assert len(set(asked)) == 2
    cluster.resolved()
    assert len(cluster.sent(m.Deliver)) == 3


def test_no_piece_is_leased_twice() -> None:
    cluster = started()
    leased = [p for d in cluster.sent(m.Deliver) for p in d.lease]
    for _ in range(200):
        for number in range(4):
            leased += cluster.report(number, claim=4).lease
    assert sorted(leased) == list(range(PIECES))


def test_a_seed_resolves_and_with_that_policy_only_seeds_get_leases() -> None:
    cluster = Cluster([host(0, seed=True), host(1), host(2)], policy="seeds")
    cluster.submit([1, 2])
    asks = [a for a in cluster.said if isinstance(a, Ask)]
    assert [a.host for a in asks] == ["h0"]
    cluster.resolved()
    by_host = {d.grant: d for d in cluster.sent(m.Deliver, 0)}
    assert all(d.helper and d.may_claim and d.lease for d in by_host.values())
    assert all(not d.may_claim and not d.lease for n in (1, 2) for d in cluster.sent(m.Deliver, n))
    assert cluster.report(1, claim=5).lease == ()


def test_when_the_last_seed_dies_targets_take_over() -> None:
    cluster = Cluster([host(0, seed=True), host(1), host(2)], policy="seeds")
    cluster.submit([1, 2])
    cluster.resolved()
    assert not any(d.may_claim for n in (1, 2) for d in cluster.sent(m.Deliver, n))
    cluster.do(cluster.core.probed("h0", "gone", cluster.now))
    assert all(cluster.sent(m.Deliver, n)[-1].may_claim for n in (1, 2)), "they hear of it at once"
    leases = [*cluster.sent(m.Deliver, 1)[-1].lease, *cluster.sent(m.Deliver, 2)[-1].lease]
    leases += [p for _ in range(PIECES) for n in (1, 2) for p in cluster.report(n, claim=4).lease]
    assert sorted(leases) == list(range(PIECES))


def test_a_lease_without_progress_goes_to_somebody_else() -> None:
    cluster = started(2)
    mine = set(cluster.sent(m.Deliver, 0)[0].lease)
    assert mine
    cluster.now += 3.0
    cluster.do(cluster.core.tick(cluster.now))
    assert any(set(n.revoked) == mine for n in cluster.sent(m.TaskUpdate, 0))
    seen: set[int] = set()
    for _ in range(PIECES):
        seen.update(cluster.report(1, claim=4, bytes_origin=len(seen)).lease)
    assert mine <= seen


def test_leases_that_are_given_back_go_to_others_who_are_told_what_is_usual() -> None:
    cluster = started(2)
    mine = cluster.sent(m.Deliver, 1)[0].lease
    first = cluster.sent(m.Deliver, 0)[0].lease
    assert cluster.report(0, claim=1).usual == 0.0
    cluster.now += 0.2
    cluster.report(0, got=first, origin=tuple((i, digest(b"%d" % i)) for i in first))
    cluster.report(1, got=first)
    cluster.report(0, claim=1)
    cluster.now += 0.15
    assert cluster.report(0).usual == pytest.approx(0.2)
    cluster.now += 1.0
    cluster.report(1, released=mine[1:])
    taken: set[int] = set()
    while more := cluster.report(0, claim=8).lease:
        taken.update(more)
    assert taken.issuperset(mine[1:])
    assert mine[0] not in taken, "it reads that one"


def test_content_that_changes_twice_is_an_error_whatever_the_resolver_went_through() -> None:
    cluster = Cluster(host(i) for i in range(2))
    cluster.submit([0, 1])
    cluster.do(cluster.core.resolved("s.0", m.Resolved(kind="source-busy", message="429"), cluster.now))
    changed = m.OriginFailed("h0", TASK.id, "source-changed", "has changed", (0,), final=True)
    cluster.resolved()
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    assert cluster.view()["phase"] == "resolving"
    cluster.resolved()
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    assert cluster.view()["phase"] == "ended"
    nodes: Any = cluster.view()["nodes"]
    assert {(n["kind"], "replicas" in n["message"]) for n in nodes.values()} == {("source-changed", True)}


@pytest.mark.parametrize("when", ["before the look", "after it"])
def test_who_has_not_heard_yet_that_content_has_changed_does_not_bring_it_back(when: str) -> None:
    cluster = started(2)
    (former,) = cluster.sent(m.Deliver, to=1)
    changed = m.OriginFailed("h0", TASK.id, "source-changed", "has changed", (0,), final=True)
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    cluster.found = msgspec.structs.replace(TASK, id="another")
    if when == "after it":
        cluster.resolved()
    assert not cluster.report(1).known
    cluster.do(cluster.core.announce(m.Announce(host(1), deliveries=(former,)), cluster.now))
    if when == "before the look":
        cluster.resolved()
    assert [d.task.id for d in cluster.sent(m.Deliver, to=1)] == [TASK.id, "another"]
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    assert cluster.view()["phase"] == "running"
    assert cluster.view()["task_id"] == "another"


def test_what_has_no_version_is_named_by_its_last_look_for_a_while() -> None:
    cluster = Cluster([host(0)])

    def nonce(spec_id: str, after: float) -> str:
        cluster.now += after
        cluster.submit([0], spec_id)
        asked = [a.message for a in cluster.said if isinstance(a, Ask)]
        return [each for each in asked if isinstance(each, m.Resolve)][-1].nonce

    first = nonce("a.0", 0.0)
    assert first
    assert nonce("b.0", 59.0) == first
    second = nonce("c.0", 2.0)
    assert second != first
    cluster.resolved("c.0")
    changed = m.OriginFailed("h0", TASK.id, "source-changed", "has changed", (0,), final=True)
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    assert nonce("d.0", 0.0) != second


def test_nobody_waits_for_a_submitter_that_has_gone() -> None:
    cluster = started(2)
    cluster.now += 31.0
    for number in (0, 1):
        cluster.report(number)
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.view()["phase"] == "ended"
    assert len(cluster.sent(m.Cancel)) == 2


def test_the_same_id_twice_is_one_distribution() -> None:
    cluster = started(2)
    asked = len([a for a in cluster.said if isinstance(a, Ask)])
    cluster.submit([0, 1])
    assert len([a for a in cluster.said if isinstance(a, Ask)]) == asked


def test_evicted_content_is_not_offered_any_more() -> None:
    cluster = started(2)
    cluster.report(0, got=tuple(range(PIECES)))
    cluster.end(0)
    assert cluster.core.where(SOURCE.id)["n0"] == 1.0
    cluster.core.evicted("h0", TASK.id, cluster.now)
    assert "n0" not in cluster.core.where(SOURCE.id)


def test_a_scheduler_asks_the_evaluator_that_it_was_given() -> None:
    class Nobody(BalancedEvaluator):
        policy = "nobody-but-h3/1"

        def bars(self, host: Facts, now: float) -> bool:
            return host.host.id != "h3"

    cluster = Cluster([])
    cluster.core = SchedulerCore(settings(), lambda task, host: b"grant", Nobody())
    for number in range(4):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
    cluster.submit(range(4))
    cluster.resolved()
    assert [o.host.id for o in cluster.sent(m.Deliver, 0)[0].neighbours if not o.silent] == ["h3"]
    assert {d.policy for d in cluster.core.decisions.recent() if d.kind == "neighbours"} == {Nobody.policy}


def large(count: int) -> Cluster:
    zones = [Host(f"h{i}", f"n{i}", (Endpoint("10.0.0.1", 1),), idc=f"z{i % 2}", incarnation="1")
             for i in range(count)]  # fmt: skip
    cluster = Cluster(zones)
    cluster.submit(range(count))
    cluster.resolved()
    return cluster


def test_neighbours_in_a_large_task_are_few_and_both_sides_know() -> None:
    cluster = large(200)
    known = {n: {o.host.id for o in cluster.sent(m.Deliver, n)[0].neighbours} for n in range(200)}
    assert all(40 <= len(k) <= 60 for k in known.values())
    assert all(f"h{n}" in known[int(other[1:])] for n, k in known.items() for other in k)
    before = len(cluster.said)
    late = Host("h200", "n200", (Endpoint("10.0.0.1", 1),), idc="z0", incarnation="1")
    cluster.do(cluster.core.announce(m.Announce(late), cluster.now))
    cluster.submit([200], "late.0")
    cluster.resolved("late.0")
    news = [a for a in cluster.said[before:] if isinstance(a, Send) and isinstance(a.message, m.TaskUpdate)]
    assert {a.host for a in news} == {o.host.id for o in cluster.sent(m.Deliver, 200)[0].neighbours}


def test_edges_name_the_decision_that_drew_them() -> None:
    cluster = large(100)
    task = cluster.core.tasks[TASK.id]
    child = 99
    parents = [o.host.id for o in cluster.sent(m.Deliver, child)[0].neighbours][:3]
    cluster.report(child, parents=tuple((p, 1000) for p in parents))
    cluster.now += 2.0
    cluster.report(child, parents=((parents[0], 500), ("stranger", 7)))
    shown = cluster.core.edges(TASK.id)
    assert (shown[0]["parent"], shown[0]["child"], shown[0]["bytes"]) == (parents[0], "h99", 1500)
    assert sorted(e["bytes"] for e in shown) == [1000, 1000, 1500]
    decisions = {d.id: d for d in cluster.core.decisions.recent(TASK.id)}
    for edge in shown:
        drew = decisions[edge["decision"]]
        ends = {edge["parent"], edge["child"]}
        assert drew.kind == "neighbours"
        assert drew.host in ends
        assert ends - {drew.host} <= set(drew.choice)
        assert drew.policy == "balanced/1"
        assert drew.arm == task.arm
        assert set(drew.choice) <= set(drew.candidates) or len(drew.candidates) == 64
        assert len(drew.features["values"]) == len(drew.features["names"]) * len(drew.candidates)
        assert 0 < drew.probability <= 1
    last = [d for d in decisions.values() if d.kind == "edges"][-1]
    assert last.features["seconds"] == 2.0
    assert last.choice == ((parents[0], 500, shown[0]["decision"]),)


def test_every_lease_is_a_decision_with_its_grounds() -> None:
    cluster = started(2)
    lease = cluster.report(0, claim=3, rate=1e6).lease
    last = [d for d in cluster.core.decisions.recent(TASK.id) if d.kind == "lease"][-1]
    assert (last.host, last.choice) == ("h0", lease)
    assert last.features["rate"] == 1e6
    assert last.features["claimants"] == 2


def test_what_is_counted_along_the_way_stays_true() -> None:
    """The counters against a count of everything, after all that can happen to hosts."""
    import random

    rng = random.Random(3)
    cluster = large(60)
    core, task = cluster.core, cluster.core.tasks[TASK.id]
    for step in range(600):
        number, cluster.now = rng.randrange(60), cluster.now + 0.01
        what = rng.randrange(8)
        if what == 0 and step % 3 == 0:
            verdict = rng.choice(["died", "silent", "gone"])
            cluster.do(core.probed(f"h{number}", verdict, cluster.now))  # type: ignore[arg-type]
        elif what == 1:
            cluster.do(core.announce(m.Announce(host(number, incarnation=str(step))), cluster.now))
        elif what == 2 and step % 20 == 0:
            cluster.do(trust.ban(core.cluster, task, f"h{number}", cluster.now))
        elif what == 3:
            cluster.report(number, lost=tuple(rng.sample(range(PIECES), 3)))
        elif what == 4:
            core.evicted(f"h{number}", TASK.id, 100.0)
        elif what == 5:
            cluster.end(number, ok=rng.random() < 0.5)
        else:
            got = tuple(rng.sample(range(PIECES), 5))
            read = tuple((p, digest(b"%d" % p)) for p in got if rng.random() < 0.7)
            cluster.report(number, got=got, origin=read, claim=2, bytes_origin=step)
        able = {h for h in task.participants if core.hosts[h].alive and h not in task.banned}
        assert task.able == able
        assert core.cluster.busy == sum(len(t.participants) for t in core.tasks.values())
        held = 0
        for holder, pieces in task.holders.items():
            held |= 0 if holder in task.banned else pieces
        assert task.somewhere() == held
        spec = core.specs["s.0"]
        assert spec.unfinished == len(spec.open_nodes)
        assert task.specs == {s.spec.id: s for s in core.specs.values() if s.phase == "running"}
        leased = 0
        for holder in core.hosts:
            assert not leased & task.leases.held_by(holder)
            leased |= task.leases.held_by(holder)
        assert task.leases.leased == leased
        assert not task.leases.free & leased
        recorded = sum(1 << p for p in task.record)
        assert not (task.leases.free | leased) & held & recorded
        assert task.leases.free | leased | held == task.everything, "no piece is forgotten"
