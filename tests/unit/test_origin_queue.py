"""What one peer does with its leases, before it reads anything."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.peer.origin import LAST_WAIT, LEAST_OFFERED, LEAST_WAIT, OriginWorkers
from dragonfly_ray.peer.reporter import News
from dragonfly_ray.peer.task import TaskRun
from dragonfly_ray.scheduling.picker import Picker

PIECES = 200


@pytest.fixture
def run() -> Any:
    """As much of a task as leases have to do with."""
    return SimpleNamespace(
        lock=threading.RLock(),
        picker=Picker(PIECES),
        settings=Settings(),
        task=SimpleNamespace(ranges=True, entries=1, pieces=PIECES),
        provenance={},
        store=None,
        described=lambda pieces: [],
        reporter=SimpleNamespace(news=News(), kick=lambda: None),
    )


@pytest.fixture
def origin(run: Any) -> OriginWorkers:
    return OriginWorkers(cast("TaskRun", run), True, 0.0, connections=2)


def test_what_waits_for_long_is_given_back_where_others_are_quick(
    run: Any, origin: OriginWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.answered(m.ReportReply(lease=(1, 2, 3), usual=0.1))
    assert run.reporter.news.released == []
    later = time.monotonic() + LEAST_WAIT + 0.1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    origin.answered(m.ReportReply(lease=(4,), usual=1.0))
    assert run.reporter.news.released == [], "others take as long"
    origin.answered(m.ReportReply(usual=0.1))
    assert run.reporter.news.released == [1, 2, 3]
    run.picker.joined("parent", 0b1110)
    assert run.picker.offered() == 3, "anybody may give them"


def test_at_the_end_nothing_waits_behind_what_is_being_read(
    run: Any, origin: OriginWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.answered(m.ReportReply(lease=(1, 2), left=3))
    later = time.monotonic() + LAST_WAIT + 0.01
    monkeypatch.setattr(time, "monotonic", lambda: later)
    origin.answered(m.ReportReply(left=1))
    assert run.reporter.news.released == []
    origin.answered(m.ReportReply(left=0))
    assert run.reporter.news.released == [1, 2]


@pytest.mark.parametrize(("left", "told"), [(0, True), (3, True), (PIECES, False)])
def test_near_the_end_whoever_is_idle_says_so_at_once(
    run: Any, origin: OriginWorkers, monkeypatch: pytest.MonkeyPatch, left: int, told: bool
) -> None:
    origin.answered(m.ReportReply(lease=(1,), left=left))
    assert origin._take(0) == range(1, 2)
    kicked, waiting = threading.Event(), threading.Event()
    run.reporter.kick = kicked.set
    wait = origin._ready.wait

    def seen(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(timeout)

    monkeypatch.setattr(origin._ready, "wait", seen)
    worker = threading.Thread(target=origin._take, args=(0,), daemon=True)
    worker.start()
    assert waiting.wait(10)
    said = kicked.is_set()
    origin.stop()
    worker.join(10)
    assert said == told


def test_one_connection_is_enough_while_neighbours_offer_plenty(run: Any, origin: OriginWorkers) -> None:
    alone = origin.appetite()
    run.picker.joined("parent", (1 << LEAST_OFFERED) - 1)
    assert origin.appetite() == alone
    run.picker.joined("parent", (1 << 2 * LEAST_OFFERED) - 1)
    assert 0 < origin.appetite() < alone
    for _ in range(2 * LEAST_OFFERED):
        run.picker.pick("parent", 1, 0.0)
    assert origin.appetite() == alone, "all of it is on its way"
