"""A token bucket for bytes, shared by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.1
LEAST_BURST = 256 * 1024


class RateLimiter:
    """`rate`: bytes a second; None: no limit."""

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock, self._sleep = clock, sleep
        self._burst = max(LEAST_BURST, (rate or 0) * BURST_SECONDS)
        self._level = self._burst
        self._at = clock()
        self._lock = threading.Lock()

    def wait(self, nbytes: int) -> float:
        """Takes `nbytes`; seconds to wait before sending them."""
        if self.rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._level = min(self._burst, self._level + (now - self._at) * self.rate)
            self._at = now
            self._level -= nbytes
            return max(0.0, -self._level / self.rate)

    def take(self, nbytes: int) -> None:
        """Takes `nbytes`, and blocks until they may go."""
        pause = self.wait(nbytes)
        if pause:
            self._sleep(pause)
