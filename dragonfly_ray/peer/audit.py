"""Reads pieces at the origin once more, which another host has read already, and tells their digests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.model import digest
from dragonfly_ray.peer.buffers import Lender, NotLentError
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.origin_workers import OriginWorkers

log = logging.getLogger(__name__)


class _Stopped(Exception):
    pass


class AuditReader:
    """One thread, while there is something to read; in which order, and when not, the engine says.

    `bytes`: read so; they are neither stored nor passed on.
    """

    def __init__(self, engine: Engine, origin: OriginWorkers, idle: Callable[[], bool]) -> None:
        """`idle`: whether nobody waits for the task any more."""
        self._engine = engine
        self._origin = origin
        self._idle = idle
        self.bytes = 0

    def take(self, pieces: Iterable[int]) -> None:
        engine = self._engine
        with engine.lock:
            begins = not engine.stopping.is_set() and engine.state.to_audit(tuple(pieces))
        if begins:
            engine.spawn("audit", self._work)

    def _work(self) -> None:
        engine = self._engine
        while True:
            with engine.lock:
                index, effects = engine.state.next_audit(time.monotonic())
            engine.carry_out(effects)
            if index is None:
                return
            engine.happened(engine.state.audited, index, self._read(index))

    def _read(self, index: int) -> bytes | None:
        """The digest of what the origin has; None where it does not answer."""
        engine, origin = self._engine, self._origin

        def progress(count: int) -> None:
            self.bytes += count
            if self._idle():
                raise _Stopped
            engine.context.received("audit", count)

        with Lender(engine.context.pool, ("audit", engine.task.id), self._idle) as lender:
            try:
                reader = origin.reader()
                lender.reserve(reader.buffers(index, index + 1))
                for _, view in reader.read(
                    index, index + 1, lambda i: lender.take(i, engine.table[i].length), progress
                ):
                    return digest(view)
            except (_Stopped, NotLentError):
                pass
            except DragonflyError as error:
                log.info("task %.12s: piece %d not read again: %s", engine.task.id, index, error)
            except Exception:
                log.exception("task %.12s: piece %d not read again", engine.task.id, index)
        return None
