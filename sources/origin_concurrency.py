"""How much of an origin one peer takes at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """Places for connections in use; their number may change while they are used.

    Fewer than are in use: nobody is thrown out, and nobody comes in until enough have left.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._free = threading.Condition()

    def resize(self, most: int) -> bool:
        """Whether there are fewer now."""
        with self._free:
            fewer, self._most = most < self._most, most
            self._free.notify_all()
            return fewer

    @contextmanager
    def several(self, most: int) -> Iterator[int]:
        """Up to `most` places at once, one at least: how many."""
        with self._free:
            while self._used >= self._most:
                self._free.wait()
            taken = min(most, self._most - self._used)
            self._used += taken
        try:
            yield taken
        finally:
            with self._free:
                self._used -= taken
                self._free.notify_all()

    def __enter__(self) -> None:
        with self._free:
            while self._used >= self._most:
                self._free.wait()
            self._used += 1

    def __exit__(self, *error: object) -> None:
        with self._free:
            self._used -= 1
            self._free.notify_all()


class OriginConcurrency:
    """At most `rate` requests a second, one after the other; None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Until the next one may go."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + 1 / self._rate
        time.sleep(at - now)
