"""What the cluster last said, for everybody who asks: one call, however many ask, and no long waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from dragonfly_ray.errors import ClusterError, DragonflyError, NotRunningError

T = TypeVar("T")
log = logging.getLogger(__name__)
FRESH = 1.0
"""Seconds for which an answer, or that there was none, counts."""
PATIENCE = 2.0
"""Seconds that whoever asks waits; the call itself may take longer."""


class Cached(Generic[T]):
    """Safe from any thread. `ask` runs in a thread of its own, never twice at once."""

    def __init__(
        self, name: str, ask: Callable[[], T], *, fresh: float = FRESH, patience: float = PATIENCE
    ) -> None:
        self._name = name
        self._ask = ask
        self._fresh = fresh
        self._patience = patience
        self._changed = threading.Condition()
        self._asked_at = 0.0
        """When the call under way was begun; 0: there is none."""
        self._known: tuple[float, T] | None = None
        """When it was asked, and the answer."""
        self._failed: tuple[float, DragonflyError] | None = None
        self._valid_from = 0.0

    def __repr__(self) -> str:
        return f"Cached({self._name})"

    def get(self, fresh: float | None = None) -> T:
        """An answer that was asked for at most `fresh` seconds ago.

        Raises `ClusterError` if the cluster failed to answer, or does not within some seconds.
        """
        oldest = time.monotonic() - (self._fresh if fresh is None else fresh)
        deadline = time.monotonic() + self._patience
        with self._changed:
            while True:
                since = max(oldest, self._valid_from)
                if self._known and self._known[0] >= since:
                    return self._known[1]
                if self._failed and self._failed[0] >= since:
                    raise self._failed[1]
                if not self._asked_at:
                    self._begin()
                # One that hangs already longer than that is not waited for again.
                left = min(deadline, self._asked_at + self._patience) - time.monotonic()
                if left <= 0:
                    raise NotRunningError(f"{self._name}: no response from the cluster")
                self._changed.wait(left)

    def forget(self) -> None:
        """The next to ask hears what is true after now."""
        with self._changed:
            self._valid_from = time.monotonic()

    def _begin(self) -> None:
        self._asked_at = time.monotonic()
        threading.Thread(target=self._run, args=(self._asked_at,), name=self._name, daemon=True).start()

    def _run(self, asked_at: float) -> None:
        known: T | None = None
        error: DragonflyError | None = None
        try:
            known = self._ask()
        except DragonflyError as raised:
            error = raised
        except Exception as raised:
            # Whoever asked must hear of it; a thread of its own would swallow it.
            log.exception("%s: request to the cluster failed", self._name)
            error = ClusterError(f"{self._name}: {type(raised).__name__}")
        with self._changed:
            self._asked_at = 0.0
            if error is None:
                assert known is not None
                self._known, self._failed = (asked_at, known), None
            else:
                self._failed = (asked_at, error)
            self._changed.notify_all()
