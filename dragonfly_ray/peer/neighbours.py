"""The neighbours of one task: whom it fetches from, and what each of them is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.errors import ProtocolError
from dragonfly_ray.peer.parents import Parent
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.slowness import usual
from dragonfly_ray.scheduling.trust import BAD_PIECES

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
        self._banned: set[str] = set()
        self._first = first.neighbours
        self._early: list[m.Neighbour] = []
        """Met before the manifest was here."""
        self._bad: dict[str, int] = {}
        self._news: list[tuple[int, bytes]] = []
        self._ready = threading.Event()
        self._announcer = SuperSeeder(run.task.pieces) if first.sole else None
        """Whom to tell of what, while this peer alone reads the origin."""

    def meet(self, neighbour: m.Neighbour) -> None:
        """Connects to a neighbour, or to its new incarnation."""
        run = self._run
        host = neighbour.host.id
        with run.lock:
            if host == run.context.host_id:
                run.picker.names(host, importer=neighbour.importer)
                return
            if host in self._banned or run.stopping.is_set():
                return
            if run.store is None:
                self._early.append(neighbour)
                return
            old = self.parents.get(host)
            known = old is not None and old.neighbour.host == neighbour.host
            same = known and old is not None and old.neighbour.silent == neighbour.silent
            if neighbour.silent and not same:  # what it said itself may have come before this
                run.picker.left(host)
                if self._announcer:
                    self._announcer.left(host)
            if old and known and (same or neighbour.silent):
                old.neighbour = neighbour
                self._place(old)
                return
            if old:
                old.stop()
                run.picker.reset(host)
            self.parents[host] = Parent(run, neighbour)
            self._place(self.parents[host])
        self.start()

    def _place(self, parent: Parent) -> None:
        """Where it is, and whether it imports for this peer's zone. Under the run's lock."""
        picker, neighbour = self._run.picker, parent.neighbour
        picker.meets(parent.id, far=parent.far, zone=neighbour.host.idc)
        if not parent.abroad:
            does = neighbour.importer and not neighbour.complete and not neighbour.silent
            picker.names(parent.id, importer=does)

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

    def left(self, host: str) -> None:
        """The scheduler says that it is gone."""
        with self._run.lock:
            parent = self.parents.pop(host, None)
            self._run.picker.left(host)
        if parent:
            parent.stop()

    def accuse(self, host: str, index: int) -> None:
        """It sent a piece that is not what it said itself."""
        run = self._run
        log.warning("task %.12s: piece %d from %s does not match its digest", run.task.id, index, host)
        with run.lock:
            run.picker.refused(host, index)
            run.reporter.news.bad.append(host)
            self._bad[host] = self._bad.get(host, 0) + 1
            give_up = self._bad[host] >= BAD_PIECES
        run.reporter.kick()
        if give_up:
            self.ban(host)

    def broke_protocol(self, host: str, error: ProtocolError) -> None:
        """It said what nobody who keeps to the protocol says: it is not asked any more."""
        run = self._run
        log.warning("task %.12s: parent %s broke the protocol and is dropped: %s", run.task.id, host, error)
        with run.lock:
            run.reporter.news.bad += [host] * BAD_PIECES  # it is as good as many bad ones
        run.reporter.kick()
        self.ban(host)

    def ban(self, host: str) -> None:
        with self._run.lock:
            self._banned.add(host)
        self.left(host)
        self.wake_all()

    def giving(self, parent: Parent, index: int, now: float) -> tuple[float, bool]:
        """The rate that others than `parent` usually give (0: unknown), and whether one of them has piece `index`."""
        with self._run.lock:
            others = [p for p in self.parents.values() if p is not parent]
            having = self._run.picker.having(index)
        return usual(p.rate(now) for p in others), any(p.id in having and not p.paused(now) for p in others)

    def wake_all(self) -> None:
        for parent in list(self.parents.values()):
            parent.wake()

    def unreachable(self, host: str) -> None:
        run = self._run
        with run.lock:
            run.reporter.buffer.unreachable(host)
        run.reporter.kick()

    # --- what they are told -----------------------------------------------------------------

    def fresh(self, index: int, found: bytes) -> None:
        """A piece is here now. Under the run's lock; `kick` follows outside it."""
        self._news.append((index, found))

    def lost(self, pieces: Iterable[int]) -> None:
        """What was told of these does not hold any more. Under the run's lock."""
        gone = bitset.of(pieces)
        for parent in self.parents.values():
            parent.untold(gone)
        if self._announcer:
            for index in bitset.members(gone):
                self._announcer.lost(index)

    def kick(self) -> None:
        """There may be something to tell."""
        self._ready.set()

    def heard(self, host: str, items: list[tuple[int, bytes]]) -> None:
        """A neighbour's news, on the connection that it opened to us."""
        run = self._run
        with run.lock:
            parent = self.parents.get(host)
            if host in self._banned or (parent and parent.neighbour.silent):
                return
            run.picker.has(host, [index for index, _ in items])
            if self._announcer:
                self._announcer.has(host, run.picker.holder_bits(host))
                self._ready.set()
            run.told(host, items)
        if parent:
            parent.wake()

    def introduced(self, host: str) -> None:
        """There is a connection to a neighbour now, on which it can be told what is here."""
        run = self._run
        with run.lock:
            parent = self.parents.get(host)
            silent = parent is not None and parent.neighbour.silent
            if self._announcer and not silent:  # it would pass nothing on
                far = parent is not None and parent.abroad
                self._announcer.joined(host, run.picker.holder_bits(host), far=far)
        if self._announcer:
            self._ready.set()
            return
        mine = run.holdings()
        if mine and parent:
            parent.tell(mine)

    def parted(self, parent: Parent) -> None:
        """Its connection is gone; it may come again. One that has a successor has nothing more to say."""
        run, host = self._run, parent.id
        with run.lock:
            if self.parents.get(host, parent) is not parent:
                return
            run.picker.reset(host)
            if self._announcer:
                self._announcer.left(host)
        self._ready.set()
        self.wake_all()

    def deserted(self, host: str) -> None:
        """It has closed the connection that it had opened to us: it needs no more, or it is gone."""
        parent = self.parents.get(host)
        if parent:
            parent.doubt()

    def shown(self, host: str) -> int:
        """The pieces that a neighbour may ask for."""
        run = self._run
        with run.lock:
            if self._announcer and not self._announcer.over and not run.picker.done:
                return self._announcer.may_ask(host)
            return run.picker.have

    def _tell_always(self) -> None:
        """Tells the neighbours what is new here; all that came in meanwhile goes in one message."""
        run = self._run
        while not run.stopping.is_set():
            self._ready.wait(PATIENCE if self._announcer else None)
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
        run = self._run
        with run.lock:
            items, self._news = self._news, []
            parents = list(self.parents.values())
            told = dict.fromkeys(parents, items)
            if self._announcer:
                self._announcer.fresh(index for index, _ in items)
                due = self._announcer.due(time.monotonic())
                told = {p: run.described(due[p.id]) for p in parents if p.id in due}
        for parent, news in told.items():
            if news:
                parent.tell(news)
