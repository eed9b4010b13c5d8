"""Messages that are lost, doubled or too early change nothing in the end."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.peer.download import TaskDownload
from dragonfly_ray.scheduling.redelivery import CONFIRM_AFTER
from dragonfly_ray.scheduling.scheduler import Compare
from dragonfly_ray.storage.task_store import TaskStore
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.one_scheduler import Cluster, host, started
from tests.waiting import HANG, until

CONTENT = os.urandom(8 << 20)


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., Swarm]]:
    made: list[Swarm] = []

    def build(count: int) -> Swarm:
        made.append(Swarm(tmp_path / f"swarm{len(made)}", count))
        return made[-1]

    yield build
    for each in made:
        each.close()


def assert_all_right(view: dict[str, Any], nodes: int) -> None:
    assert [record["state"] for record in view["nodes"].values()] == ["done"] * nodes, view
    assert all(Path(record["path"]).read_bytes() == CONTENT for record in view["nodes"].values())


def test_a_swarm_whose_messages_are_lost_and_doubled_ends_well(
    build: Callable[..., Swarm], origin: ScriptedOrigin
) -> None:
    swarm = build(4)
    chance, lost = random.Random(7), []

    def loses(host_id: str, message: m.Message) -> bool:
        if chance.random() < 0.5:
            lost.append(message)
            return True
        return False

    swarm.scheduler.loses = loses
    for number in range(3):
        assert_all_right(swarm.distribute(origin.url, f"s{number}.0"), 4)
    assert any(isinstance(message, m.Deliver) for message in lost)


def test_every_delivery_may_come_twice(build: Callable[..., Swarm], origin: ScriptedOrigin) -> None:
    swarm = build(3)
    seen: set[tuple[str, bytes]] = set()

    def loses(host_id: str, message: m.Message) -> bool:
        """The first acknowledgement of each, never the message itself."""
        key = (host_id, m.encode(message))
        first = key not in seen
        seen.add(key)
        if first:
            swarm.scheduler.peers[host_id].handle(m.decode(key[1]))
        return False

    swarm.scheduler.loses = loses
    assert_all_right(swarm.distribute(origin.url), 3)


def test_a_delivery_that_a_peer_has_forgotten_comes_again(
    build: Callable[..., Swarm], origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragonfly_ray.scheduling.redelivery.CONFIRM_AFTER", 0.5)
    swarm = build(3)
    victim = swarm.peers["n1"]
    forgotten: list[m.Message] = []
    handle = victim.handle

    def forgets(message: m.Message, small: bytes | None = None) -> None:
        if isinstance(message, m.Deliver) and not forgotten:
            forgotten.append(message)
            return
        handle(message, small)

    monkeypatch.setattr(victim, "handle", forgets)
    assert_all_right(swarm.distribute(origin.url), 3)
    assert forgotten


def opening(
    monkeypatch: pytest.MonkeyPatch,
    swarm: Swarm,
    origin: ScriptedOrigin,
    early: Callable[[TaskDownload], None],
) -> dict[str, Any]:
    """A distribution to n0, whose task is told something while it opens."""
    run_task, told = TaskDownload._fetch, threading.Event()

    def opens(run: TaskDownload, store: TaskStore) -> None:
        if run.context.host_id == swarm.peers["n0"].host.id and not told.is_set():
            told.set()
            early(run)
        run_task(run, store)

    monkeypatch.setattr(TaskDownload, "_fetch", opens)
    view = swarm.distribute(origin.url, nodes=["n0"])
    assert told.is_set()
    return view


def test_what_comes_while_a_task_opens_is_not_lost(
    build: Callable[..., Swarm], origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = build(1)
    runs: list[TaskDownload] = []
    before: list[float] = []

    def early(run: TaskDownload) -> None:
        runs.append(run)
        first = run._first

        run._first = msgspec.structs.replace(first, may_claim=False, lease=())
        before.append(time.monotonic())
        run.on_news(m.TaskUpdate(run.task.id, not_before=0.7, may_claim=True))
        assert run.add(msgspec.structs.replace(first, lease=first.lease))

    assert_all_right(opening(monkeypatch, swarm, origin, early), 1)
    assert runs[0].origin.leases._may_claim, "the permission"
    assert runs[0].origin.leases._not_before >= before[0] + 0.7, "the pause that the origin asked for"


def test_a_host_that_names_too_little_is_asked_what_it_carries() -> None:
    cluster = started(2)
    cluster.do(cluster.core.tick(cluster.now))
    for _ in range(8):
        cluster.now += 1.0
        cluster.report(0, carried=(("s.0", ""),))
        cluster.report(1)
        cluster.do(cluster.core.tick(cluster.now))
    assert {a.host for a in cluster.said if isinstance(a, Compare)} == {"h1"}
    assert len([a for a in cluster.said if isinstance(a, Compare)]) == int(8 / CONFIRM_AFTER)


def test_what_a_host_should_carry_is_delivered_again_and_what_it_should_not_is_cancelled() -> None:
    cluster = started(2)
    cluster.submit([0], "other.0")
    cluster.resolved("other.0")
    cluster.end(0, "other.0")
    cluster.said.clear()
    carried = (("other.0", ""), ("unknown.0", ""))
    cluster.do(cluster.core.compare(m.Carrying("h0", "1", carried), cluster.now))
    assert [d.spec.id for d in cluster.sent(m.Deliver, 0)] == ["s.0"]
    assert [c.spec_id for c in cluster.sent(m.Cancel, 0)] == ["other.0"]
    cluster.said.clear()
    cluster.do(cluster.core.compare(m.Carrying("h0", "1", (("s.0", ""),)), cluster.now))
    cluster.do(cluster.core.compare(m.Carrying("h0", "an earlier one", ()), cluster.now))
    cluster.end(1)
    cluster.do(cluster.core.compare(m.Carrying("h1", "1", ()), cluster.now))
    assert cluster.said == []


def test_what_was_not_delivered_yet_is_not_delivered_again() -> None:
    """A node whose delivery waits for a proof that the origin lets the caller read it."""
    cluster = started(2)
    cluster.core.specs["s.0"].move("n0", "waiting")
    cluster.said.clear()
    cluster.do(cluster.core.compare(m.Carrying("h0", "1", ()), cluster.now))
    assert cluster.said == []


def test_a_seed_that_lost_its_delivery_gets_it_again() -> None:
    cluster = Cluster([host(0, seed=True), host(1)], policy="seeds")
    cluster.submit([1])
    cluster.resolved()
    cluster.said.clear()
    cluster.do(cluster.core.compare(m.Carrying("h0", "1"), cluster.now))
    assert [d.helper for d in cluster.sent(m.Deliver, 0)] == [True]


class Away:
    """A scheduler that cannot be reached with messages of some kind, for the first `times`."""

    def __init__(self, swarm: Swarm, kind: type[m.Message], times: int) -> None:
        self._call, self._kind, self.left = swarm.scheduler.call, kind, times
        self.heard: list[m.Message] = []

    def __call__(self, message: m.Message) -> m.Message | None:
        if isinstance(message, self._kind):
            if self.left:
                self.left -= 1
                raise ClusterError("away")
            self.heard.append(message)
        return self._call(message)


def test_an_eviction_that_could_not_be_told_is_told_later(
    build: Callable[..., Swarm], origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = build(2)
    swarm.distribute(origin.url)
    away = Away(swarm, m.Evicted, 2)
    monkeypatch.setattr(swarm.scheduler, "call", away)
    peer = swarm.peers["n0"]
    (task,) = peer.store.tasks()
    peer.evict(task.task.id)
    assert swarm.scheduler.core.where(task.task.source_id) == {"n0": 1.0, "n1": 1.0}
    for _ in range(2):
        peer.measure()
    assert swarm.scheduler.core.where(task.task.source_id) == {"n1": 1.0}
    peer.measure()
    assert len(away.heard) == 1
    assert peer._dropped == {}


def test_who_evicts_as_soon_as_the_outcome_is_known_does_not_meet_the_run_that_made_it(
    build: Callable[..., Swarm], origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = build(1)
    peer = swarm.peers["n0"]
    told, go_on, call = threading.Event(), threading.Event(), swarm.scheduler.call

    def answers(message: m.Message) -> m.Message | None:
        answer = call(message)
        if isinstance(message, m.Ended):
            told.set()
            assert go_on.wait(HANG)
        return answer

    monkeypatch.setattr(swarm.scheduler, "call", answers)
    swarm.distribute(origin.url)
    assert told.wait(HANG)
    (task,) = peer.store.tasks()
    with ThreadPoolExecutor(1) as threads:
        freed = threads.submit(peer.evict, task.task.id)
        with contextlib.suppress(TimeoutError):
            freed.result(timeout=0.2)  # it is at it by now
        go_on.set()
        assert freed.result(timeout=HANG) == len(CONTENT)


def test_an_origin_that_asks_for_patience_while_the_scheduler_is_away_gets_it(
    build: Callable[..., Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = build(2)
    away = Away(swarm, m.Throttled, 1)
    monkeypatch.setattr(swarm.scheduler, "call", away)
    busy = Behaviour(CONTENT, headers={"Retry-After": "2"}, before=lambda number: 429 if number == 6 else 0)
    with ScriptedOrigin(busy) as origin:
        assert_all_right(swarm.distribute(origin.url), 2)
    assert away.left == 0, "it was not asked for patience"
    (told,) = away.heard
    assert isinstance(told, m.Throttled)
    assert 0.0 < told.retry_after < 2.0, "what is left of it"


def test_a_peer_names_what_it_carries_until_its_outcome_is_heard(
    build: Callable[..., Swarm], origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = build(1)
    peer = swarm.peers["n0"]
    open_, call = threading.Event(), swarm.scheduler.call

    def hears(message: m.Message) -> m.Message | None:
        if isinstance(message, m.Ended):
            assert open_.wait(30)
        return call(message)

    monkeypatch.setattr(swarm.scheduler, "call", hears)
    swarm.submit(origin.url, run="r")
    until(lambda: len(peer.outcomes))
    assert peer.carrying().carried == (("s.0", "r"),)
    open_.set()
    swarm.wait()
    until(lambda: not peer.carrying().carried)
