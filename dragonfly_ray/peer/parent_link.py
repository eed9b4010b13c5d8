"""One neighbour as a parent: a connection, its requests, and what comes back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError, RemoteProtocolError, StorageError, TransportError
from dragonfly_ray.peer.buffers import Lender, NotLentError
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.scheduling.download.effects import ConnectionId
from dragonfly_ray.scheduling.stragglers import Transfer
from dragonfly_ray.transport.parent_connection import Busy, Data, Missing, ParentConnection

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
UNREACHABLE_AFTER = 0.4
"""From pauses of so many seconds on, the scheduler hears of them."""
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

    `running` (under the engine's lock): whether it has that thread.
    """

    def __init__(
        self, engine: Engine, neighbour: m.Neighbour, connect: Callable[[m.Neighbour], ParentConnection]
    ) -> None:
        self._engine = engine
        self._connect = connect
        self.neighbour = neighbour
        self.id = neighbour.host.id
        self._ready = threading.Condition(engine.lock)
        self._connection: ParentConnection | None = None
        self._stopped = False
        self.running = False
        self.owed = not neighbour.complete
        """It has not been told yet that all is here."""
        self.number: ConnectionId = 0
        """Of its connection."""
        self._transfer: tuple[int, Transfer] | None = None
        """The piece that is coming, and how."""
        self._doubted = 0.0
        """Until when it may turn out that it is gone."""

    def goes_on(self, neighbour: m.Neighbour) -> bool:
        """Whether the same process is meant, which may say from now on what it says already."""
        known = self.neighbour
        return known.host == neighbour.host and (known.silent == neighbour.silent or neighbour.silent)

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
        """Some of what was told does not hold any more. Under the engine's lock."""
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
                if not self._due_yet() or self._engine.error:
                    self.running = False
                    return

    def _fetch(self) -> None:
        engine, pause = self._engine, FIRST_PAUSE
        while self._due_yet():
            try:
                connection = self._connect(self.neighbour)
            except RemoteProtocolError as error:
                self._broke_protocol(error)
                return
            except DragonflyError as error:
                if self._over():
                    self._settle()
                    return
                log.debug("task %.12s: %s", engine.task.id, error)
                if pause >= UNREACHABLE_AFTER:
                    engine.happened(engine.state.unreachable, self.id)
                engine.stopping.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                continue
            pause = FIRST_PAUSE
            if not self._use(connection):
                return
            engine.stopping.wait(pause)

    def _use(self, connection: ParentConnection) -> bool:
        """Until it ends; False: the task does."""
        engine = self._engine
        try:
            self._converse(connection)
        except _Quiet:
            pass
        except _TooSlow as error:
            self._give_up_piece(error.rate)
        except NotLentError:  # it is over: what is here they may still want
            self._tell_rest()
        except StorageError:
            return False  # the task has failed here, and knows
        except RemoteProtocolError as error:
            if not self._stopped:
                self._broke_protocol(error)
        except TransportError as error:
            if not self._over():
                log.info("task %.12s: parent %s: %s", engine.task.id, self.neighbour.host.name, error)
                engine.happened(engine.state.unreachable, self.id)
        finally:
            self._connection = self._transfer = None
            connection.close()
            engine.disconnected(self.number)
        return True

    def _broke_protocol(self, error: RemoteProtocolError) -> None:
        """It said what nobody who keeps to the protocol says: it is not asked any more."""
        engine = self._engine
        log.warning(
            "task %.12s: protocol error from parent %s, connection dropped: %s",
            engine.task.id,
            self.id,
            error,
        )
        engine.happened(engine.state.broke_protocol, self.id)

    def _over(self) -> bool:
        return self._stopped or self._engine.stopping.is_set() or self._engine.picker.done

    def _due_yet(self) -> bool:
        """Whether something may come from it, or it may still wait to hear what is here."""
        if self._stopped or self._engine.stopping.is_set():
            return False
        return self.owed or not self._engine.picker.done

    def _settle(self) -> None:
        """All is here, and it has been told, or cannot be."""
        with self._ready:
            if self._engine.picker.done:
                self.owed = False
                self._engine.changed.notify_all()

    def _introduce(self, connection: ParentConnection) -> bool:
        """False: what this connection still says must not be taken for its successor's word."""
        engine = self._engine
        with engine.lock:
            if self._stopped:
                return False
            self._connection = connection
            self.number = engine.connected(self)
            held = int.from_bytes(connection.bitmap, "little")
            claims = tuple(connection.digests.items())
            effects = engine.state.connected(self.number, self.id, held, claims, time.monotonic())
        engine.carry_out(effects)
        engine.tell_now.set()
        return True

    def _converse(self, connection: ParentConnection) -> None:
        engine = self._engine
        table = engine.table

        def length_of(piece: int) -> int:
            return table[piece].length

        if not self._introduce(connection):
            return
        with Lender(engine.context.pool, (engine.task.id, "parents"), self._over) as lender:

            def take(index: int, length: int) -> memoryview:
                view = lender.take(index, length)
                self._transfer = index, Transfer(length, time.monotonic())
                return view

            while not self._over():
                if self._ask(connection):
                    answer = connection.receive(take, length_of, self._progress)
                    self._answered(answer)
                    if isinstance(answer, Data):
                        lender.give(answer.index)
        self._tell_rest()

    def _answered(self, answer: object) -> None:
        engine, number = self._engine, self.number
        match answer:
            case Data():
                now = time.monotonic()
                transfer, self._transfer = self._transfer, None
                rate = transfer[1].average(now) if transfer else 0.0
                engine.from_parent(number, self.id, answer, rate, now)
            case Missing():
                with engine.lock:
                    engine.state.missing(number, answer.index)
            case Busy():
                with engine.lock:
                    wanted = engine.state.busy(number, answer.first, answer.count)
                if wanted:  # and not cancelled
                    engine.stopping.wait(FIRST_PAUSE)

    def _tell_rest(self) -> None:
        """It is over: what is here they may still want."""
        self._engine.happened(self._engine.state.tell_all, self.number)
        self._settle()

    def _progress(self, count: int) -> None:
        engine = self._engine
        engine.context.received("peers", count)
        if self._transfer is None:
            return
        (index, transfer), now = self._transfer, time.monotonic()
        transfer.moved(count, now)
        if transfer.measured(now):
            rate, left = transfer.rate(now), transfer.left(now)
            waited_for = engine.context.pool.waiting > 0
            with engine.lock:
                slow = engine.state.too_slow(self.number, index, rate, left, waited_for, now)
            if slow:
                raise _TooSlow(rate)

    def _give_up_piece(self, rate: float) -> None:
        """Its connection ends with it, in the middle of a piece. What others have is not asked of it for a while."""
        log.info(
            "task %.12s: parent %s is slow (%.1f kB/s); requesting from other parents",
            self._engine.task.id, self.neighbour.host.name, rate / 1000,
        )  # fmt: skip

    def _ask(self, connection: ParentConnection) -> bool:
        """Fills the pipeline. False after a wait in which nothing useful turned up."""
        state, number = self._engine.state, self.number
        while True:
            with self._ready:
                if self._over():
                    return False
                now = time.monotonic()
                picked = state.next_request(number, now)
                if not picked:
                    if state.due(number):
                        return True
                    self._wait(connection, now)
                    return False
            rest = [p for p in picked if not self._engine.from_cache(number, p)]
            for first, count in _runs(rest):
                connection.request(first, count)

    def _wait(self, connection: ParentConnection, now: float) -> None:
        """Nothing is to be asked of it now. Under the lock, which is let go meanwhile."""
        wait, refresh = self._engine.state.idle(self.number, now)
        if now < self._doubted:
            connection.check()
            self._ready.wait(FIRST_PAUSE)
        elif not self._ready.wait(wait) and refresh:
            raise _Quiet


def _runs(pieces: list[int]) -> list[tuple[int, int]]:
    """(first, count) of each stretch of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for piece in pieces:
        if found and found[-1][0] + found[-1][1] == piece:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((piece, 1))
    return found
