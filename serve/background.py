"""Work beside requests: a thread that does one thing again and again, and ends when it is told."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable

log = logging.getLogger(__name__)
STOP_TIMEOUT = 15.0
_begun: weakref.WeakSet[Loop] = weakref.WeakSet()


def dead() -> list[str]:
    """Names of loops of this process that nobody stopped, and that do not run any more."""
    return sorted(loop.name for loop in list(_begun) if not loop.alive)


class Loop:
    """Calls `work` every `seconds`, sooner after `wake`. What it raises is logged, and the next round comes.

    `work(stopping)`: whoever takes long looks at `stopping` now and then.
    """

    def __init__(self, name: str, seconds: float, work: Callable[[threading.Event], None]) -> None:
        self.name = name
        self._seconds = seconds
        self._work = work
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Loop({self.name}, every {self._seconds:g} s)"

    @property
    def alive(self) -> bool:
        """Whether it runs; also before it is started, and after it was told to end."""
        return self._thread is None or self._thread.is_alive() or self._stopping.is_set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        _begun.add(self)

    def wake(self) -> None:
        """The next round begins now, or when the one under way has ended."""
        self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)
            if self._thread.is_alive():
                log.error("%s did not stop within %g s", self.name, STOP_TIMEOUT)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            begun = time.monotonic()
            try:
                self._work(self._stopping)
            except Exception:
                # One bad round (database or cluster unavailable) must not be the last.
                log.exception("%s: a round failed", self.name)
            self._wake.wait(max(0.0, self._seconds - (time.monotonic() - begun)))
