"""What a submission is to its caller, whoever tells how far it is."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

from dragonfly_ray.distribution import Distribution, Progress
from dragonfly_ray.errors import DeadlineError


class Watched(ABC):
    """A distribution under way, `id`; awaitable. What threads that watch it find out, they set under `_changed`."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._changed = threading.Condition()
        self._error: Exception | None = None
        """Why nobody knows what becomes of it."""
        self._stopped = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}: {self.progress()!r})"

    def __await__(self) -> Generator[Any, None, Distribution]:
        return asyncio.to_thread(self.result).__await__()

    @property
    def done(self) -> bool:
        with self._changed:
            return self._over()

    @abstractmethod
    def progress(self) -> Progress:
        """How far it is; never blocks."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it ended within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(self._over, timeout)

    def result(self, timeout: float | None = None) -> Distribution:
        """Waits for the end on every node.

        Raises `DeadlineError` after `timeout` seconds; it goes on then. `CancelledByUserError` if it was
        cancelled, by whomever, before every node had everything; its `distribution` has the outcomes. Nodes
        that failed by themselves raise nothing here: see `Distribution.raise_for_failures`.
        """
        self.wait(timeout)
        with self._changed:
            if not self._over():
                raise DeadlineError(
                    f"distribution {self.id} still running after {timeout:g} s; it was not cancelled"
                )
            if self._error is not None:
                raise self._error
            return self._result()

    def close(self) -> None:
        """Stops watching."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @abstractmethod
    def _over(self) -> bool:
        """Under the lock, as `_result`."""

    @abstractmethod
    def _result(self) -> Distribution:
        """It has ended. Raises `CancelledByUserError`."""
