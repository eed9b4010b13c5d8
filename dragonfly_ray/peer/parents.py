"""One neighbour as a parent: a connection, its requests, and what comes back."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError, ProtocolError, StorageError, TransportError
from dragonfly_ray.peer.buffers import Lender, NotLentError
from dragonfly_ray.scheduling.slowness import Pauses, Transfer, too_slow
from dragonfly_ray.transport.connection import Busy, Data, Missing, ParentConnection

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
REFRESH = 5.0
"""Seconds without anything to ask for, after which a neighbour is asked again what it has."""
DOUBT = 1.0
"""Seconds in which the connections of a process that was killed come to their ends, one after the other."""
IN_FLIGHT = 0.3
"""Seconds of what a parent gives: no more is asked of it at once, or the newest pieces wait behind the others."""
SMOOTHING = 0.3
SHARE = 256
"""A request asks for at most this share of the content, so that no piece waits long behind others."""


class _Quiet(Exception):
    """Nothing to ask for in a long while."""


class _TooSlow(Exception):
    """What is asked of it is asked of others."""


class Parent:
    """Runs in a thread of its own until stopped or nothing is missing, and reconnects with growing pauses.

    `running` (under the run's lock): whether it has that thread.
    """

    def __init__(self, run: TaskRun, neighbour: m.Neighbour) -> None:
        self._run = run
        self.neighbour = neighbour
        self.id = neighbour.host.id
        self._ready = threading.Condition(run.lock)
        self._connection: ParentConnection | None = None
        self._stopped = False
        self.running = False
        self.owed = not neighbour.complete
        """It has not been told yet that all is here."""
        self._failures = 0
        self._told = 0
        """The pieces that this neighbour knows to be here."""
        self._due = 0
        """Pieces asked for on this connection whose answer is still to come."""
        self._pace = 0.0
        """Seconds that it takes for a piece, smoothed; 0: unknown."""
        self._rate = 0.0
        """Bytes a second of the last pieces, smoothed; 0: unknown."""
        self._transfer: tuple[int, Transfer] | None = None
        """The piece that is coming, and how."""
        self._pauses = Pauses()
        self._doubted = 0.0
        """Until when it may turn out that it is gone."""

    @property
    def far(self) -> bool:
        """Its bytes cross from another zone, and are for its importer to fetch."""
        return self.abroad and not self.neighbour.sole

    @property
    def abroad(self) -> bool:
        """It is in another zone; no host is where zones are not known."""
        mine, other = self._run.context.zone, self.neighbour.host.idc
        return bool(mine and other) and mine != other

    @property
    def _most(self) -> int:
        """Pieces that one request may ask for."""
        run = self._run
        leaf = run.store.table.leaf if run.store else 1
        longest = min(run.settings.transport.request_bytes, run.task.size // SHARE)
        return max(1, longest // leaf)

    # --- from other threads -----------------------------------------------------------------

    def wake(self) -> None:
        with self._ready:
            self._ready.notify_all()

    def stop(self) -> None:
        with self._ready:
            self._stopped = True
            connection = self._connection
            self._ready.notify_all()
        if connection:
            connection.close()

    def tell(self, items: list[tuple[int, bytes]]) -> None:
        """Our news for this neighbour; what it has itself is no news to it."""
        with self._run.lock:
            connection = self._connection
            known = self._told | self._run.picker.holder_bits(self.id)
            news = [item for item in items if not known >> item[0] & 1]
            self._told |= bitset.of(index for index, _ in news)
            left = bitset.full(self._run.task.pieces) & ~known & ~self._told
        if connection is not None and news:
            try:
                connection.have(news)
            except DragonflyError:
                connection.close()
            else:
                if not left:
                    self._settle()

    def doubt(self) -> None:
        """It may be gone. Whoever waits for its answer hears that; whoever has nothing to ask has to look."""
        with self._ready:
            self._doubted = time.monotonic() + DOUBT
            self._ready.notify_all()

    def rate(self, now: float) -> float:
        """Bytes a second that it gives; 0: unknown."""
        coming = self._transfer
        return coming[1].rate(now) if coming and coming[1].measured(now) else self._rate

    def paused(self, now: float) -> bool:
        """It is asked for nothing: it was too slow."""
        return self._pauses.left(now) > 0

    def untold(self, pieces: int) -> None:
        """What was told of these does not hold any more. Under the run's lock."""
        self._told &= ~pieces
        self.owed = not self.neighbour.complete

    def cancel(self, index: int) -> None:
        """The piece came from elsewhere."""
        connection = self._connection
        if connection is not None:
            try:
                connection.cancel(index, 1)
            except DragonflyError:
                connection.close()

    # --- its own thread ---------------------------------------------------------------------

    def run(self) -> None:
        while True:
            self._fetch()
            with self._ready:
                if not self._due_yet() or self._run.error:
                    self.running = False
                    return

    def _fetch(self) -> None:
        pause = FIRST_PAUSE
        while self._due_yet():
            try:
                connection = self._run.connect(self.neighbour)
            except ProtocolError as error:
                self._run.neighbours.broke_protocol(self.id, error)
                return
            except DragonflyError as error:
                if self._over():
                    self._settle()
                    return
                self._failures += 1
                log.debug("task %.12s: %s", self._run.task.id, error)
                if pause >= 0.4:
                    self._run.neighbours.unreachable(self.id)
                self._run.stopping.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                continue
            pause = FIRST_PAUSE
            try:
                self._converse(connection)
            except _Quiet:
                pass
            except _TooSlow:
                self._give_up_piece()
            except NotLentError:  # it is over: what is here they may still want
                self.tell(self._run.holdings())
                self._settle()
            except StorageError:
                return  # the task has failed here, and knows
            except ProtocolError as error:
                if not self._replaced():
                    self._run.neighbours.broke_protocol(self.id, error)
            except TransportError as error:
                if not self._over():
                    log.info("task %.12s: parent %s: %s", self._run.task.id, self.neighbour.host.name, error)
                    self._run.neighbours.unreachable(self.id)
            finally:
                self._connection = self._transfer = None
                connection.close()
                self._run.neighbours.parted(self)
            self._run.stopping.wait(pause)

    def _replaced(self) -> bool:
        """What this connection still says must not be taken for its successor's word."""
        return self._stopped

    def _over(self) -> bool:
        return self._stopped or self._run.stopping.is_set() or self._run.picker.done

    def _due_yet(self) -> bool:
        """Whether something may come from it, or it may still wait to hear what is here."""
        if self._stopped or self._run.stopping.is_set():
            return False
        return self.owed or not self._run.picker.done

    def _settle(self) -> None:
        """All is here, and it has been told, or cannot be."""
        with self._ready:
            if self._run.picker.done:
                self.owed = False
                self._run.changed.notify_all()

    def _converse(self, connection: ParentConnection) -> None:
        run = self._run
        table = run.table()

        def length_of(piece: int) -> int:
            return table[piece].length

        with run.lock:
            if self._replaced():
                return
            held = 0 if self.neighbour.silent else int.from_bytes(connection.bitmap, "little")
            run.picker.joined(self.id, held, far=self.far, zone=self.neighbour.host.idc)
            if not self.neighbour.silent:
                run.told(self.id, connection.digests.items())
            self._connection = connection
            self._due = self._told = 0
        run.neighbours.introduced(self.id)
        with Lender(run.context.pool, (run.task.id, "parents"), self._over) as lender:

            def take(index: int, length: int) -> memoryview:
                view = lender.take(index, length)
                self._transfer = index, Transfer(length, time.monotonic())
                return view

            since = 0.0
            while True:
                waited = not self._due
                if not self._ask(connection):
                    if self._over():
                        self.tell(run.holdings())
                        self._settle()
                        return
                    continue
                if waited:
                    since = time.monotonic()
                answer = connection.receive(take, length_of, self._progress)
                if isinstance(answer, Data):
                    self._due -= 1
                    now = time.monotonic()
                    self._paced(now - since, now)
                    since = now
                    self._took(connection, answer)
                    lender.give(answer.index)
                elif isinstance(answer, Missing):
                    self._due -= 1
                    with run.lock:
                        if not self._replaced():
                            run.picker.refused(self.id, answer.index)
                elif isinstance(answer, Busy):
                    self._due -= answer.count
                    pieces = range(answer.first, answer.first + answer.count)
                    with run.lock:
                        for index in pieces if not self._replaced() else ():
                            run.picker.unasked(self.id, index)
                        wanted = any(not run.picker.have >> index & 1 for index in pieces)
                    if wanted:  # and not cancelled
                        run.stopping.wait(FIRST_PAUSE)

    def _paced(self, seconds: float, now: float) -> None:
        """A piece took so long, with the wait for its buffer."""
        share = SMOOTHING if self._pace else 1.0
        self._pace += share * (seconds - self._pace)
        if self._transfer is not None:
            self._rate += share * (self._transfer[1].average(now) - self._rate)
            self._transfer = None
        self._pauses.end()

    def _window(self) -> int:
        """Pieces that may be due at once."""
        most = self._run.settings.transport.pipeline * self._most
        return most if self._pace * most <= IN_FLIGHT else max(1, int(IN_FLIGHT / self._pace))

    def _progress(self, count: int) -> None:
        run = self._run
        run.context.received("peers", count)
        if self._transfer is None:
            return
        (index, transfer), now = self._transfer, time.monotonic()
        transfer.moved(count, now)
        if transfer.measured(now):
            others, elsewhere = run.neighbours.giving(self, index, now)
            waited_for = run.context.pool.waiting > 0
            if too_slow(transfer, others, now, elsewhere=elsewhere, waited_for=waited_for):
                raise _TooSlow

    def _give_up_piece(self) -> None:
        """Its connection ends with it, in the middle of a piece. What others have is not asked of it for a while."""
        now = time.monotonic()
        self._rate = self.rate(now)
        self._pauses.begin(now)
        log.info(
            "task %.12s: parent %s is slow (%.1f kB/s); asking others",
            self._run.task.id, self.neighbour.host.name, self._rate / 1000,
        )  # fmt: skip

    def _ask(self, connection: ParentConnection) -> bool:
        """Fills the pipeline. False after a wait in which nothing useful turned up."""
        run = self._run
        while True:
            with self._ready:
                if self._over():
                    return False
                room = self._window() - self._due
                if room <= 0:
                    return True
                pause = 0.0 if self._due else self._pauses.left(time.monotonic())
                if pause:
                    self._ready.wait(min(pause, REFRESH))
                    return False
                picked = run.picker.pick(self.id, min(self._most, room), time.monotonic())
                if not picked:
                    if self._due:
                        return True
                    if time.monotonic() < self._doubted:
                        connection.check()
                        self._ready.wait(FIRST_PAUSE)
                    elif run.picker.available():
                        self._ready.wait(0.25)
                    elif not self._ready.wait(REFRESH):
                        raise _Quiet
                    return False
            rest = [p for p in picked if not run.from_cache(self.id, p)]
            for first, count in _runs(rest):
                self._due += count
                connection.request(first, count)

    def _took(self, connection: ParentConnection, data: Data) -> None:
        run = self._run
        if run.picker.have >> data.index & 1:
            return
        run.from_parent(self.id, data.index, data.digest, data.view, connection.corrupt)


def _runs(pieces: list[int]) -> list[tuple[int, int]]:
    """(first, count) of each stretch of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for piece in pieces:
        if found and found[-1][0] + found[-1][1] == piece:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((piece, 1))
    return found
