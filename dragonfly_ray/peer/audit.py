"""Reads pieces at the origin once more, which another host has read already, and tells their digests."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.model import digest
from dragonfly_ray.peer.buffers import Lender, NotLentError

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

log = logging.getLogger(__name__)


class _Stopped(Exception):
    pass


class AuditReader:
    """One thread, while there is something to read. What cannot be read is given back at once.

    `bytes`: read so; they are neither stored nor passed on.
    """

    def __init__(self, run: TaskRun) -> None:
        self._run = run
        self._queue: deque[int] = deque()
        self._working = False
        self.bytes = 0

    def take(self, pieces: Iterable[int]) -> None:
        run = self._run
        with run.lock:
            self._queue.extend(pieces)
            if self._working or not self._queue or run.stopping.is_set():
                return
            self._working = True
        run.spawn("audit", self._work)

    def _work(self) -> None:
        run = self._run
        while True:
            with run.lock:
                if not self._queue:
                    self._working = False
                    return
                index = self._queue.popleft()
            found = self._read(index)
            with run.lock:
                run.state.audited(index, found)
            run.reporter.kick()

    def _read(self, index: int) -> bytes | None:
        """The digest of what the origin has; None where it does not answer, or wants patience."""
        run = self._run
        origin = run.origin
        if origin is None or origin.waits:
            return None

        def progress(count: int) -> None:
            self.bytes += count
            if run.idle():
                raise _Stopped
            run.context.received("audit", count)

        with Lender(run.context.pool, ("audit", run.task.id), run.idle) as lender:
            try:
                reader = origin.reader()
                lender.reserve(reader.buffers(index, index + 1))
                for _, view in reader.read(
                    index, index + 1, lambda i: lender.take(i, run.table()[i].length), progress
                ):
                    return digest(view)
            except (_Stopped, NotLentError):
                pass
            except DragonflyError as error:
                log.info("task %.12s: piece %d not read again: %s", run.task.id, index, error)
            except Exception:
                log.exception("task %.12s: piece %d not read again", run.task.id, index)
        return None
