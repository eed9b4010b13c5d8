"""The neighbours of one task: whom it fetches from, and when they are told what is here."""

from __future__ import annotations

import time
from collections.abc import Callable

from dragonfly_ray import messages as m
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.parent_link import Parent
from dragonfly_ray.scheduling.download.parent_state import NeighbourInfo
from dragonfly_ray.transport.parent_connection import ParentConnection

TOGETHER = 0.005
"""Seconds between two messages to a neighbour: pieces that come faster are told together, which wakes
everybody less often."""
LAST_WORDS = 2.0
"""Seconds that telling them that all is here may take."""
PATIENCE = 0.5
"""Seconds after which whoever gives out fresh pieces looks whether they have arrived."""


class Neighbours:
    """Of one download, changed under its lock."""

    def __init__(
        self, engine: Engine, first: m.Deliver, connect: Callable[[m.Neighbour], ParentConnection]
    ) -> None:
        self._engine = engine
        engine.hosts = self
        self._connect = connect
        self.parents: dict[str, Parent] = {}
        self._first = first.neighbours
        self._early: list[m.Neighbour] = []
        """Met before the manifest was here."""

    def meet(self, neighbour: m.Neighbour) -> None:
        """Connects to a neighbour, or to its new incarnation."""
        engine, state, host = self._engine, self._engine.state, neighbour.host.id
        info = NeighbourInfo(
            neighbour.host.idc, neighbour.sole, neighbour.importer, neighbour.complete, neighbour.silent,
            neighbour.host.location,
        )  # fmt: skip
        with engine.lock:
            if host == engine.context.host_id:
                state.met(host, info)
                return
            if state.banned(host) or engine.stopping.is_set():
                return
            if engine.opened is None:
                self._early.append(neighbour)
                return
            old = self.parents.get(host)
            if old and not old.goes_on(neighbour):
                old.stop()
                state.replaced(host)
                old = None
            state.met(host, info)
            if old:
                old.neighbour = neighbour
                return
            self.parents[host] = Parent(engine, neighbour, self._connect)
        self.start()

    def known(self) -> list[m.Neighbour]:
        """Those known before the manifest is here."""
        with self._engine.lock:
            return [*self._first, *self._early]

    def begin(self) -> None:
        """The manifest is here, and something is missing."""
        self._engine.spawn("gossip", self._tell_always)
        with self._engine.lock:  # nobody asks for anything before it is known who imports what
            for neighbour in self.known():
                self.meet(neighbour)

    def start(self) -> None:
        """Those that have nothing to do yet wait until something is missing, maybe again."""
        engine = self._engine
        with engine.lock:
            if engine.stopping.is_set():
                return
            done = engine.picker.done
            waiting = [p for p in self.parents.values() if not p.running and (p.owed or not done)]
            for parent in waiting:
                parent.running = True
        for parent in waiting:
            engine.spawn(f"parent-{parent.id[:8]}", parent.run)

    def stop(self) -> None:
        for parent in list(self.parents.values()):
            parent.stop()

    def close(self, host: str) -> None:
        with self._engine.lock:
            parent = self.parents.pop(host, None)
        if parent:
            parent.stop()

    def lost(self) -> None:
        for parent in self.parents.values():
            parent.untold()

    # --- what they say, and are told --------------------------------------------------------

    def heard(self, host: str, items: list[tuple[int, bytes]]) -> None:
        """A neighbour's news, on the connection that it opened to us."""
        engine = self._engine
        engine.happened(engine.state.have, host, tuple(items))
        if engine.state.seeds:
            engine.tell_now.set()
        if parent := self.parents.get(host):
            parent.wake()

    def deserted(self, host: str) -> None:
        """It has closed the connection that it had opened to us: it needs no more, or it is gone."""
        if parent := self.parents.get(host):
            parent.doubt()

    def shown(self, host: str) -> int:
        """The pieces that a neighbour may ask for."""
        with self._engine.lock:
            return self._engine.state.shown(host)

    def _tell_always(self) -> None:
        """Tells the neighbours what is new here; all that came in meanwhile goes in one message."""
        engine = self._engine
        while not engine.stopping.is_set():
            engine.tell_now.wait(PATIENCE if engine.state.seeds else None)
            engine.tell_now.clear()
            self.tell_now()
            engine.stopping.wait(TOGETHER)

    def tell_now(self) -> None:
        self._engine.happened(self._engine.state.take_tells, time.monotonic())

    def tell_rest(self) -> None:
        """All is here: waits until every neighbour has been told so, as far as they can be reached. Whoever connected
        before would find that out after a long while only, and from nobody else where nobody else has it."""
        engine = self._engine
        with engine.lock:
            engine.changed.wait_for(
                lambda: (
                    engine.stopping.is_set()
                    or not engine.picker.done
                    or not any(p.owed and p.running for p in self.parents.values())
                ),
                LAST_WORDS,
            )
