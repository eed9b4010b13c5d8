"""Patience with origins that fail, and with helpers that say nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from dragonfly_ray.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S
from dragonfly_ray.errors import SourceBusyError, SourceError, SourceNotFoundError, SourceUnreachableError
from dragonfly_ray.peer import distributed_stat
from dragonfly_ray.peer.distributed_stat import SharedWork
from dragonfly_ray.scheduling.origin_retry import Retry as LookPatience
from dragonfly_ray.sources import Retry
from tests.waiting import HANG


def failing(times: int, error: SourceError) -> tuple[list[int], object]:
    asked: list[int] = []

    def request() -> str:
        asked.append(1)
        if len(asked) <= times:
            raise error
        return "there"

    return asked, request


def test_until_something_has_answered_another_host_may_fare_better() -> None:
    patience = Retry(60.0)
    asked, request = failing(1, SourceUnreachableError("502"))
    with pytest.raises(SourceUnreachableError):
        patience.ask(request)  # type: ignore[arg-type]
    assert patience.ask(request) == "there"  # type: ignore[arg-type]
    asked, request = failing(1, SourceUnreachableError("502"))
    assert patience.ask(request) == "there"  # type: ignore[arg-type]
    assert len(asked) == 2


def test_whoever_helps_waits_where_the_origin_asks_for_it() -> None:
    told: list[tuple[str, float]] = []
    patience = Retry(60.0, lambda *what: told.append(what), helps=True)
    _, request = failing(1, SourceBusyError("503", retry_after=0.3))
    assert patience.ask(request) == "there"  # type: ignore[arg-type]
    assert told == [("503", 0.3), ("", 0.0)]


@pytest.mark.parametrize(
    "error", [SourceNotFoundError("404"), SourceUnreachableError("no such host", final=True)]
)
def test_what_waiting_does_not_cure_is_not_waited_for(error: SourceError) -> None:
    patience = Retry(60.0)
    patience.answered()
    asked, request = failing(1, error)
    with pytest.raises(type(error)):
        patience.ask(request)  # type: ignore[arg-type]
    assert len(asked) == 1


def test_it_says_for_how_long_it_has_waited() -> None:
    patience = Retry(0.3)
    patience.answered()
    asked, request = failing(1000, SourceUnreachableError("502"))
    with pytest.raises(SourceUnreachableError) as error:
        patience.ask(request)  # type: ignore[arg-type]
    assert error.value.details["failing"] > 0.3
    assert len(asked) > 1


def test_an_end_ends_the_wait() -> None:
    waits, patience = threading.Event(), Retry(3600.0, lambda *what: waits.set())
    patience.answered()
    waits.clear()
    _, request = failing(1000, SourceBusyError("503", retry_after=3600.0))
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(SourceBusyError):
            patience.ask(request)  # type: ignore[arg-type]
        ended.set()

    threading.Thread(target=ask, daemon=True).start()
    assert waits.wait(20)
    patience.end()
    assert ended.wait(20)


def test_looks_are_repeated_after_growing_pauses_or_when_the_origin_said() -> None:
    patience, now, pauses = LookPatience(), 100.0, []
    while patience.failed("502", now, 30.0):
        assert not patience.due(now)
        pauses.append(patience.again - now)
        now = patience.again
    assert pauses[0] == FIRST_PAUSE_S
    assert pauses[-1] == LONGEST_PAUSE_S
    assert 30.0 < now - 100.0 <= 30.0 + LONGEST_PAUSE_S
    asked = LookPatience()
    assert asked.failed("503", 100.0, 30.0, retry_after=90.0)
    assert asked.again == 190.0
    assert not asked.failed("503", 190.0, 30.0, retry_after=90.0)


def test_what_a_helper_does_not_bring_is_done_by_whoever_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be cut off; what it brings later counts for nothing."""
    monkeypatch.setattr(distributed_stat, "LATE_S", 0.1)
    asked, released, late = threading.Event(), threading.Event(), threading.Event()

    def look(chunk: Sequence[int]) -> list[int]:
        assert asked.wait(HANG), "the helper has its part before all is done"
        return [2 * each for each in chunk]

    def ask(helper: str, chunk: Sequence[int]) -> list[int]:
        asked.set()
        released.wait(30)
        late.set()
        return [-1 for _ in chunk]

    work = SharedWork[int, int](["h1"], look, ask)
    try:
        assert work(range(100)) == [2 * each for each in range(100)]
    finally:
        released.set()
    assert late.wait(20)
