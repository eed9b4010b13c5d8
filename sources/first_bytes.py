"""Requests whose answers have not begun yet, and how long answers take to begin."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SMOOTHING = 0.3


class Wait:
    """For an answer, or for the next of several."""

    __slots__ = ("_of", "since")

    def __init__(self, of: FirstBytes) -> None:
        self._of = of
        self.since = time.monotonic()

    def began(self) -> None:
        """Its first bytes are here; the wait for the next one, if there is one, begins now."""
        self._of._took(time.monotonic() - self.since)
        self.again()

    def again(self) -> None:
        """Others of several answers go on beginning."""
        self.since = time.monotonic()


class FirstBytes:
    """Of one origin. Thread-safe.

    `usual`: seconds that an answer takes to begin, smoothed; 0: unknown.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: set[Wait] = set()
        self.usual = 0.0

    @contextmanager
    def wait(self) -> Iterator[Wait]:
        """While somebody waits for an answer to begin."""
        wait = Wait(self)
        with self._lock:
            self._waits.add(wait)
        try:
            yield wait
        finally:
            with self._lock:
                self._waits.discard(wait)

    def longest(self) -> float:
        """Seconds that somebody has waited so far; 0: nobody waits."""
        with self._lock:
            since = min((wait.since for wait in self._waits), default=None)
        return 0.0 if since is None else max(1e-6, time.monotonic() - since)

    def _took(self, seconds: float) -> None:
        with self._lock:
            share = SMOOTHING if self.usual else 1.0
            self.usual += share * (seconds - self.usual)
