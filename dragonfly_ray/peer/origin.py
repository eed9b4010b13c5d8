"""The workers that fetch leased pieces from the origin."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

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
from dragonfly_ray.scheduling import bits as bitset
from dragonfly_ray.scheduling.answer_waits import SLOW_S
from dragonfly_ray.sources import Reader, open_reader
from dragonfly_ray.sources.reader import TOGETHER

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

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
DEFAULT_PATIENCE = 1.0
"""Seconds to leave an origin alone that asks for patience without saying how much."""
SMOOTHING = 0.3
MANY = 4
"""Files in a piece, from which on a few pieces are asked for together."""
LEAST_OFFERED = 8
"""Pieces that neighbours have and nobody was asked for: fewer are on their way any moment."""
LATE = 3.0
"""So many times what others take for the whole way of a piece, one may wait here to be read."""
LEAST_WAIT = 0.3
LAST_WAIT = 0.1
"""Seconds that one may wait when nothing else is left to read: whoever is idle begins with it at once."""
LOOK = 0.05
"""Seconds between looks whether another connection helps again."""
REST = 1.0
"""Seconds without work before connections to the origin are closed: others may want them."""


class _Stopped(Exception):
    """Raised inside a read that is not wanted any more."""


class OriginWorkers:
    """A few threads, each with one run of leased pieces at a time.

    `bytes`: read so far, whole pieces and parts. `rate`: bytes a second of one worker, smoothed.
    """

    def __init__(self, run: TaskRun, may_claim: bool, not_before: float, connections: int = 0) -> None:
        self._run = run
        self._settings = run.settings.origin
        self._queue: list[int] = []
        self._since: dict[int, float] = {}
        """When each piece of the queue came into it."""
        self._active: dict[int, set[int]] = {}
        self._unwanted: set[int] = set()
        """Workers that read only what somebody else reads now."""
        self._partial: dict[int, int] = {}
        self._whole = 0
        self._may_claim = may_claim
        self._not_before = time.monotonic() + not_before
        self._ready = threading.Condition(run.lock)
        self._stopped = False
        self._doubting = False
        self._left = -1
        self._reader: Reader | None = None
        self._left_open: list[Reader] = []
        """Readers of distributions that were cancelled; a request of theirs may be under way."""
        self._backoff = 0.0
        self.rate = 0.0
        self._flow = 0.0
        """Bytes a second of one worker, once they flow; smoothed."""
        self._connections = connections or max(self._settings.connections, self._settings.small_connections)
        """What the scheduler allows this peer now, of the whole cluster's."""

    @property
    def workers(self) -> int:
        """Runs of pieces that may be under way at once."""
        return min(self._settings.connections, self._connections)

    def _useful(self) -> int:
        """Of these, as many as help: one, while neighbours offer more than can be asked of them. Else the origin
        has given everything before the links between hosts have carried their part. Under the run's lock."""
        picker = self._run.picker
        return 1 if picker.offered() > max(LEAST_OFFERED, picker.requests) else self.workers

    @property
    def bytes(self) -> int:
        return self._whole + sum(self._partial.values())

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

    @property
    def waits(self) -> bool:
        """Nothing is to be asked of the origin now."""
        return self._stopped or time.monotonic() < self._not_before

    def reader(self) -> Reader:
        """For whoever reads beside the workers; it is closed with them."""
        return self._open()

    def start(self, spawn: Callable[[str, Callable[[], None]], object]) -> None:
        for number in range(self._settings.connections):
            spawn(f"origin{number}", partial(self._work, number))

    def stop(self) -> None:
        with self._ready:
            self._stopped = True
            self._queue.clear()
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
        """What the scheduler says; `connections`: 0 where it is as before."""
        with self._ready:
            if connections and connections != self._connections:
                self._connections = connections
                if self._reader:
                    self._reader.limit(connections)
            if may_claim is not None:
                self._may_claim = may_claim
            self._not_before = max(self._not_before, time.monotonic() + not_before)
            self._ready.notify_all()

    def leased(self, pieces: Iterable[int]) -> None:
        with self._ready:
            # What came from a neighbour and is leased all the same, nobody has vouched for: it is read.
            run = self._run
            pieces = list(pieces)
            news = [p for p in pieces if not run.picker.have >> p & 1 or p in run.provenance]
            # What is here from before needs no reading: the scheduler lacks only its digest.
            run.reporter.news.origin += run.described(bitset.of(set(pieces) - set(news)))
            self._run.picker.claimed(news)
            self._queue.extend(news)
            self._since.update(dict.fromkeys(news, time.monotonic()))
            self._ready.notify_all()

    def revoked(self, pieces: Iterable[int]) -> None:
        """Somebody else reads them: they are not begun here, and what is under way ends."""
        with self._ready:
            gone, have = set(pieces), self._run.picker.have
            for number, active in self._active.items():
                if {p for p in active if not have >> p & 1} <= gone:
                    self._unwanted.add(number)
            self._queue = [p for p in self._queue if p not in gone]
            self._run.picker.unclaimed(gone)

    def answered(self, reply: m.ReportReply) -> None:
        self._left = reply.left
        if reply.not_before or reply.connections:
            self.allow(None, reply.not_before, reply.connections)
        if not reply.left:
            self._give_back(LAST_WAIT)
        elif reply.usual:
            self._give_back(max(LEAST_WAIT, LATE * reply.usual))
        if reply.lease:
            self.leased(reply.lease)

    def _give_back(self, seconds: float) -> None:
        """What has waited here for so long, somebody else may have read sooner."""
        with self._ready:
            before = time.monotonic() - seconds
            late = [p for p in self._queue if self._since.get(p, before) < before]
            if late and self._run.task.ranges:
                self._queue = [p for p in self._queue if p not in late]
                self._run.picker.unclaimed(late)
                self._run.reporter.news.released.extend(late)

    def doubt(self) -> None:
        """All is here, but nobody vouches for some of it: claim it, to read it once more."""
        self._doubting = True
        self._run.reporter.kick()

    def appetite(self) -> int:
        """How many more pieces to claim: about what the workers drain in the time of a lease."""
        run = self._run
        with run.lock:
            if not self._may_claim or self._stopped or time.monotonic() < self._not_before:
                return 0
            if run.picker.done and not self._doubting:
                return 0
            waiting = len(self._queue)
            workers = self._useful()
            idle = workers - len(self._active)
        ahead = 0 if self._ending() and self.answer <= SLOW_S else workers * self._per_request()
        return max(0, ahead + idle - waiting)

    def _ending(self) -> bool:
        """Hardly anything is left to claim: nothing ahead, and whoever is idle says at once what it has read,
        and that it has room."""
        return 0 <= self._left <= 4 * self.workers

    def _per_request(self) -> int:
        task = self._run.task
        least = TOGETHER if task.entries > MANY * task.pieces else 1
        leaf = max(1, run_leaf(self._run))
        worth = self.rate * self._settings.lease_seconds
        if self.answer > SLOW_S:
            worth = max(worth, self._flow * self.answer)  # a wait costs as much as so many bytes
        return max(least, min(64, int(worth / leaf)))

    # --- work -------------------------------------------------------------------------------

    def _take(self, number: int) -> range | None:
        """The next run of consecutive leased pieces; None at the end."""
        with self._ready:
            while True:
                ended = self._active.pop(number, None)
                if self._stopped:
                    return None
                if ended and not self._queue and self._ending():
                    self._run.reporter.kick()
                wait = self._not_before - time.monotonic()
                if self._queue and wait <= 0 and len(self._active) < self._useful():
                    break
                if self._queue and self._active and wait <= 0:
                    self._ready.wait(LOOK)
                elif self._active or not self._reader:
                    self._ready.wait(wait if self._queue and wait > 0 else None)
                elif not self._ready.wait(wait if self._queue and wait > 0 else REST):
                    self._reader.rest()
            share = -(-len(self._queue) // max(1, self.workers - len(self._active)))
            most = max(1, min(share, self._per_request()))
            if not self._run.task.ranges:
                most = len(self._queue)
            first = self._queue.pop(0)
            last = first + 1
            while last - first < most and self._queue and self._queue[0] == last:
                self._queue.pop(0)
                last += 1
            self._active[number] = set(range(first, last))
            self._unwanted.discard(number)
            low = len(self._queue) <= self.workers * self._per_request() // 2
        if low:
            self._run.reporter.kick()
        return range(first, last)

    def _work(self, number: int) -> None:
        with Lender(self._run.context.pool, (self._run.task.id, "origin"), self._over) as lender:
            while (pieces := self._take(number)) is not None:
                self._fetch(number, pieces, lender)
        self._run.reporter.kick()

    def _over(self) -> bool:
        return self._stopped or self._run.stopping.is_set() or self._run.error is not None

    def _fetch(self, number: int, pieces: range, lender: Lender) -> None:
        run = self._run
        rest = set(pieces)
        spec_id = run.access.spec.id
        started = time.monotonic()
        began = started
        taken = 0

        def take(index: int) -> memoryview:
            return lender.take(index, run.table()[index].length)

        def progress(count: int) -> None:
            nonlocal taken, began
            if count and not taken:
                began = time.monotonic()
            taken += count
            self._partial[number] = self._partial.get(number, 0) + count
            if self._over() or number in self._unwanted:
                raise _Stopped
            run.context.received("origin", count)

        try:
            reader = self._open()
            first = self._from_the_start(pieces.start)
            # All of them before anything is asked for: a read never waits for a buffer.
            lender.reserve(reader.buffers(first, pieces.stop))
            started = time.monotonic()
            for index, view in reader.read(first, pieces.stop, take, progress):
                run.from_origin(index, view)
                lender.give(index)
                rest.discard(index)
                with run.lock:
                    self._whole += len(view)
                    self._partial[number] = max(0, self._partial.get(number, 0) - len(view))
                    self._backoff = 0.0
            seconds = max(1e-6, time.monotonic() - started)
            self._flow = _smoothed(self._flow, taken / max(1e-3, time.monotonic() - began))
            seen = taken / seconds
            self.rate = _smoothed(self.rate, seen)
        except (_Stopped, NotLentError):
            pass
        except StorageError:
            pass  # the task has failed here, and knows
        except DragonflyError as error:
            if not self._stopped:
                self._failed(rest, error, spec_id)
        except Exception as error:
            log.exception("task %.12s: reading the origin failed", run.task.id)
            failure = DragonflyError(f"{run.task.url}: {type(error).__name__}")
            self._failed(rest, failure, spec_id, final=True)
        finally:
            lender.release()
            self._partial[number] = 0
            with run.lock:
                run.picker.unclaimed(rest)

    def _from_the_start(self, first: int) -> int:
        """Where a stream to piece `first` begins. What it passes on its way there is read, too, where no strong
        version tells that it is what others have read of it: the record does."""
        task, table = self._run.task, self._run.table()
        if task.ranges or task.validator == "strong":
            return first
        segments = table.segments(first)
        return table.of_entry(segments[0].entry).start if len(segments) == 1 and segments[0].offset else first

    def _open(self) -> Reader:
        run = self._run
        with run.lock:
            if self._reader is None:
                store = run.store
                assert store is not None
                access = run.access
                self._reader = open_reader(
                    access.spec.source,
                    access.credentials,
                    store.manifest,
                    store.table,
                    self._settings,
                    access.spec.policy,
                )
                self._reader.limit(self._connections)
            return self._reader

    def _failed(self, rest: set[int], error: DragonflyError, spec_id: str, *, final: bool = False) -> None:
        """`spec_id`: of the distribution whose credentials it was read with."""
        run = self._run
        if isinstance(error, SourceBusyError):
            patience = error.retry_after if error.retry_after is not None else DEFAULT_PATIENCE
            self.allow(None, patience)
            run.reporter.tell(m.Throttled(run.context.host_id, run.task.id, patience))
        else:
            self._backoff = min(2.0, self._backoff * 2 or 0.1)
            self.allow(None, self._backoff)
        log.info("task %.12s: %s", run.task.id, error)
        run.reporter.tell(
            m.OriginFailed(
                run.context.host_id,
                run.task.id,
                error.kind,
                str(error),
                tuple(sorted(rest)),
                final=final or isinstance(error, FINAL),
                spec_id=spec_id,
            )
        )


def _smoothed(before: float, seen: float) -> float:
    return seen if not before else (1 - SMOOTHING) * before + SMOOTHING * seen


def run_leaf(run: TaskRun) -> int:
    """The usual length of a piece of the task."""
    return run.store.table.leaf if run.store else 1
