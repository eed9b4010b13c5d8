"""A token bucket for bytes, shared by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.1
LEAST_BURST = 256 * 1024
LONGEST_NAP = 0.5
"""Seconds after which whoever waits looks whether the rate is still the same."""


class RateLimiter:
    """`rate`: bytes a second; None: no limit."""

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rate: int | None = None
        self._clock, self._sleep = clock, sleep
        self._burst = self._level = 0.0
        self._at = clock()
        self._lock = threading.Lock()
        self.change(rate)

    def change(self, rate: int | None) -> None:
        """Another rate from now on, for those who wait already as well."""
        with self._lock:
            if rate != self.rate:
                self.rate = rate
                self._burst = self._level = max(LEAST_BURST, (rate or 0) * BURST_SECONDS)

    def wait(self, nbytes: int) -> float:
        """Takes `nbytes`; seconds to wait before sending them."""
        rate = self.rate
        if rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._level = min(self._burst, self._level + (now - self._at) * rate)
            self._at = now
            self._level -= nbytes
            return max(0.0, -self._level / rate)

    def take(self, nbytes: int) -> None:
        """Takes `nbytes`, and blocks until they may go."""
        rate, pause = self.rate, self.wait(nbytes)
        while pause > 0 and self.rate == rate:
            step = min(pause, LONGEST_NAP)
            self._sleep(step)
            pause -= step
