"""The scheduler's decisions, message by message, without Ray and clocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import Credentials, Endpoint, Entry, Host, Manifest, PieceTable, Source, Task, digest
from dragonfly_ray.scheduling.core import Action, Ask, Probe, SchedulerCore, Send

T = TypeVar("T")
PIECES = 100


def settings(policy: str = "all") -> Settings:
    return Settings(origin=OriginSettings(policy=policy))


def host(number: int, *, seed: bool = False, incarnation: str = "1") -> Host:
    return Host(f"h{number}", f"n{number}", (Endpoint("10.0.0.1", 1000 + number),), f"host{number}", seed,
                incarnation=incarnation)  # fmt: skip


def a_task(source: Source) -> Task:
    manifest = Manifest((Entry("f", PIECES * 256 * 1024, "v1"),), directory=False)
    table = PieceTable.of(manifest)
    assert len(table) == PIECES
    data = manifest.encode()
    return Task(manifest.task_id(source.id), source.id, source.url, source.tenant, digest(data), len(data),
                table.size, PIECES, 1, False, True)  # fmt: skip


SOURCE = Source("http://origin/f")
TASK = a_task(SOURCE)


class Cluster:
    """A core, and what it wants to say."""

    def __init__(self, hosts: Iterable[Host], policy: str = "all") -> None:
        self.core = SchedulerCore(settings(policy), lambda task, host: b"grant")
        self.now = 100.0
        self.said: list[Action] = []
        for each in hosts:
            self.do(self.core.announce(m.Announce(each), self.now))

    def do(self, actions: list[Action]) -> list[Action]:
        self.said += actions
        return actions

    def submit(self, targets: Iterable[int], spec_id: str = "s.0") -> None:
        spec = m.Spec(spec_id, SOURCE, tuple(f"n{t}" for t in targets))
        self.do(self.core.submit(spec, Credentials(), self.now))

    def resolved(self, spec_id: str = "s.0") -> None:
        self.do(self.core.resolved(spec_id, m.Resolved(task=TASK, manifest=b"m"), self.now))

    def report(self, number: int, **news: object) -> m.ReportReply:
        reply, actions = self.core.report(m.Report(f"h{number}", TASK.id, **news), self.now)  # type: ignore[arg-type]
        self.do(actions)
        return reply

    def sent(self, kind: type[T], to: int | None = None) -> list[T]:
        return [a.message for a in self.said if isinstance(a, Send) and isinstance(a.message, kind)
                and to in (None, int(a.host[1:]))]  # fmt: skip

    def end(self, number: int, spec_id: str = "s.0", *, ok: bool = True) -> None:
        ended = m.Ended(f"h{number}", spec_id, TASK.id, ok, kind="" if ok else "storage-full")
        self.do(self.core.ended(ended, self.now))

    def view(self, spec_id: str = "s.0") -> dict[str, object]:
        found = self.core.view(spec_id)
        assert found is not None
        return found


def started(count: int = 4, **options: object) -> Cluster:
    cluster = Cluster((host(i) for i in range(count)), **options)  # type: ignore[arg-type]
    cluster.submit(range(count))
    cluster.resolved()
    return cluster


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
    cluster.do(cluster.core.probed("h0", "gone", cluster.now))
    leases = [p for _ in range(PIECES) for n in (1, 2) for p in cluster.report(n, claim=4).lease]
    assert sorted(leases) == list(range(PIECES))


def test_a_lease_without_progress_goes_to_somebody_else() -> None:
    cluster = started(2)
    mine = set(cluster.sent(m.Deliver, 0)[0].lease)
    assert mine
    cluster.now += 3.0
    cluster.do(cluster.core.tick(cluster.now))
    assert any(set(n.revoked) == mine for n in cluster.sent(m.News, 0))
    seen: set[int] = set()
    for _ in range(PIECES):
        seen.update(cluster.report(1, claim=4, bytes_origin=len(seen)).lease)
    assert mine <= seen


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
    assert any(n.left == ("h0",) for n in cluster.sent(m.News, 1)), "nobody waits for it meanwhile"
    cluster.now += 8.0
    cluster.report(1)
    cluster.do(cluster.core.probed("h0", "silent", cluster.now))
    assert cluster.view()["nodes"]["n0"]["kind"] == "node-lost"  # type: ignore[index]
    cluster.end(1)
    assert cluster.view()["phase"] == "ended"


def test_a_peer_that_died_gets_its_delivery_again_when_it_is_back() -> None:
    cluster = started(2)
    cluster.do(cluster.core.probed("h0", "died", cluster.now))
    assert cluster.view()["nodes"]["n0"]["state"] == "waiting"  # type: ignore[index]
    before = len(cluster.sent(m.Deliver, 0))
    cluster.do(cluster.core.announce(m.Announce(host(0, incarnation="2")), cluster.now))
    assert len(cluster.sent(m.Deliver, 0)) == before + 1
    assert any(n.joined for n in cluster.sent(m.News, 1))


def test_a_store_that_moves_to_another_node_does_not_hide_the_loss_of_its_first() -> None:
    cluster = started(2)
    moved = Host("h0", "n9", (Endpoint("10.0.0.1", 1),), "host9", incarnation="2")
    cluster.do(cluster.core.announce(m.Announce(moved), cluster.now))
    cluster.end(1)
    cluster.do(cluster.core.node_gone("n0", cluster.now))
    assert cluster.view()["nodes"]["n0"]["kind"] == "node-lost"  # type: ignore[index]
    assert cluster.view()["phase"] == "ended"


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


def test_corrupted_bytes_ban_their_sender_after_two_complaints() -> None:
    cluster = started(4)
    cluster.report(1, bad=("h0",))
    assert not cluster.core.tasks[TASK.id].banned
    cluster.report(2, bad=("h0",))
    assert cluster.core.tasks[TASK.id].banned == {"h0"}
    assert all(any(n.banned == ("h0",) for n in cluster.sent(m.News, to)) for to in (1, 2, 3))


def test_two_digests_for_one_piece_drop_both() -> None:
    cluster = started(3)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    cluster.report(1, got=(0,), origin=((0, digest(b"evil")),))
    assert any(n.discard == (0,) for n in cluster.sent(m.News))
    assert 0 not in cluster.core.tasks[TASK.id].record


def test_one_busy_answer_slows_everybody() -> None:
    cluster = started(3)
    cluster.do(cluster.core.throttled(m.Throttled("h0", TASK.id, 3.0), cluster.now))
    assert all(any(n.not_before == 3.0 for n in cluster.sent(m.News, to)) for to in range(3))
    for number in range(3):
        reply = cluster.report(number, claim=4)
        assert reply.lease == ()
        assert reply.not_before == pytest.approx(3.0)
    cluster.now += 3.1
    assert cluster.report(1, claim=4, bytes_origin=1).lease


def test_a_final_error_of_the_origin_ends_the_distribution_everywhere() -> None:
    cluster = started(3)
    failed = m.OriginFailed("h0", TASK.id, "source-auth", "403", (0,), final=True)
    cluster.do(cluster.core.origin_failed(failed, cluster.now))
    assert cluster.view()["phase"] == "ended"
    assert len(cluster.sent(m.Cancel)) == 3


def test_an_origin_may_fail_for_a_while() -> None:
    cluster = started(2)
    failed = m.OriginFailed("h0", TASK.id, "source-unreachable", "refused", (0,), final=False)
    cluster.do(cluster.core.origin_failed(failed, cluster.now))
    assert cluster.view()["phase"] == "running"
    cluster.now += 31.0
    cluster.do(cluster.core.origin_failed(failed, cluster.now))
    assert cluster.view()["phase"] == "ended"


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


def test_what_has_no_version_is_named_by_its_last_look_for_a_while() -> None:
    cluster = Cluster([host(0)])

    def nonce(spec_id: str, after: float) -> str:
        cluster.now += after
        cluster.submit([0], spec_id)
        return [a for a in cluster.said if isinstance(a, Ask)][-1].message.nonce

    first = nonce("a.0", 0.0)
    assert first
    assert nonce("b.0", 59.0) == first
    second = nonce("c.0", 2.0)
    assert second != first
    cluster.resolved("c.0")
    changed = m.OriginFailed("h0", TASK.id, "source-changed", "has changed", (0,), final=True)
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    assert nonce("d.0", 0.0) != second


FOLDER = msgspec.structs.replace(TASK, directory=True, entries=1000)


def in_a_folder(count: int, **origin: Any) -> Cluster:
    """A folder of small files, ten to a piece, on its way to `count` hosts."""
    cluster = Cluster(host(i) for i in range(count))
    cluster.core = SchedulerCore(Settings(origin=OriginSettings(**origin)), lambda task, host: b"grant")
    for number in range(count):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
    cluster.submit(range(count))
    answer = m.Resolved(task=FOLDER, manifest=b"m", requests=(10,) * PIECES)
    cluster.do(cluster.core.resolved("s.0", answer, cluster.now))
    return cluster


@pytest.mark.parametrize(("count", "most"), [(3, 64), (10, 64), (50, 20)])
def test_all_connections_together_stay_within_the_budget(count: int, most: int) -> None:
    cluster = in_a_folder(count, max_connections=most)
    told = {n: d.connections for n in range(count) for d in cluster.sent(m.Deliver, n) if d.lease}
    for tick in range(300):
        number = tick % count
        cluster.now += 0.01
        reply = cluster.report(number, claim=2, bytes_origin=tick)
        if reply.lease or number in told:
            told[number] = reply.connections
        assert sum(told.values()) <= most
        assert all(1 <= n <= 16 for n in told.values())
    assert len(told) == min(count, most)


def test_a_busy_answer_halves_what_each_may_open_at_once() -> None:
    cluster = in_a_folder(4, max_connections=64)
    assert {d.connections for d in cluster.sent(m.Deliver)} == {16}
    cluster.do(cluster.core.throttled(m.Throttled("h0", TASK.id, 3.0), cluster.now))
    assert [n.connections for n in cluster.sent(m.News) if n.not_before] == [8] * 4
    cluster.now += 3.0
    assert cluster.report(1, claim=2, bytes_origin=1).connections == 8


def test_two_folders_of_one_origin_share_its_connections() -> None:
    cluster = in_a_folder(2, max_connections=16)
    other = msgspec.structs.replace(FOLDER, id="other")
    cluster.submit([0, 1], "b.0")
    cluster.do(cluster.core.resolved("b.0", m.Resolved(task=other, manifest=b"m"), cluster.now))
    for number in (0, 1):
        assert cluster.report(number, claim=2).connections <= 4
    for number in (0, 1):
        reply, _ = cluster.core.report(m.Report(f"h{number}", "other", claim=2), cluster.now)
        assert reply.connections == 4


def test_leases_cost_what_they_ask_of_the_origin() -> None:
    cluster = in_a_folder(4, max_requests=20.0)
    leased = [p for d in cluster.sent(m.Deliver) for p in d.lease]
    started = cluster.now
    for tick in range(2000):
        cluster.now += 0.01
        leased += cluster.report(tick % 4, claim=4, bytes_origin=tick).lease
        assert 10 * len(leased) <= 20 + 20 * (cluster.now - started) + 10
    assert 10 * len(leased) >= 390


def test_helpers_that_look_share_what_the_origin_allows() -> None:
    cluster = in_a_folder(4, max_connections=12, max_requests=8.0)
    (ask,) = [a.message for a in cluster.said if isinstance(a, Ask)]
    assert (len(ask.helpers), ask.connections, ask.rate) == (3, 3, 2.0)
    look = m.Look(ask.helpers[0], SOURCE)
    assert not cluster.core.may_look(look), "it is resolved"


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


def test_the_record_decides() -> None:
    cluster = started(2)
    digests = [digest(b"%d" % i) for i in range(PIECES)]
    assert cluster.core.verify(m.Verify("h0", TASK.id, digest(b"".join(digests)))).pending
    cluster.report(0, got=tuple(range(PIECES)), origin=tuple(enumerate(digests)))
    assert cluster.core.verify(m.Verify("h1", TASK.id, digest(b"".join(digests)))).ok
    wrong = cluster.core.verify(m.Verify("h1", TASK.id, digest(b"no")))
    assert not wrong.ok
    assert wrong.digests == b"".join(digests)


def test_evicted_content_is_not_offered_any_more() -> None:
    cluster = started(2)
    cluster.report(0, got=tuple(range(PIECES)))
    cluster.end(0)
    assert cluster.core.where(SOURCE.id)["n0"] == 1.0
    cluster.core.evicted("h0", TASK.id)
    assert "n0" not in cluster.core.where(SOURCE.id)
