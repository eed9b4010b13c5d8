"""The digest of the whole content, computed along the contiguous prefix while bytes arrive."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from dragonfly_ray.checksums import new_hash, parse_digest
from dragonfly_ray.errors import DragonflyError, IntegrityError

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

log = logging.getLogger(__name__)


class PrefixHash:
    """Follows a download. `check` waits for the rest and compares."""

    def __init__(self, run: TaskRun, wanted: str) -> None:
        self._run = run
        self._algorithm, _ = parse_digest(wanted)
        self._hash = new_hash(self._algorithm)
        self._next = 0
        self._more = threading.Event()
        self._done = threading.Event()
        self._result = ""
        self._failure: DragonflyError | None = None
        self._started = False

    def advance(self) -> None:
        """A piece arrived."""
        self._more.set()

    def run(self) -> None:
        """Until all is hashed, or the task ends."""
        self._started = True
        try:
            self._follow()
        except DragonflyError as error:
            self._failure = error
        except Exception as error:
            log.exception("task %.12s: hashing ended unexpectedly", self._run.task.id)
            self._failure = DragonflyError(
                f"{self._run.task.url}: its digest was not computed ({type(error).__name__}); see the peer's log"
            )
        finally:
            self._done.set()

    def _follow(self) -> None:
        store = self._run.store
        assert store is not None
        count = self._run.task.pieces
        self._more.set()
        while self._next < count and not self._over():
            self._more.wait(1.0)
            self._more.clear()
            while self._next < count and store.has(self._next):
                self._hash.update(store.read(self._next))
                self._next += 1
        self._result = self._hash.hexdigest()

    def _over(self) -> bool:
        """What is missing still will not come."""
        return self._run.stopping.is_set() or self._run.error is not None

    def check(self, wanted: str) -> None:
        """Raises `IntegrityError` if the content is not what the caller expects. All of it must be here."""
        algorithm, value = parse_digest(wanted)
        if not self._started:
            found = self._whole(algorithm)
        else:
            self._more.set()
            self._done.wait()
            if failure := self._failure or self._run.error:
                raise failure
            found = self._result if algorithm == self._algorithm else self._whole(algorithm)
            if found != value:
                found = self._whole(algorithm)  # a piece may have been replaced after it was hashed
        if found != value:
            raise IntegrityError(
                f"{self._run.task.url}: {algorithm} is {found[:16]}…, expected {value[:16]}…; nothing was written"
            )

    def _whole(self, algorithm: str) -> str:
        store = self._run.store
        assert store is not None
        hasher = new_hash(algorithm)
        for index in range(self._run.task.pieces):
            hasher.update(store.read(index))
        return hasher.hexdigest()
