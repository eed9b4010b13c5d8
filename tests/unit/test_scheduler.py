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
from dragonfly_ray.scheduling.evaluator import BalancedEvaluator, Facts

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
    assert any(n.joined for n in cluster.sent(m.News, 1))


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
    everything_read_by(cluster, 0)
    cluster.do(cluster.core.probed("h0", "gone", cluster.now))
    back = Host("h0", node, (Endpoint("10.0.0.1", 1),), "host9", incarnation="2")
    before = len(cluster.sent(m.News, 1))
    every = (1 << PIECES) - 1
    cluster.do(cluster.core.announce(m.Announce(back, (held(cluster, every),)), cluster.now))
    joined = [n for news in cluster.sent(m.News, 1)[before:] for n in news.joined]
    assert [n.host for n in joined] == [back]


def test_a_holder_that_is_found_again_feeds_the_others() -> None:
    """Its process lived on, silent for too long: what it alone has is not asked of the origin."""
    cluster = started(3)
    everything_read_by(cluster, 0)
    cluster.end(0)
    cluster.do(cluster.core.probed("h0", "silent", cluster.now + 100.0))
    before = len(cluster.sent(m.News, 1))
    every = (1 << PIECES) - 1
    cluster.do(cluster.core.announce(m.Announce(host(0), (held(cluster, every),)), cluster.now + 101.0))
    assert [n.host.id for news in cluster.sent(m.News, 1)[before:] for n in news.joined] == ["h0"]


def test_a_host_that_nobody_feeds_reads_from_the_origin_in_the_end() -> None:
    cluster = started(3)
    everything_read_by(cluster, 0)
    assert cluster.report(1, claim=4, bytes_peers=1).lease == ()
    cluster.now += 5.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease == (), "slow is not stuck"
    cluster.now += 5.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease == ()
    cluster.now += 6.0
    assert cluster.report(1, claim=4, bytes_peers=2).lease


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
    assert any(n.host.incarnation == "2" for news in after.sent(m.News, 1) for n in news.joined)
    again = before.sent(m.Deliver, 2)[0]
    after.do(after.core.announce(m.Announce(host(2), (), (again,)), after.now))
    assert len(after.sent(m.Deliver)) == 1, "who has it is not given it again"
    assert {n.host.id for news in after.sent(m.News, 2) for n in news.joined} == {"h0", "h1"}


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
        assert all(1 <= n <= OriginSettings().small_connections for n in told.values())
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


def test_content_that_has_changed_takes_no_share_of_its_origin_any_more() -> None:
    cluster = in_a_folder(4, max_connections=32)
    assert {d.connections for d in cluster.sent(m.Deliver)} == {8}
    changed = m.OriginFailed("h0", FOLDER.id, "source-changed", "has changed", (0,), final=True)
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    other = msgspec.structs.replace(FOLDER, id="other")
    cluster.do(cluster.core.resolved("s.0", m.Resolved(task=other, manifest=b"m"), cluster.now))
    for number in range(4):
        reply, _ = cluster.core.report(m.Report(f"h{number}", "other", claim=2), cluster.now)
        assert reply.connections == 8


def test_a_complaint_counts_once_however_many_tasks_its_origin_has() -> None:
    cluster = in_a_folder(2, max_connections=64)
    for number in range(3):
        other = msgspec.structs.replace(FOLDER, id=f"other{number}")
        cluster.submit([0, 1], f"b{number}.0")
        answer = m.Resolved(task=other, manifest=b"m")
        cluster.do(cluster.core.resolved(f"b{number}.0", answer, cluster.now))
    (key,) = cluster.core.budgets
    cluster.do(cluster.core.patience(key, 0.0, cluster.now))
    assert cluster.core.budgets[key].allowed(cluster.now) == 32


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


# --- parents ------------------------------------------------------------------------------------


def banned_elsewhere(*numbers: int, count: int = 4) -> Cluster:
    cluster = Cluster(host(i) for i in range(count))
    for number in numbers:
        cluster.core.hosts[f"h{number}"].banned(cluster.now)
    return cluster


def test_a_host_that_was_banned_lately_gets_everything_and_feeds_nobody() -> None:
    cluster = banned_elsewhere(0)
    cluster.submit(range(4))
    cluster.resolved()
    known = {n: [o.host.id for o in cluster.sent(m.Deliver, n)[0].neighbours] for n in range(4)}
    assert known == {0: ["h1", "h2", "h3"], 1: ["h2", "h3"], 2: ["h1", "h3"], 3: ["h1", "h2"]}
    assert not cluster.sent(m.Deliver, 0)[0].may_claim
    assert cluster.report(0, claim=4).lease == ()
    cluster.report(0, got=tuple(range(PIECES)))
    assert cluster.report(1, claim=4).lease, "what only it has is fetched again"
    for number in range(4):
        cluster.end(number)
    assert cluster.view()["phase"] == "ended"
    assert not cluster.core.tasks[TASK.id].banned, "until the task came to rest"


def test_time_heals() -> None:
    cluster = banned_elsewhere(0)
    cluster.now += 3600.0
    for number in range(4):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
    cluster.submit(range(4))
    cluster.resolved()
    assert all(len(cluster.sent(m.Deliver, n)[0].neighbours) == 3 for n in range(4))


def test_where_nobody_else_is_left_those_banned_elsewhere_go_to_the_origin() -> None:
    cluster = banned_elsewhere(0, 1, count=2)
    cluster.submit([0, 1])
    cluster.resolved()
    assert all(cluster.sent(m.Deliver, n)[0].may_claim for n in (0, 1))
    cluster = banned_elsewhere(0, count=2)
    cluster.submit([0, 1])
    cluster.resolved()
    cluster.do(cluster.core.probed("h1", "gone", cluster.now))
    seen: list[int] = []
    for _ in range(2 * PIECES):
        lease = cluster.report(0, claim=4, got=tuple(seen), bytes_origin=len(seen)).lease
        seen += lease
    assert sorted(seen) == list(range(PIECES))


def test_a_ban_is_remembered_in_other_tasks() -> None:
    cluster = started(4)
    for number in (1, 2):
        cluster.report(number, bad=("h0",))
    assert cluster.core.hosts["h0"].guilt(cluster.now) >= 1.0
    cluster.do(cluster.core.announce(m.Announce(host(0, incarnation="2")), cluster.now))
    assert cluster.core.hosts["h0"].guilt(cluster.now) >= 1.0, "a new process of it, too"


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
    assert [o.host.id for o in cluster.sent(m.Deliver, 0)[0].neighbours] == ["h3"]
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
    news = [a for a in cluster.said[before:] if isinstance(a, Send) and isinstance(a.message, m.News)]
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
            cluster.report(number, bad=(f"h{rng.randrange(60)}",))
        elif what == 3:
            cluster.report(number, lost=tuple(rng.sample(range(PIECES), 3)))
        elif what == 4:
            core.evicted(f"h{number}", TASK.id)
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


# --- what the record denies ---------------------------------------------------------------------


def test_who_spread_what_the_record_denies_is_banned_unless_it_says_who_misled_it() -> None:
    cluster = started(5)
    good = digest(b"good")
    cluster.report(0, got=(0,), origin=((0, good),))
    assert cluster.report(4, disputed=(0, 1)).record == ((0, good),)
    # h1 made it up; h2 had it from h1 and passed it on to h3 and h4.
    for number in (3, 4):
        cluster.report(number, misled=(("h2", 0), ("h1", 0)))
    for number in (1, 2):
        assert [n.record for n in cluster.sent(m.News, number) if n.record] == [((0, good),)]
    cluster.report(2, lost=(0,), misled=(("h1", 0),))
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned, "there is a moment to explain"
    cluster.now += 2.1
    cluster.do(cluster.core.tick(cluster.now))
    assert cluster.core.tasks[TASK.id].banned == {"h1"}


def test_one_voice_about_the_record_bans_nobody() -> None:
    cluster = started(4)
    cluster.report(0, got=(0,), origin=((0, digest(b"good")),))
    cluster.report(1, misled=(("h0", 0), ("h2", 0), ("h2", 5)))
    cluster.now += 3.0
    cluster.do(cluster.core.tick(cluster.now))
    assert not cluster.core.tasks[TASK.id].banned
