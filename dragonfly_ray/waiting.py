"""Waiting for a distribution to end, whoever carries it out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol

from dragonfly_ray.distribution import Distribution, Progress
from dragonfly_ray.errors import DeadlineError

PROGRESS_INTERVAL = 0.2
LONGEST_STEP = 3600.0


class Running(Protocol):
    """A distribution under way: a `Submission`, or one of a manager."""

    id: str

    def wait(self, timeout: float | None = None) -> bool: ...

    def progress(self) -> Progress: ...

    def result(self, timeout: float | None = None) -> Distribution: ...

    def cancel(self, kind: str = ..., message: str = ...) -> None: ...

    def close(self) -> None: ...


def follow(
    start: Callable[[], Running],
    timeout: float | None,
    progress: Callable[[Progress], None] | None,
    *,
    on_failure: Literal["raise", "return"] = "raise",
) -> Distribution:
    """Starts it and waits for its end; whatever else ends the wait cancels it."""
    running = start()
    try:
        done = wait_for(running, timeout, progress)
    except BaseException:
        running.cancel()
        raise
    finally:
        running.close()
    if on_failure == "raise":
        done.raise_for_failures()
    return done


def wait_for(
    running: Running, timeout: float | None, progress: Callable[[Progress], None] | None
) -> Distribution:
    """Raises `DeadlineError` after `timeout` seconds; it is cancelled then. `progress`: about five times a second."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            text = f"distribution {running.id}: cancelled after {timeout:g} s"
            running.cancel("deadline", text)
            raise DeadlineError(text)
        step = PROGRESS_INTERVAL if progress else LONGEST_STEP
        ended = running.wait(step if left is None else min(step, left))
        if progress:
            progress(running.progress())
        if ended:
            return running.result(0)
