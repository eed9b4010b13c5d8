"""One neighbour as a parent: a connection, its requests, and what comes back."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError, ProtocolError, StorageError, TransportError
from dragonfly_ray.peer.buffers import Lender, NotLentError
from dragonfly_ray.scheduling.download.effects import ConnectionId
from dragonfly_ray.scheduling.slowness import Transfer
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


class _Quiet(Exception):
    """Nothing to ask for in a long while."""


class _TooSlow(Exception):
    """What is asked of it is asked of others. `rate`: bytes a second."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.rate = rate


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
        self.number: ConnectionId = 0
        """Of its connection."""
        self._transfer: tuple[int, Transfer] | None = None
        """The piece that is coming, and how."""
        self._doubted = 0.0
        """Until when it may turn out that it is gone."""

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

    def tell(self, items: list[tuple[int, bytes]], *, last: bool) -> None:
        """Our news for this neighbour. `last`: there is nothing more to tell."""
        connection = self._connection
        if connection is not None and items:
            try:
                connection.have(items)
            except DragonflyError:
                connection.close()
            else:
                if last:
                    self._settle()

    def complain(self, index: int) -> None:
        """A piece that came from it is not what it promised. Raises `TransportError`."""
        connection = self._connection
        if connection is not None:
            connection.corrupt(index)

    def doubt(self) -> None:
        """It may be gone. Whoever waits for its answer hears that; whoever has nothing to ask has to look."""
        with self._ready:
            self._doubted = time.monotonic() + DOUBT
            self._ready.notify_all()

    def untold(self) -> None:
        """Some of what was told does not hold any more. Under the run's lock."""
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
            except _TooSlow as error:
                self._give_up_piece(error.rate)
            except NotLentError:  # it is over: what is here they may still want
                self._tell_rest()
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
                self._run.neighbours.parted(self, self.number)
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
            self._connection = connection
            self.number = number = run.neighbours.numbered(self)
            effects = run.state.connected(
                number,
                self.id,
                int.from_bytes(connection.bitmap, "little"),
                tuple(connection.digests.items()),
                time.monotonic(),
            )
        run.carry_out(effects)
        run.neighbours.kick()
        with Lender(run.context.pool, (run.task.id, "parents"), self._over) as lender:

            def take(index: int, length: int) -> memoryview:
                view = lender.take(index, length)
                self._transfer = index, Transfer(length, time.monotonic())
                return view

            while True:
                if not self._ask(connection):
                    if self._over():
                        self._tell_rest()
                        return
                    continue
                answer = connection.receive(take, length_of, self._progress)
                if isinstance(answer, Data):
                    self._took(answer)
                    lender.give(answer.index)
                elif isinstance(answer, Missing):
                    with run.lock:
                        run.state.missing(number, answer.index)
                elif isinstance(answer, Busy):
                    with run.lock:
                        wanted = run.state.busy(number, answer.first, answer.count)
                    if wanted:  # and not cancelled
                        run.stopping.wait(FIRST_PAUSE)

    def _tell_rest(self) -> None:
        """It is over: what is here they may still want."""
        with self._run.lock:
            tells = self._run.state.tell_all(self.number)
        self._run.carry_out(tells)
        self._settle()

    def _progress(self, count: int) -> None:
        run = self._run
        run.context.received("peers", count)
        if self._transfer is None:
            return
        (index, transfer), now = self._transfer, time.monotonic()
        transfer.moved(count, now)
        if transfer.measured(now):
            rate, left = transfer.rate(now), transfer.left(now)
            waited_for = run.context.pool.waiting > 0
            with run.lock:
                slow = run.state.too_slow(self.number, index, rate, left, waited_for, now)
            if slow:
                raise _TooSlow(rate)

    def _give_up_piece(self, rate: float) -> None:
        """Its connection ends with it, in the middle of a piece. What others have is not asked of it for a while."""
        log.info(
            "task %.12s: parent %s is slow (%.1f kB/s); asking others",
            self._run.task.id, self.neighbour.host.name, rate / 1000,
        )  # fmt: skip

    def _ask(self, connection: ParentConnection) -> bool:
        """Fills the pipeline. False after a wait in which nothing useful turned up."""
        run, state, number = self._run, self._run.state, self.number
        while True:
            with self._ready:
                if self._over():
                    return False
                now = time.monotonic()
                picked = state.next_request(number, now)
                if not picked:
                    if state.due(number):
                        return True
                    if pause := state.paused(number, now):
                        self._ready.wait(min(pause, REFRESH))
                    elif now < self._doubted:
                        connection.check()
                        self._ready.wait(FIRST_PAUSE)
                    elif run.picker.available():
                        self._ready.wait(0.25)
                    elif not self._ready.wait(REFRESH):
                        raise _Quiet
                    return False
            rest = [p for p in picked if not run.from_cache(number, p)]
            for first, count in _runs(rest):
                connection.request(first, count)

    def _took(self, data: Data) -> None:
        now = time.monotonic()
        transfer, self._transfer = self._transfer, None
        rate = transfer[1].average(now) if transfer else 0.0
        self._run.from_parent(self.number, self.id, data, rate, now)


def _runs(pieces: list[int]) -> list[tuple[int, int]]:
    """(first, count) of each stretch of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for piece in pieces:
        if found and found[-1][0] + found[-1][1] == piece:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((piece, 1))
    return found
