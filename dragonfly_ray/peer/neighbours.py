"""The neighbours of one task: whom it fetches from, and what each of them is told."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import ProtocolError
from dragonfly_ray.peer.parents import Parent
from dragonfly_ray.scheduling.download.effects import ConnectionId, Tell
from dragonfly_ray.scheduling.download.parent_state import NeighbourInfo

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

log = logging.getLogger(__name__)

TOGETHER = 0.005
"""Seconds between two messages to a neighbour: pieces that come faster are told together, which wakes
everybody less often."""
LAST_WORDS = 2.0
"""Seconds that telling them that all is here may take."""
PATIENCE = 0.5
"""Seconds after which whoever gives out fresh pieces looks whether they have arrived."""


class Neighbours:
    """Of one run, changed under its lock."""

    def __init__(self, run: TaskRun, first: m.Deliver) -> None:
        self._run = run
        self.parents: dict[str, Parent] = {}
        self._connections: dict[ConnectionId, Parent] = {}
        self._numbers = itertools.count(1)
        self._first = first.neighbours
        self._early: list[m.Neighbour] = []
        """Met before the manifest was here."""
        self._ready = threading.Event()

    def meet(self, neighbour: m.Neighbour) -> None:
        """Connects to a neighbour, or to its new incarnation."""
        run = self._run
        host = neighbour.host.id
        with run.lock:
            info = NeighbourInfo(
                neighbour.host.idc, neighbour.sole, neighbour.importer, neighbour.complete, neighbour.silent,
                neighbour.host.location,
            )  # fmt: skip
            if host == run.context.host_id:
                run.state.met(host, info)
                return
            if run.state.banned(host) or run.stopping.is_set():
                return
            if run.store is None:
                self._early.append(neighbour)
                return
            old = self.parents.get(host)
            known = old is not None and old.neighbour.host == neighbour.host
            same = known and old is not None and old.neighbour.silent == neighbour.silent
            if old and not (known and (same or neighbour.silent)):
                old.stop()
                run.state.replaced(host)
                old = None
            run.state.met(host, info)
            if old:
                old.neighbour = neighbour
                return
            self.parents[host] = Parent(run, neighbour)
        self.start()

    def known(self) -> list[m.Neighbour]:
        """Those known before the manifest is here."""
        with self._run.lock:
            return [*self._first, *self._early]

    def begin(self) -> None:
        """The manifest is here, and something is missing."""
        self._run.spawn("gossip", self._tell_always)
        with self._run.lock:  # nobody asks for anything before it is known who imports what
            for neighbour in self.known():
                self.meet(neighbour)

    def start(self) -> None:
        """Those that have nothing to do yet wait until something is missing, maybe again."""
        run = self._run
        with run.lock:
            if run.stopping.is_set():
                return
            done = run.picker.done
            waiting = [p for p in self.parents.values() if not p.running and (p.owed or not done)]
            for parent in waiting:
                parent.running = True
        for parent in waiting:
            run.spawn(f"parent-{parent.id[:8]}", parent.run)

    def stop(self) -> None:
        for parent in list(self.parents.values()):
            parent.stop()

    def numbered(self, parent: Parent) -> ConnectionId:
        """The key of a new connection. Under the run's lock."""
        number = next(self._numbers)
        self._connections[number] = parent
        return number

    def left(self, host: str) -> None:
        """The scheduler says that it is gone."""
        with self._run.lock:
            effects = self._run.state.left(host)
        self._run.carry_out(effects)

    def close(self, host: str) -> None:
        with self._run.lock:
            parent = self.parents.pop(host, None)
        if parent:
            parent.stop()

    def broke_protocol(self, host: str, error: ProtocolError) -> None:
        """It said what nobody who keeps to the protocol says: it is not asked any more."""
        run = self._run
        log.warning("task %.12s: parent %s broke the protocol and is dropped: %s", run.task.id, host, error)
        with run.lock:
            effects = run.state.broke_protocol(host)
        run.carry_out(effects)

    def ban(self, host: str) -> None:
        with self._run.lock:
            effects = self._run.state.ban(host)
        self._run.carry_out(effects)

    def cancel(self, connection: ConnectionId, index: int) -> None:
        """The piece came from elsewhere."""
        if parent := self._connections.get(connection):
            parent.cancel(index)

    def complain(self, connection: ConnectionId, index: int) -> None:
        """Raises `TransportError`."""
        if parent := self._connections.get(connection):
            parent.complain(index)

    def tell(self, tell: Tell) -> None:
        if parent := self._connections.get(tell.connection):
            parent.tell(self._run.described(tell.pieces), last=tell.last)

    def wake_all(self) -> None:
        for parent in list(self.parents.values()):
            parent.wake()

    def unreachable(self, host: str) -> None:
        run = self._run
        with run.lock:
            effects = run.state.unreachable(host)
        run.carry_out(effects)

    # --- what they are told -----------------------------------------------------------------

    def lost(self) -> None:
        """Some of what was told does not hold any more. Under the run's lock."""
        for parent in self.parents.values():
            parent.untold()

    def kick(self) -> None:
        """There may be something to tell."""
        self._ready.set()

    def heard(self, host: str, items: list[tuple[int, bytes]]) -> None:
        """A neighbour's news, on the connection that it opened to us."""
        run = self._run
        with run.lock:
            parent = self.parents.get(host)
            effects = run.state.have(host, tuple(items))
        if run.state.seeder:
            self._ready.set()
        run.carry_out(effects)
        if parent:
            parent.wake()

    def parted(self, parent: Parent, number: ConnectionId) -> None:
        """A connection of it is gone; it may come again."""
        with self._run.lock:
            self._connections.pop(number, None)
            effects = self._run.state.disconnected(number, time.monotonic())
        self._ready.set()
        self._run.carry_out(effects)

    def deserted(self, host: str) -> None:
        """It has closed the connection that it had opened to us: it needs no more, or it is gone."""
        parent = self.parents.get(host)
        if parent:
            parent.doubt()

    def shown(self, host: str) -> int:
        """The pieces that a neighbour may ask for."""
        with self._run.lock:
            return self._run.state.shown(host)

    def _tell_always(self) -> None:
        """Tells the neighbours what is new here; all that came in meanwhile goes in one message."""
        run = self._run
        while not run.stopping.is_set():
            self._ready.wait(PATIENCE if run.state.seeder else None)
            self._ready.clear()
            self.tell_now()
            run.stopping.wait(TOGETHER)

    def tell_rest(self) -> None:
        """All is here: waits until every neighbour has been told so, as far as they can be reached. Whoever connected
        before would find that out after a long while only, and from nobody else where nobody else has it."""
        run = self._run
        with run.lock:
            run.changed.wait_for(
                lambda: (
                    run.stopping.is_set()
                    or not run.picker.done
                    or not any(p.owed and p.running for p in self.parents.values())
                ),
                LAST_WORDS,
            )

    def tell_now(self) -> None:
        with self._run.lock:
            tells = self._run.state.take_tells(time.monotonic())
        self._run.carry_out(tells)
