"""What the origin offers of whole files, compared along the contiguous prefix while pieces arrive."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from dragonfly_ray.checksums import EntryChecksums, Mismatch
from dragonfly_ray.errors import DragonflyError, IntegrityError

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

log = logging.getLogger(__name__)


class OriginChecksums:
    """Follows a download. What does not match was read so from the origin: no neighbour is to blame."""

    def __init__(self, run: TaskRun) -> None:
        self._run = run
        self._next = 0
        self._more = threading.Event()
        self._done = threading.Event()
        self._failure: DragonflyError | None = None
        self._mismatch: Mismatch | None = None

    def advance(self) -> None:
        """A piece arrived."""
        self._more.set()

    def run(self) -> None:
        """Until all is compared, or the task ends."""
        try:
            self._follow()
        except DragonflyError as error:
            self._failure = error
        except Exception as error:
            log.exception("task %.12s: comparing checksums ended unexpectedly", self._run.task.id)
            self._failure = DragonflyError(
                f"{self._run.task.url}: its checksum was not computed ({type(error).__name__}); see the peer's log"
            )
        finally:
            self._done.set()

    def _follow(self) -> None:
        store = self._run.store
        assert store is not None
        following = EntryChecksums(store.manifest, store.table)
        count = self._run.task.pieces
        self._more.set()
        while self._next < count and not self._over():
            self._more.wait(1.0)
            self._more.clear()
            while self._next < count and store.has(self._next) and not self._over():
                following.feed(self._next, store.read(self._next))
                self._next += 1
        self._mismatch = following.mismatch

    def _over(self) -> bool:
        """What is missing still will not come."""
        return self._run.stopping.is_set() or self._run.error is not None

    def check(self) -> None:
        """Raises `IntegrityError` where a file is not what the origin offers. All of it must be here."""
        self._more.set()
        self._done.wait()
        if failure := self._failure or self._run.error:
            raise failure
        if self._next < self._run.task.pieces:
            raise DragonflyError(f"{self._run.task.url}: ended before its checksums were compared")
        if self._mismatch is None:
            return
        # A piece may have been replaced after it was compared: what counts is what is here now.
        mismatch = self._again()
        if mismatch is not None:
            raise IntegrityError(
                f"{self._run.task.url} {mismatch}; nothing was written. Start again; if the origin's own checksum is "
                "wrong, set origin.checksums to false"
            )

    def _again(self) -> Mismatch | None:
        store = self._run.store
        assert store is not None
        following = EntryChecksums(store.manifest, store.table)
        for index in range(self._run.task.pieces):
            following.feed(index, store.read(index))
        return following.mismatch
