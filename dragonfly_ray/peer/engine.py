"""The download engine of one task with what it works on: its lock and threads, its store, its connections.

Every loop tells it what happened; it has the state decide, and carries out what that wants.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import ParamSpec, Protocol

from dragonfly_ray import bitset
from dragonfly_ray.errors import DragonflyError, IntegrityError, StorageError, TransportError
from dragonfly_ray.model import PieceTable, Task, digest
from dragonfly_ray.peer.services import PeerServices
from dragonfly_ray.peer.supervisor import Supervisor
from dragonfly_ray.scheduling.download.effects import (
    Cancel,
    Close,
    Complain,
    ConnectionId,
    Effects,
    Report,
    Tell,
    Wake,
)
from dragonfly_ray.scheduling.download.parent_state import RequestLimits
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.transport.parent_connection import Data

log = logging.getLogger(__name__)

P = ParamSpec("P")


class Link(Protocol):
    """A connection to a parent."""

    def wake(self) -> None: ...

    def cancel(self, index: int) -> None: ...

    def complain(self, index: int) -> None:
        """Raises `TransportError`."""

    def tell(self, items: list[tuple[int, bytes]], *, last: bool) -> None: ...


class Hosts(Protocol):
    """Those that pieces come from, connected or not."""

    def close(self, host: str) -> None:
        """Ends whatever is done with it."""

    def lost(self) -> None:
        """Some of what they were told does not hold any more. Under the lock."""

    def start(self) -> None:
        """Something is missing, maybe again."""


class Engine(Supervisor):
    """The state is read and changed under the lock; `happened` does both, and carries out what follows."""

    def __init__(self, context: PeerServices, task: Task, state: DownloadState) -> None:
        super().__init__(task, context.node_name)
        self.context = context
        self.settings = context.settings
        self.state = state
        self.opened: TaskStore | None = None
        """The store, once the manifest is here."""
        self.was_here = False
        """All of it lay in the store, finished, when it was asked for."""
        self.report_now = threading.Event()
        self.tell_now = threading.Event()
        """There may be something to tell the neighbours."""
        self.hosts: Hosts
        self.followers: list[Callable[[], None]] = []
        """Called when a piece has come."""
        self._links: dict[ConnectionId, Link] = {}
        self._numbers = itertools.count(1)
        self._readers = 0
        """Who waits for some of the pieces first."""

    @property
    def picker(self) -> Picker:
        """To be read only."""
        return self.state.picker

    @property
    def store(self) -> TaskStore:
        assert self.opened is not None
        return self.opened

    @property
    def table(self) -> PieceTable:
        return self.store.table

    def open(self, store: TaskStore) -> None:
        """What was edited through an output is missing from now on."""
        edited = tuple(store.refresh())
        if edited:
            log.warning(
                "task %.12s: %d pieces were modified through an output file", self.task.id, len(edited)
            )
        with self.lock:
            self.opened = store
            self.was_here = store.finished
            have = bitset.from_bytes(store.have(), self.task.pieces)
            known = tuple((i, d) for i, d in enumerate(store.digests) if d is not None)
            cached = sum(store.table[i].length for i in bitset.members(have))
            transport = self.settings.transport
            limits = RequestLimits.of(
                self.task.size, store.table.leaf, transport.request_bytes, transport.pipeline
            )
            self.state.opened(limits, have, known, edited, cached)
        self.context.received("cache", cached)

    # --- what happens, and what follows -----------------------------------------------------

    def happened(self, event: Callable[P, Effects | None], *args: P.args, **kwargs: P.kwargs) -> None:
        """An event of the state's. Raises `TransportError` where a complaint cannot be told, after all the rest."""
        with self.lock:
            effects = event(*args, **kwargs)
        if effects:
            self.carry_out(effects)

    def carry_out(self, effects: Effects) -> None:
        """In order. Outside the lock. Raises as `happened`."""
        failure: TransportError | None = None
        for each in effects:
            match each:
                case Report():
                    self.report_now.set()
                case Wake():
                    self.wake_all()
                case Close(host):
                    self.hosts.close(host)
                case Cancel(connection, piece):
                    if link := self._links.get(connection):
                        link.cancel(piece)
                case Tell(connection, pieces, last):
                    if link := self._links.get(connection):
                        link.tell(self.described(pieces), last=last)
                case Complain(connection, piece):
                    try:
                        if link := self._links.get(connection):
                            link.complain(piece)
                    except TransportError as error:
                        failure = error
        if failure:
            raise failure

    def wake_all(self) -> None:
        for link in list(self._links.values()):
            link.wake()

    def connected(self, link: Link) -> ConnectionId:
        """The key of a new connection. Under the lock."""
        number = next(self._numbers)
        self._links[number] = link
        return number

    def disconnected(self, number: ConnectionId) -> None:
        with self.lock:
            self._links.pop(number, None)
        self.tell_now.set()
        self.happened(self.state.disconnected, number, time.monotonic())

    # --- pieces -----------------------------------------------------------------------------

    def from_origin(self, index: int, view: memoryview) -> None:
        """A piece read from the origin."""
        found = digest(view)
        with self.lock:
            here = (self.store.has(index) and self.store.digests[index]) or b""
            differs = self.state.origin_read(index, found, here)
        if differs:
            self.settle([(index, found)])
        self._keep(index, view, found)

    def from_parent(self, connection: ConnectionId, host: str, data: Data, rate: float, now: float) -> None:
        """A piece from a parent, at `rate` bytes a second, at `now`."""
        index, here = data.index, bool(self.picker.have >> data.index & 1)
        found, said = (b"", b"") if here else (digest(data.view), data.digest)
        with self.lock:
            verdict, effects = self.state.answered(connection, index, said, found, rate, now)
        if verdict == "corrupt":
            log.warning("task %.12s: piece %d from %s does not match its digest", self.task.id, index, host)
        self.carry_out(effects)
        if verdict == "keep" and not here:
            self._keep(index, data.view, found, parent=host)

    def from_cache(self, connection: ConnectionId, index: int) -> bool:
        """The same bytes as a parent would send, if any task of this node has them."""
        wanted = self.state.claims.likely(index)
        found = self.context.store.find(wanted) if wanted else None
        if found is None or found[0] is self.store:
            return False
        other, place = found
        try:
            with other.using():
                copied = self.store.copy_from(other, place, index)
        except (StorageError, IntegrityError, KeyError):
            return False
        length = self.table[index].length if copied else 0
        self.context.received("cache", length)
        self.arrived(self.state.cached, connection, index, length, time.monotonic())
        return True

    def _keep(self, index: int, view: memoryview, found: bytes, *, parent: str = "") -> None:
        """Stores a verified piece, unless it is here already."""
        if self.put(index, view, found):
            self.arrived(self.state.stored, index, parent, len(view), time.monotonic())

    def put(self, index: int, view: memoryview, found: bytes) -> bool:
        """Whether it was not here: of two threads that have the same piece, one stores it and says so."""
        try:
            return self.store.put(index, view, found)
        except DragonflyError as error:
            self.fail(error)
            raise

    def arrived(self, event: Callable[P, Effects], *args: P.args, **kwargs: P.kwargs) -> None:
        """A piece is in the store; `event` says so."""
        self.context.telemetry.count("dragonfly_pieces")
        with self.lock:
            effects = event(*args, **kwargs)
            if self.picker.done or self._readers:
                self.changed.notify_all()
        self.tell_now.set()
        self.carry_out(effects)
        for advance in self.followers:
            advance()

    def discarded(self, pieces: Iterable[int]) -> None:
        """Pieces that are not what they should be: fetch them again."""
        with self.lock:
            effects = self.lost(tuple(pieces))
        self.hosts.start()
        self.carry_out(effects)

    def lost(self, pieces: tuple[int, ...]) -> Effects:
        """Under the lock."""
        self.was_here = False
        self.hosts.lost()
        return self.state.lost(pieces)

    def settle(self, record: Iterable[tuple[int, bytes]]) -> None:
        """The record's digests of some pieces: what is not so here is dropped, and fetched again."""
        with self.lock:
            store = self.opened
            if store is None:
                return
            digests = store.digests
            wrong, effects = self.state.settled(
                tuple(
                    (index, said, (store.has(index) and digests[index]) or b"")
                    for index, said in record
                    if 0 <= index < self.task.pieces
                )
            )
        for index in wrong:
            log.warning(
                "task %.12s: piece %d does not match the scheduler's record, dropped", self.task.id, index
            )
            store.discard(index)
        if wrong:
            self.discarded(wrong)
        self.carry_out(effects)

    def described(self, pieces: int) -> list[tuple[int, bytes]]:
        """With their digests."""
        digests = self.store.digests
        return [(i, d) for i in bitset.members(pieces) if (d := digests[i]) is not None]

    def survey(self) -> bool:
        """Whether all is in the store; what the disk has lost meanwhile is fetched again."""
        self.store.survey()
        if self.store.complete:
            return True
        with self.lock:
            lost = self.picker.have & ~bitset.from_bytes(self.store.have(), self.task.pieces)
        self.discarded(bitset.members(lost))
        return False

    # --- readers ----------------------------------------------------------------------------

    def await_pieces(self, pieces: range, timeout: float) -> bool:
        """Blocks until these pieces are here, and fetches them first. False: not within `timeout`."""
        deadline = time.monotonic() + timeout
        wanted = bitset.of(pieces)
        with self.lock:
            self._readers += 1
            missing = tuple(p for p in pieces if not self.picker.have >> p & 1)
            self.state.hurry(missing)
            try:
                while self.picker.have & wanted != wanted:
                    left = deadline - time.monotonic()
                    if self.over or left <= 0:
                        return False
                    self.changed.wait(left)
            finally:
                self._readers -= 1
                self.state.hurried(missing)
        return True
