"""The workers that fetch leased pieces from the origin."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.errors import (
    DragonflyError,
    IntegrityError,
    SourceArchivedError,
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnsupportedError,
    StorageError,
)
from dragonfly_ray.peer.buffers import Lender, NotLentError
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits, stream_start
from dragonfly_ray.scheduling.download.lease_queue import LeaseQueue
from dragonfly_ray.sources import Reader, open_reader
from dragonfly_ray.sources.reader import TOGETHER

log = logging.getLogger(__name__)

FINAL = (
    SourceAuthError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceChangedError,
    SourceUnsupportedError,
    SourceArchivedError,
    IntegrityError,
)
"""Errors that waiting does not cure."""
REST = 1.0
"""Seconds without work before connections to the origin are closed: others may want them."""


class _Stopped(Exception):
    """Raised inside a read that is cancelled."""


class OriginWorkers:
    """A few threads, each with one run of leased pieces at a time.

    `access` gives the distribution whose origin it is read with now; `tell` says a message to the scheduler. `bytes`:
    read so far, whole pieces and parts.
    """

    def __init__(
        self, engine: Engine, access: Callable[[], m.Deliver], tell: Callable[[m.Message], None]
    ) -> None:
        self._engine = engine
        self._access = access
        self._tell = tell
        self._settings = engine.settings.origin
        self._partial: dict[int, int] = {}
        self._whole = 0
        self._ready = threading.Condition(engine.lock)
        self._reader: Reader | None = None
        self._left_open: list[Reader] = []
        """Readers of distributions that were cancelled; a request of theirs may be under way."""

    def open(self, may_claim: bool, not_before: float, connections: int = 0) -> None:
        """The manifest is here. Under the lock."""
        engine = self._engine
        limits = LeaseLimits.of(engine.task, engine.table.leaf, self._settings, TOGETHER)
        engine.state.may_read(limits, may_claim, time.monotonic() + not_before, connections)

    @property
    def opened(self) -> bool:
        return self._engine.state.leases is not None

    @property
    def bytes(self) -> int:
        return self._whole + sum(self._partial.values())

    @property
    def leases(self) -> LeaseQueue:
        """To be read only: what happens is told to the engine."""
        leases = self._engine.state.leases
        assert leases is not None
        return leases

    @property
    def awaiting(self) -> float:
        """Seconds that the oldest request has waited for its answer to begin; 0: none waits."""
        reader = self._reader
        return reader.first_bytes.longest() if reader else 0.0

    @property
    def answer(self) -> float:
        """Seconds that answers take to begin; 0: unknown."""
        reader = self._reader
        return reader.first_bytes.usual if reader else 0.0

    def reader(self) -> Reader:
        """For whoever reads beside the workers; it is closed with them."""
        return self._open()

    def start(self) -> None:
        for number in range(self._settings.connections):
            self._engine.spawn(f"origin{number}", partial(self._work, number))

    def stop(self) -> None:
        with self._ready:
            self._engine.state.origin_stopped()
            self._ready.notify_all()
            readers = [*self._left_open, self._reader]
        for reader in readers:
            if reader:
                reader.abort()

    def reopen(self) -> None:
        """What is read from now on is read for another distribution, with what opens the origin for it."""
        with self._ready:
            if self._reader:
                self._left_open.append(self._reader)
                self._reader = None

    def close(self) -> None:
        """Lets go of the connections, once the workers have ended."""
        for reader in (*self._left_open, self._reader):
            if reader:
                reader.close()

    # --- leases -----------------------------------------------------------------------------

    def allow(self, may_claim: bool | None, not_before: float, connections: int = 0) -> None:
        """What the scheduler says; `not_before`: seconds from now; `connections`: 0 where it is as before."""
        with self._ready:
            changed = self._engine.state.allowed(may_claim, time.monotonic() + not_before, connections)
            if changed and self._reader:
                self._reader.limit(connections)
            self._ready.notify_all()

    def leased(self, pieces: Iterable[int], left: int = -1) -> None:
        """`left`: to claim by whomever, after that; -1: as far as is known."""
        with self._ready:
            if left >= 0:
                self._engine.state.replied(left, 0.0, time.monotonic())
            engine, leased = self._engine, tuple(pieces)
            here = engine.described(bitset.of(leased) & engine.picker.have)
            engine.state.leased(leased, tuple(here), time.monotonic())
            self._ready.notify_all()

    def revoked(self, pieces: Iterable[int]) -> None:
        """Somebody else reads them: they are not begun here, and what is under way ends."""
        with self._ready:
            self._engine.state.revoked(tuple(pieces))

    def answered(self, reply: m.ReportReply) -> None:
        with self._ready:
            self._engine.state.replied(reply.left, reply.usual, time.monotonic())
        if reply.not_before or reply.connections:
            self.allow(None, reply.not_before, reply.connections)
        if reply.lease:
            self.leased(reply.lease)

    def doubt(self) -> None:
        """All is here, but nobody vouches for some of it: claim it, to read it once more."""
        with self._ready:
            self._engine.state.doubted()
        self._engine.report_now.set()

    # --- work -------------------------------------------------------------------------------

    def _take(self, number: int, unread: Iterable[int] = ()) -> range | None:
        """The next run of consecutive leased pieces; None at the end. `unread`: what is left of the last."""
        leases, state = self.leases, self._engine.state
        with self._ready:
            if state.origin_ended(number, tuple(unread)):
                self._engine.report_now.set()
            while True:
                if leases.stopped:
                    return None
                now = time.monotonic()
                pieces, low = state.next_origin_run(number, now, self.answer)
                if pieces is not None:
                    break
                wait = leases.pause(now)
                if leases.reading or not self._reader:
                    self._ready.wait(wait)
                elif not self._ready.wait(REST if wait is None else wait):
                    self._reader.rest()
        if low:
            self._engine.report_now.set()
        return pieces

    def _work(self, number: int) -> None:
        with Lender(self._engine.context.pool, (self._engine.task.id, "origin"), self._over) as lender:
            unread: set[int] = set()
            while (pieces := self._take(number, unread)) is not None:
                unread = self._fetch(number, pieces, lender)
        self._engine.report_now.set()

    def _over(self) -> bool:
        return self.leases.stopped or self._engine.over

    def _fetch(self, number: int, pieces: range, lender: Lender) -> set[int]:
        """What of them was not read."""
        engine = self._engine
        rest = set(pieces)
        spec_id = self._access().spec.id
        started = time.monotonic()
        began = started
        taken = 0

        def take(index: int) -> memoryview:
            return lender.take(index, engine.table[index].length)

        def progress(count: int) -> None:
            nonlocal taken, began
            if count and not taken:
                began = time.monotonic()
            taken += count
            self._partial[number] = self._partial.get(number, 0) + count
            if self._over() or self.leases.unwanted(number):
                raise _Stopped
            engine.context.received("origin", count)

        try:
            reader = self._open()
            first = stream_start(engine.task, engine.table, pieces.start)
            # All of them before anything is asked for: a read never waits for a buffer.
            lender.reserve(reader.buffers(first, pieces.stop))
            started = time.monotonic()
            for index, view in reader.read(first, pieces.stop, take, progress):
                engine.from_origin(index, view)
                lender.give(index)
                rest.discard(index)
                with engine.lock:
                    self._whole += len(view)
                    self._partial[number] = max(0, self._partial.get(number, 0) - len(view))
            now = time.monotonic()
            with engine.lock:
                engine.state.origin_measured(taken, now - started, now - began)
        except (_Stopped, NotLentError):
            pass
        except StorageError:
            pass  # the task has failed here, and knows
        except DragonflyError as error:
            if not self.leases.stopped:
                self._failed(rest, error, spec_id)
        except Exception as error:
            log.exception("task %.12s: reading the origin failed", engine.task.id)
            failure = DragonflyError(f"{engine.task.url}: {type(error).__name__}")
            self._failed(rest, failure, spec_id, final=True)
        finally:
            lender.release()
            self._partial[number] = 0
        return rest

    def _open(self) -> Reader:
        with self._engine.lock:
            if self._reader is None:
                store, access = self._engine.store, self._access()
                self._reader = open_reader(
                    access.spec.source,
                    access.credentials,
                    store.manifest,
                    store.table,
                    self._settings,
                    access.spec.policy,
                )
                self._reader.limit(self.leases.connections)
            return self._reader

    def _failed(self, rest: set[int], error: DragonflyError, spec_id: str, *, final: bool = False) -> None:
        """`spec_id`: of the distribution whose credentials it was read with."""
        engine, state = self._engine, self._engine.state
        pause = None
        with self._ready:
            if isinstance(error, SourceBusyError):
                pause = state.origin_busy(time.monotonic(), error.retry_after)
            else:
                state.origin_failed(time.monotonic())
            self._ready.notify_all()
        if pause is not None:
            self._tell(m.Throttled(engine.context.host_id, engine.task.id, pause))
        log.info("task %.12s: %s", engine.task.id, error)
        self._tell(
            m.OriginFailed(
                engine.context.host_id,
                engine.task.id,
                error.kind,
                str(error),
                tuple(sorted(rest)),
                final=final or isinstance(error, FINAL),
                spec_id=spec_id,
            )
        )
