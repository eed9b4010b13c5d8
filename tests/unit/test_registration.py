"""A peer makes known what it has in pages without digests; a scheduler asks for those that it needs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.errors import HostIdTakenError
from dragonfly_ray.model import Host, Source, Task, digest, root_digest
from dragonfly_ray.peer import registration
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.scheduling.digest_recovery import ASK_TIMEOUT
from dragonfly_ray.scheduling.scheduler import SchedulerCore
from tests.benchmarks.restart import PER_TASK, pages_of, tasks_of
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.one_scheduler import PIECES, TASK, Cluster, a_task, host, started
from tests.waiting import until

CONTENT = os.urandom(8 << 20)
DIGESTS = [digest(b"%d" % i) for i in range(PIECES)]
ROOT = root_digest(DIGESTS)
OTHER = a_task(Source("http://origin/other"))


def page(number: int, *held: m.Held, at: int = 0, last: bool = True, **more: Any) -> m.Announce:
    incarnation = more.pop("incarnation", "1")
    return m.Announce(host(number, incarnation=incarnation), held, sequence="q", page=at, last=last, **more)


def whole(task: Task = TASK, root: bytes = ROOT) -> m.Held:
    return m.Held(task, b"", root=root)


def part(*pieces: int) -> m.Held:
    return m.Held(TASK, bitset.to_bytes(bitset.of(pieces), PIECES))


def announce(cluster: Cluster, message: m.Announce) -> None:
    cluster.do(cluster.core.announce(message, cluster.now))


def asked(cluster: Cluster) -> list[int]:
    return [n for n in range(10) for _ in cluster.sent(m.TellDigests, n)]


def tell(cluster: Cluster, number: int, digests: list[bytes], pieces: int = (1 << PIECES) - 1) -> None:
    message = m.Digests(f"h{number}", TASK.id, bitset.to_bytes(pieces, PIECES), b"".join(digests))
    cluster.do(cluster.core.digests(message, cluster.now))


def verify(cluster: Cluster, number: int, root: bytes = ROOT) -> m.Verified:
    return cluster.core.verify(m.Verify(f"h{number}", TASK.id, root))


def submitted(cluster: Cluster, *targets: int) -> Cluster:
    cluster.submit(targets)
    cluster.core.specs["s.0"].proved = True
    cluster.resolved()
    return cluster


# --- pages ------------------------------------------------------------------------------------------


def test_a_full_cache_is_a_few_small_pages() -> None:
    """256 GB of files of 64 MiB: it was one message of 63 MiB."""
    pages = pages_of(host(0), tasks_of(2_000_000 // PER_TASK))
    assert sum(map(len, pages)) < 2 << 20
    assert max(map(len, pages)) < 128 << 10


def test_what_a_page_lacks_is_held_until_the_last_one_says_otherwise() -> None:
    cluster = Cluster([])
    announce(cluster, page(0, whole(), whole(OTHER)))
    announce(cluster, page(0, last=False))
    announce(cluster, page(0, whole(OTHER), at=1, last=False))
    assert cluster.core.where(TASK.source_id) == {"n0": 1.0}
    announce(cluster, page(0, at=2))
    assert cluster.core.where(TASK.source_id) == {}
    assert cluster.core.where(OTHER.source_id) == {"n0": 1.0}


def test_an_announcement_of_one_task_says_nothing_of_others() -> None:
    cluster = Cluster([])
    announce(cluster, page(0, whole()))
    announce(cluster, m.Announce(host(0), (whole(OTHER),)))
    assert cluster.core.where(TASK.source_id) == {"n0": 1.0}


def test_what_is_told_between_two_pages_counts() -> None:
    cluster = submitted(Cluster([host(0), host(1)]), 0, 1)
    announce(cluster, page(0, last=False))
    cluster.report(0, got=tuple(range(PIECES)), origin=tuple(enumerate(DIGESTS)))
    cluster.end(0)
    cluster.end(1)
    announce(cluster, page(0, at=1))
    assert cluster.core.where(TASK.source_id)["n0"] == 1.0


def test_what_is_reported_between_two_pages_counts_though_the_distribution_is_cancelled() -> None:
    cluster = submitted(Cluster([host(0)]), 0)
    announce(cluster, page(0, last=False))
    cluster.report(0, got=tuple(range(50)))
    cluster.do(cluster.core.cancel("s.0", cluster.now))
    announce(cluster, page(0, at=1))
    assert cluster.core.where(TASK.source_id) == {"n0": 0.5}


def test_pages_of_a_scheduler_that_restarted_begin_again() -> None:
    cluster = Cluster([])
    assert not cluster.core.follows(page(0, at=1))
    announce(cluster, page(0, whole(), at=1))
    assert cluster.core.tasks == {}
    announce(cluster, page(0, last=False))
    assert cluster.core.follows(page(0, at=1))
    assert cluster.core.follows(page(0)), "the first page again"
    assert not cluster.core.follows(page(0, at=2))
    assert not cluster.core.follows(page(0, at=1, incarnation="2"))


def test_a_page_may_come_twice() -> None:
    cluster = Cluster([])
    announce(cluster, page(0, last=False))
    for _ in range(2):
        announce(cluster, page(0, whole(), at=1, last=False))
    announce(cluster, page(0, at=2))
    assert cluster.core.where(TASK.source_id) == {"n0": 1.0}


def test_the_last_page_may_come_twice() -> None:
    """Its answer was lost: nothing else of a long announcement has to be told again for that."""
    cluster = Cluster([])
    announce(cluster, page(0, last=False))
    announce(cluster, page(0, whole(), at=1, last=False))
    announce(cluster, page(0, at=2))
    announce(cluster, m.Announce(host(0, incarnation="1"), (whole(OTHER),)))  # of one task, in between
    assert cluster.core.follows(page(0, at=2))
    announce(cluster, page(0, at=2))
    assert cluster.core.cluster.announcing == {}
    assert {t for t, state in cluster.core.tasks.items() if "h0" in state.holders} == {TASK.id, OTHER.id}
    assert not cluster.core.follows(page(0, at=2, incarnation="2"))
    announce(cluster, page(0, last=False))
    assert not cluster.core.follows(page(0, at=2)), "it has begun anew"
    announce(cluster, page(0, at=1))
    assert cluster.core.cluster.announcing == {}


def test_a_holder_on_a_late_page_feeds_those_that_are_at_it() -> None:
    cluster = started(2)
    cluster.core.specs["s.0"].proved = True
    announce(cluster, page(5, last=False))
    announce(cluster, page(5, whole(), at=1))
    assert {
        n.host.id for number in (0, 1) for news in cluster.sent(m.TaskUpdate, number) for n in news.joined
    } >= {"h5"}


def test_nothing_is_leased_to_a_host_that_may_have_it_on_a_later_page() -> None:
    cluster = Cluster([host(1)])
    announce(cluster, page(0, last=False))
    submitted(cluster, 0)
    assert [d.lease for d in cluster.sent(m.Deliver, 0)] == [()]
    announce(cluster, page(0, whole(), at=1))
    assert cluster.report(0, claim=4).lease == ()
    assert cluster.core.tasks[TASK.id].leases.left == 0


def test_reports_and_leases_are_served_between_pages() -> None:
    core = Cluster([host(0)])
    submitted(core, 0)
    for number, payload in enumerate(pages_of(host(1), tasks_of(300))):
        message = m.decode(payload)
        assert isinstance(message, m.Announce)
        announce(core, message)
        assert len(core.report(0, claim=1, got=(number,), origin=((number, DIGESTS[number]),)).lease) <= 4
    assert core.report(0, claim=4).lease


# --- roots and digests ------------------------------------------------------------------------------


def test_roots_that_agree_are_the_record_and_digests_are_asked_of_one() -> None:
    cluster = Cluster([])
    for number in range(3):
        announce(cluster, page(number, whole()))
    assert asked(cluster) == [], "nobody needs them"
    cluster.do(cluster.core.announce(m.Announce(host(3)), cluster.now))
    submitted(cluster, 3)
    assert len(asked(cluster)) == 1
    assert verify(cluster, 3) == m.Verified()
    tell(cluster, asked(cluster)[0], DIGESTS)
    assert verify(cluster, 3) == m.Verified()
    assert cluster.core.tasks[TASK.id].record == dict(enumerate(DIGESTS))
    assert cluster.core.tasks[TASK.id].roots == {}
    assert len(asked(cluster)) == 1


def test_a_copy_that_is_not_what_the_root_says_waits_for_the_digests() -> None:
    cluster = Cluster([host(3)])
    announce(cluster, page(0, whole()))
    submitted(cluster, 3)
    assert verify(cluster, 3, b"x" * 32) == m.Verified(pending=True)
    tell(cluster, 0, DIGESTS)
    assert verify(cluster, 3, b"x" * 32) == m.Verified(ok=False, digests=b"".join(DIGESTS))


def test_roots_that_disagree_are_a_dispute_of_pieces() -> None:
    wrong = [*DIGESTS[:7], digest(b"wrong"), *DIGESTS[8:]]
    cluster = Cluster([])
    announce(cluster, page(0, whole()))
    announce(cluster, page(1, whole(root=root_digest(wrong))))
    announce(cluster, page(2, whole()))
    assert asked(cluster) == [0, 1]
    tell(cluster, 0, DIGESTS)
    tell(cluster, 1, wrong)
    task = cluster.core.tasks[TASK.id]
    assert 7 not in task.record
    assert {n.discard for number in range(3) for n in cluster.sent(m.TaskUpdate, number)} == {(7,)}
    assert len(cluster.sent(m.TaskUpdate)) == 3
    assert task.leases.free == 1 << 7
    assert asked(cluster) == [0, 1]


def test_a_root_that_contradicts_a_complete_record_is_looked_into() -> None:
    cluster = started(2)
    cluster.report(0, got=tuple(range(PIECES)), origin=tuple(enumerate(DIGESTS)))
    announce(cluster, page(5, whole()))
    assert asked(cluster) == []
    announce(cluster, page(6, whole(root=b"x" * 32)))
    assert asked(cluster) == [6]


def test_of_many_parts_as_few_are_asked_as_cover_what_the_record_lacks() -> None:
    deliveries = {n: started(4).sent(m.Deliver, n)[0] for n in range(4)}
    cluster = Cluster([])
    for number, pieces in enumerate([range(50), range(25, 50), range(40, 90), range(60, 90)]):
        announce(cluster, page(number, part(*pieces), deliveries=(deliveries[number],)))
    assert asked(cluster) == [0, 2]
    tell(cluster, 0, DIGESTS, bitset.of(range(50)))
    tell(cluster, 2, DIGESTS, bitset.of(range(40, 90)))
    assert len(cluster.core.tasks[TASK.id].record) == 90
    assert asked(cluster) == [0, 2]
    assert cluster.core.tasks[TASK.id].leases.free == bitset.of(range(90, 100))


def test_whoever_does_not_answer_is_not_waited_for() -> None:
    cluster = Cluster([host(3)])
    announce(cluster, page(0, whole()))
    announce(cluster, page(1, whole()))
    submitted(cluster, 3)
    (first,) = asked(cluster)
    cluster.now += ASK_TIMEOUT + 1
    cluster.do(cluster.core.tick(cluster.now))
    assert len(asked(cluster)) == 2
    cluster.do(cluster.core.probed(f"h{first}", "gone", cluster.now))
    assert f"h{first}" not in cluster.core.tasks[TASK.id].asked


def test_pieces_whose_digests_nobody_can_tell_are_read_again() -> None:
    cluster = Cluster([host(3)])
    announce(cluster, page(0, part(*range(10))))
    submitted(cluster, 3)
    assert asked(cluster) == [0]
    tell(cluster, 0, [bytes(32)] * PIECES, bitset.of(range(10)))
    assert asked(cluster) == [0], "not for ever"
    assert cluster.core.tasks[TASK.id].leases.left >= 10
    assert cluster.core.tasks[TASK.id].record == {}


def test_a_task_that_was_evicted_before_its_digests_were_told_is_not_held() -> None:
    cluster = Cluster([host(3)])
    announce(cluster, page(0, whole()))
    submitted(cluster, 3)
    cluster.do(cluster.core.digests(m.Digests("h0", TASK.id), cluster.now))
    assert cluster.core.where(TASK.source_id) == {}
    assert cluster.core.tasks[TASK.id].leases.left == PIECES - len(cluster.sent(m.Deliver, 3)[0].lease)


# --- real peers -------------------------------------------------------------------------------------


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    monkeypatch.setattr(registration, "JITTER", 0.01)
    monkeypatch.setattr(registration, "PAGE_TASKS", 2)
    made = Swarm(tmp_path / "swarm", 3)
    yield made
    made.close()


def forget(swarm: Swarm) -> None:
    with swarm.scheduler.changed:
        swarm.scheduler.core = SchedulerCore(swarm.settings, swarm.scheduler.core.sign)


def known(swarm: Swarm) -> bool:
    with swarm.scheduler.changed:
        tasks = swarm.scheduler.core.tasks.values()
        return len(tasks) == 5 and all(len(t.holders) == 3 for t in tasks)


def test_a_restarted_scheduler_knows_the_caches_again_and_nothing_is_read_twice(
    swarm: Swarm, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        swarm.distribute(f"{origin.url}?{number}", f"s{number}.0")
    sent: list[m.Message] = []
    call = swarm.scheduler.call

    def hears(message: m.Message) -> m.Message | None:
        sent.append(message)
        return call(message)

    monkeypatch.setattr(swarm.scheduler, "call", hears)
    forget(swarm)
    for peer in swarm.peers.values():
        peer.announce_at(0)
    until(lambda: known(swarm))
    pages = [message for message in sent if isinstance(message, m.Announce)]
    assert max(len(p.held) for p in pages) <= 2
    assert not any(h.digests or h.have for p in pages for h in p.held)
    served = origin.sent
    view = swarm.distribute(f"{origin.url}?3", "again.0")
    assert [r["state"] for r in view["nodes"].values()] == ["done"] * 3
    assert sum(r["bytes_cache"] for r in view["nodes"].values()) == 3 * len(CONTENT)
    assert origin.sent < served + 8192, "a look and a proof, and no more"
    until(lambda: any(isinstance(message, m.Digests) for message in sent))
    assert sum(isinstance(message, m.Digests) for message in sent) == 1


def test_of_two_live_peers_with_one_host_id_both_are_served(
    swarm: Swarm, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = swarm.peers["n0"]
    ended: list[bool] = []
    with monkeypatch.context() as cloned:
        cloned.setattr("dragonfly_ray.storage.store.host_identity", lambda *_: first.host.id)
        cloned.setattr(PeerNode, "announce", lambda _: None)
        clone = swarm.start("n3")
    swarm.scheduler.peers[first.host.id] = first
    clone.on_id_taken = lambda: ended.append(True)
    with pytest.raises(HostIdTakenError, match="its host id is already used by node n0"):
        clone.announce()
    assert ended == [True], "its process ends"
    clone.stop()
    again = swarm.start("n3")
    assert again.host.id != first.host.id
    view = swarm.distribute(origin.url)
    assert {node: r["state"] for node, r in view["nodes"].items()} == dict.fromkeys(
        ("n0", "n1", "n2", "n3"), "done"
    )


def test_a_store_that_moved_is_no_rival() -> None:
    cluster = Cluster([host(0)])
    elsewhere = m.Announce(Host("h0", "n9", incarnation="2"))
    assert cluster.core.rival(m.Announce(host(0))) is None
    assert cluster.core.rival(m.Announce(host(0, incarnation="2"))) is None
    assert cluster.core.rival(elsewhere) == host(0)
    cluster.do(cluster.core.probed("h0", "died", cluster.now))
    assert cluster.core.rival(elsewhere) is None


def test_a_peer_that_is_to_read_what_it_has_tells_the_digest(
    swarm: Swarm, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its announcement is heard or not: it was leased, not read, and leased again, for ever."""
    swarm.distribute(origin.url)
    monkeypatch.setattr(PeerNode, "announce_task", lambda *_: None)
    with swarm.scheduler.changed:
        swarm.scheduler.core.tasks.clear()
    view = swarm.distribute(origin.url, "again.0")
    assert [r["state"] for r in view["nodes"].values()] == ["done"] * 3
    assert sum(r["bytes_cache"] for r in view["nodes"].values()) == 3 * len(CONTENT)


def test_a_scheduler_that_restarts_in_the_middle_of_an_announcement_is_told_all(
    swarm: Swarm, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        swarm.distribute(f"{origin.url}?{number}", f"s{number}.0")
    call, once = swarm.scheduler.call, threading.Event()

    def hears(message: m.Message) -> m.Message | None:
        if isinstance(message, m.Announce) and message.page == 2 and not once.is_set():
            once.set()
            forget(swarm)
        return call(message)

    monkeypatch.setattr(swarm.scheduler, "call", hears)
    forget(swarm)
    for peer in swarm.peers.values():
        peer.announce_at(0)
    until(once.is_set)

    def told() -> bool:
        """The second restart, too, asks who is there."""
        for peer in swarm.peers.values():
            peer.announce_at(0)
        return known(swarm)

    until(told)
