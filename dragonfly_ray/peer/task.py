"""One task on one peer: everything that moves while it is being fetched.

Threads, all of them blocking in the kernel most of the time: one a neighbour (`parents`), a few
for the origin (`origin`), one that tells the neighbours what is new here, one that reports to the
scheduler, one that hashes the contiguous prefix where the caller gave a digest, and the one that
sees the task through. The decisions are the picker's and the scheduler's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dragonfly_ray import logs
from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import (
    DragonflyError,
    IntegrityError,
    StorageError,
    StorageFullError,
    TransportError,
)
from dragonfly_ray.model import DIGEST_SIZE, Manifest, PieceTable, Task, digest
from dragonfly_ray.peer.buffers import BufferPool
from dragonfly_ray.peer.delivery import Delivery
from dragonfly_ray.peer.origin import OriginWorkers
from dragonfly_ray.peer.parents import Parent
from dragonfly_ray.peer.prefix import PrefixHash
from dragonfly_ray.peer.record import agrees_with_record, ask_for_places
from dragonfly_ray.peer.reporter import Reporter, SchedulerLink
from dragonfly_ray.peer.words import Words
from dragonfly_ray.scheduling import bits as bitset
from dragonfly_ray.scheduling.announcer import Announcer
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.telemetry import Telemetry
from dragonfly_ray.transport.connection import ParentConnection
from dragonfly_ray.transport.limiter import RateLimiter

log = logging.getLogger(__name__)

THREADS = "task-"
"""Names of a task's threads begin so."""
BAD_PIECES = 2
"""Corrupted pieces from one parent before it is not asked any more."""
LOOK_AGAIN = 1.0
"""Seconds after which whoever waits for another node's output asks, told or not."""
FIRST_PAUSE = 0.1
TOGETHER = 0.005
"""Seconds between two messages to a neighbour: pieces that come faster are told together, which wakes
everybody less often."""
PATIENCE = 0.5
"""Seconds after which whoever gives out fresh pieces looks whether they have arrived."""


@dataclass
class Context:
    """What a peer lends to its tasks."""

    host_id: str
    node_name: str
    node_id: str
    settings: Settings
    store: PieceStore
    pool: BufferPool
    announce: Callable[[str], None]
    """Tells the scheduler of a source everything again: it has forgotten."""
    link: Callable[[str], SchedulerLink]
    """By source id."""
    give_up: Callable[[Task], None]
    """Tells the scheduler, too."""
    ended: Callable[[m.Ended], None]
    finished: Callable[[TaskRun], None]
    telemetry: Telemetry = field(default_factory=Telemetry)

    limiter: RateLimiter = field(default_factory=lambda: RateLimiter(None))
    """Of what all tasks together receive."""
    uploads: Callable[[], int] = lambda: 0
    """How many children are being sent to."""

    def received(self, provenance: str, nbytes: int) -> None:
        """Bytes that came in; waits where a limit says so."""
        if provenance in ("origin", "peers"):
            self.limiter.take(nbytes)
        self.telemetry.count("dragonfly_bytes", nbytes, provenance=provenance)


class TaskRun:
    """Fetches a task, and sees its deliveries through."""

    def __init__(self, context: Context, deliver: m.Deliver, small: bytes | None = None) -> None:
        self.context = context
        self.task: Task = deliver.task
        self.access = deliver
        """For whom the origin is read: with the credentials and within the policy of one distribution."""
        self.grant = deliver.grant
        self.settings = context.settings
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Anything that the main thread or a reader waits for."""
        self.store: TaskStore | None = None
        self.picker = Picker(self.task.pieces)
        self.deliveries: dict[str, Delivery] = {deliver.spec.id: Delivery(deliver)}
        self.parents: dict[str, Parent] = {}
        self.banned: set[str] = set()
        self.started = time.monotonic()
        self.stopping = threading.Event()
        self.error: DragonflyError | None = None
        self.bytes_peers = 0
        self.bytes_cache = 0
        self.bytes_small = 0
        self.provenance: dict[int, str] = {}
        """Piece -> the parent it came from."""
        self.fed: dict[str, int] = {}
        """Parent -> bytes of pieces from it, until they are told to the scheduler."""
        self.words = Words()
        self._first = deliver
        self._small = small
        self._early: list[m.Neighbour] = []
        self._gossip: list[tuple[int, bytes]] = []
        self._gossip_ready = threading.Event()
        self._bad: dict[str, int] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._settled = False
        """An output that another node was at may be there."""
        self._reporting = self._fetching = False
        """What has been started."""
        self.origin: OriginWorkers | None = None
        self.announcer = Announcer(self.task.pieces) if deliver.sole else None
        """Whom to tell of what, while this peer alone reads the origin."""
        self.prefix: PrefixHash | None = None
        self.reporter = Reporter(self, context.link(self.task.source_id), deliver.interval)

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        self._spawn("main", self._main)

    def _thread_name(self, name: str) -> str:
        """Log lines are prefixed with it, so that each tells its task."""
        return f"{THREADS}{self.task.id[:12]}-{name}"

    def _spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(
            target=self._as_ours, args=(target,), name=self._thread_name(name), daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return thread

    def _as_ours(self, work: Callable[[], None]) -> None:
        with logs.about(task_id=self.task.id):
            work()

    def add(self, deliver: m.Deliver) -> bool:
        """Another distribution of the same task, or the same one again after the scheduler's restart.

        False if this run takes no more: it is about to end.
        """
        with self.lock:
            if self._closed or self.idle():
                return False
            if deliver.spec.id not in self.deliveries:
                self.deliveries[deliver.spec.id] = Delivery(deliver)
            self.grant = deliver.grant
            if deliver.may_claim and not self.access.may_claim:
                self._read_for(deliver)
            self.changed.notify_all()
        for neighbour in deliver.neighbours:
            self._meet(neighbour)
        if self.origin:
            self.origin.allow(deliver.may_claim, deliver.not_before, deliver.connections)
            self.origin.leased(deliver.lease)
        return True

    def _read_for(self, deliver: m.Deliver) -> None:
        """Under the lock."""
        self.access = deliver
        if self.origin:
            self.origin.reopen()

    def _main(self) -> None:
        failure: DragonflyError | None = None
        try:
            with self.context.store.open(self.task, self._manifest()).using():
                self._run()
        except DragonflyError as error:
            failure = error
        except Exception as error:
            log.exception("task %.12s failed", self.task.id)
            failure = DragonflyError(f"{self.context.node_name}: {type(error).__name__}: {error}")
        if failure:
            self._fail_all(failure)
        self._shut()
        if isinstance(failure, StorageFullError):
            self.context.give_up(self.task)  # what a full disk could not take whole is of no use there
        self.context.finished(self)

    def _run(self) -> None:
        store = self.context.store.get(self.task.id)
        assert store is not None
        self._refuse()
        if self.idle():
            return
        edited = store.refresh()
        if edited:
            log.warning("task %.12s: %d pieces were edited through an output", self.task.id, len(edited))
        with self.lock:
            self.store = store
            self.reporter.news.lost = edited
            self.picker.have = bitset.from_bytes(store.have(), self.task.pieces)
            self.bytes_cache = sum(store.table[i].length for i in bitset.members(self.picker.have))
            self.context.received("cache", self.bytes_cache)
            self.reporter.news.got = list(bitset.members(self.picker.have))
            self.words = Words({i: d for i, d in enumerate(store.digests) if d is not None})
        self._take_small()
        self.origin = OriginWorkers(
            self, self._first.may_claim, self._first.not_before, self._first.connections
        )
        wanted = next((d.spec.digest for d in list(self.deliveries.values()) if d.spec.digest), "")
        if wanted:
            self.prefix = PrefixHash(self, wanted)
            self._spawn("prefix", self.prefix.run)
        while not self._complete(store):
            self._begin_fetching()
            with self.lock:
                while not (self.picker.done or self.error or self.idle()):
                    self.changed.wait(1.0)
                if self.error:
                    raise self.error
                if self.idle():
                    return
        log.info("task %.12s: all pieces are here after %.2f s", self.task.id, self._elapsed())
        store.finish()
        self._gossip_ready.set()
        while True:
            with self.lock:
                waiting = [d for d in self.deliveries.values() if not d.over]
                if not waiting:
                    self._closed = True
                    return
            for delivery in waiting:
                self._deliver(delivery, store)
            if any(not d.over for d in waiting):
                if self.stopping.is_set():
                    return
                self._begin_reporting()
                self._wait_for_turn()

    def _complete(self, store: TaskStore) -> bool:
        """All is here and vouched for: by the delivery itself, or by the scheduler's record."""
        if not self.picker.done:
            return False
        if self._as_delivered(store):
            return True
        self._begin_reporting()
        return agrees_with_record(self)

    def _begin_fetching(self) -> None:
        if self._fetching or self.picker.done:
            return
        self._fetching = True
        assert self.origin is not None
        self._begin_reporting()
        self._spawn("gossip", self._gossip_loop)
        self.origin.leased(self._first.lease)
        self.origin.start(self._spawn)
        for neighbour in self._neighbours():
            self._meet(neighbour)

    def _begin_reporting(self) -> None:
        """Not before it is of use: where all came with the delivery, the outcome says enough."""
        if not self._reporting:
            self._reporting = True
            self._spawn("report", self.reporter.run)

    def _refuse(self) -> None:
        """Outputs that are not allowed here, before anything is fetched for them."""
        for delivery in list(self.deliveries.values()):
            if delivery.spec.dest and not delivery.helper:
                try:
                    delivery.destination(self.context)
                except DragonflyError as error:
                    self._end(delivery, error)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _as_delivered(self, store: TaskStore) -> bool:
        """The record itself came with the delivery (small content), and all of it agrees."""
        said = self._first.digests
        return bool(said) and said == b"".join(d or b"" for d in store.digests)

    def idle(self) -> bool:
        """Nobody waits for this task any more."""
        return self.stopping.is_set() or all(d.over for d in self.deliveries.values())

    def _shut(self) -> None:
        with self.lock:
            self._closed = True
        self._gossip_now()
        self.stopping.set()
        self._gossip_ready.set()
        self.reporter.kick()
        with self.lock:
            parents = list(self.parents.values())
            self.changed.notify_all()
        if self.origin:
            self.origin.stop()
        for parent in parents:
            parent.stop()
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me:
                thread.join(timeout=15)
        if self.origin:
            self.origin.close()
        if self.reporter.pending:
            try:
                self.reporter.report(claim=False)
            except DragonflyError:
                log.info("task %.12s: last report not delivered", self.task.id)

    def stop(self) -> None:
        """Ends it without an outcome: the peer is shutting down."""
        self.stopping.set()
        with self.lock:
            self.changed.notify_all()

    def cancel(self, spec_id: str, kind: str, message: str) -> None:
        with self.lock:
            delivery = self.deliveries.get(spec_id)
            if delivery:
                delivery.over = True
            over = self.idle()
            if not over and self.access.spec.id == spec_id:
                left = [d.message for d in self.deliveries.values() if not d.over]
                self._read_for(next((d for d in left if d.may_claim), left[0]))
            self.changed.notify_all()
        if over:
            self.stopping.set()
            if self.origin:
                self.origin.stop()
            for parent in list(self.parents.values()):
                parent.stop()

    # --- the manifest -----------------------------------------------------------------------

    def _manifest(self) -> Manifest:
        known = self.context.store.get(self.task.id)
        if known is not None:
            return known.manifest
        data = self._first.manifest or self._fetch_manifest()
        if digest(data) != self.task.manifest_digest:
            raise IntegrityError(f"{self.task.url}: the manifest does not match its digest")
        manifest = Manifest.decode(data)
        if len(PieceTable.of(manifest)) != self.task.pieces:
            raise IntegrityError(f"{self.task.url}: the manifest is cut in another way here")
        return manifest

    def _fetch_manifest(self) -> bytes:
        """From any neighbour that has it."""
        failure: DragonflyError | None = None
        deadline = time.monotonic() + self.settings.origin.give_up
        while time.monotonic() < deadline and not self.stopping.is_set():
            for neighbour in [n for n in self._neighbours() if n.manifest]:
                try:
                    connection = self.connect(neighbour)
                    try:
                        data = connection.manifest(self.task.manifest_size)
                    finally:
                        connection.close()
                    if digest(data) == self.task.manifest_digest:
                        return data
                    failure = IntegrityError(f"{neighbour.host.name}: sent another manifest")
                except DragonflyError as error:
                    failure = error
            self.stopping.wait(0.1)
        raise failure or TransportError(f"{self.task.url}: nobody has the manifest")

    def connect(self, neighbour: m.Neighbour) -> ParentConnection:
        return ParentConnection.open(
            neighbour.host.endpoints, self.task.id, self.context.host_id, self.grant, self.settings.transport
        )

    # --- pieces in --------------------------------------------------------------------------

    def _take_small(self) -> None:
        """Content that came with the delivery."""
        content = self._small if self._small is not None else self._first.content
        if not content or self.picker.done:
            return
        view, expected = memoryview(content), self._first.digests
        for piece in self.table():
            if self.picker.have >> piece.index & 1:
                continue
            part = view[piece.offset : piece.offset + piece.length]
            found = digest(part)
            if expected and found != expected[piece.index * DIGEST_SIZE : (piece.index + 1) * DIGEST_SIZE]:
                raise IntegrityError(f"{self.task.url}: piece {piece.index} arrived corrupted")
            self._keep(piece.index, part, found)
            self.bytes_small += piece.length
            self.context.received("object-store", piece.length)
            if not expected:
                self.reporter.news.origin.append((piece.index, found))

    def table(self) -> PieceTable:
        assert self.store is not None
        return self.store.table

    def from_origin(self, index: int, view: memoryview) -> None:
        """A piece read from the origin."""
        found = digest(view)
        assert self.store is not None
        with self.lock:
            self.reporter.news.origin.append((index, found))
            self.words.mine(index, found)
            other = self.store.has(index) and self.store.digests[index] != found
        if other:
            self.settle([(index, found)])
        self._keep(index, view, found)

    def from_parent(
        self, host: str, index: int, said: bytes, view: memoryview, corrupt: Callable[[int], None]
    ) -> bool:
        """A piece from a parent; False if it is not what was promised, or not what the record says.

        A parent is accused for what it said itself only, never for what others say; `corrupt` tells it.
        """
        found = digest(view)
        with self.lock:
            kept = found == said and self.words.keeps(host, index, said)
            if kept and not self._told(host, index, said):
                return False
        if not kept:
            try:
                # Before the complaint, or the ban that follows may close the way to tell it.
                corrupt(index)
            finally:
                self.accuse(host, index)
            return False
        self._keep(index, view, found, parent=host)
        return True

    def from_cache(self, host: str, index: int) -> bool:
        """The same bytes as the parent `host` would send, if any task of this node has them."""
        wanted = self.words.likely(index)
        found = self.context.store.find(wanted) if wanted else None
        if found is None or self.store is None or found[0] is self.store:
            return False
        other, place = found
        try:
            with other.using():
                self.store.copy_from(other, place, index)
        except (StorageError, IntegrityError, KeyError):
            return False
        with self.lock:
            self.bytes_cache += self.store.table[index].length
        self.context.received("cache", self.store.table[index].length)
        self._arrived(index, wanted or b"", host)
        return True

    def _keep(self, index: int, view: memoryview, found: bytes, *, parent: str = "") -> None:
        """Stores a verified piece, unless it is here already."""
        assert self.store is not None
        if self.store.has(index):
            return
        try:
            self.store.put(index, view, found)
        except DragonflyError as error:
            self.fail(error)
            raise
        if parent:
            with self.lock:
                # Before it counts as here: with the last piece the account is closed.
                self.bytes_peers += len(view)
                self.provenance[index] = parent
                self.fed[parent] = self.fed.get(parent, 0) + len(view)
        self._arrived(index, found, parent)

    def _arrived(self, index: int, found: bytes, asked: str) -> None:
        """`asked`: the parent that was asked for it, and need not be told that it is here."""
        self.context.telemetry.count("dragonfly_pieces")
        with self.lock:
            unwanted = [p for h in self.picker.got(index, asked) if (p := self.parents.get(h))]
            self.reporter.news.got.append(index)
            self._gossip.append((index, found))
            done = self.picker.done
            if done or self._readers:
                self.changed.notify_all()
        self._gossip_ready.set()
        for each in unwanted:
            each.cancel(index)
        if done:
            self.reporter.kick()
            for parent in list(self.parents.values()):
                parent.wake()
        if self.prefix:
            self.prefix.advance()

    _readers = 0

    def accuse(self, host: str, index: int) -> None:
        log.warning("task %.12s: piece %d from %s does not match its digest", self.task.id, index, host)
        with self.lock:
            self.picker.refused(host, index)
            self.reporter.news.bad.append(host)
            self._bad[host] = self._bad.get(host, 0) + 1
            give_up = self._bad[host] >= BAD_PIECES
        self.reporter.kick()
        if give_up:
            self._ban(host)

    def _ban(self, host: str) -> None:
        with self.lock:
            self.banned.add(host)
            parent = self.parents.pop(host, None)
            self.picker.left(host)
        if parent:
            parent.stop()
        self.wake_all()

    def accused(self, index: int) -> None:
        """A child says that piece `index` is bad here. It may be right."""
        name = self._thread_name(f"recheck{index}")
        threading.Thread(target=self._look_again, args=(index,), name=name, daemon=True).start()

    def _look_again(self, index: int) -> None:
        if self.store and self.store.has(index) and not self.store.recheck(index):
            self.discarded([index])

    def discarded(self, pieces: Iterable[int]) -> None:
        """Pieces that are not what they should be: fetch them again."""
        pieces = list(pieces)
        with self.lock:
            for parent in self.parents.values():
                parent.untold(bitset.of(pieces))
            for index in pieces:
                self.picker.lost(index)
                if self.announcer:
                    self.announcer.lost(index)
                self.provenance.pop(index, None)
                self.reporter.news.lost.append(index)
        self._start_parents()
        self.wake_all()
        self.reporter.kick()

    # --- neighbours -------------------------------------------------------------------------

    def _neighbours(self) -> list[m.Neighbour]:
        """Those known before the manifest is here."""
        with self.lock:
            return [*self._first.neighbours, *self._early]

    def _meet(self, neighbour: m.Neighbour) -> None:
        """Connects to a neighbour, or to its new incarnation."""
        host = neighbour.host.id
        with self.lock:
            if host == self.context.host_id or host in self.banned or self.stopping.is_set():
                return
            if self.store is None:
                self._early.append(neighbour)
                return
            old = self.parents.get(host)
            if old and old.neighbour.host == neighbour.host:
                if old.neighbour.silent == neighbour.silent:
                    return
                if neighbour.silent:
                    old.neighbour = neighbour
                    self.picker.left(host)
                    if self.announcer:
                        self.announcer.left(host)
                    return
            if old:
                old.stop()
            self.parents[host] = Parent(self, neighbour)
        self._start_parents()

    def _start_parents(self) -> None:
        """Those that have nothing to do yet wait until something is missing, maybe again."""
        with self.lock:
            if self.picker.done or self.stopping.is_set():
                return
            waiting = [p for p in self.parents.values() if not p.running]
            for parent in waiting:
                parent.running = True
        for parent in waiting:
            self._spawn(f"parent-{parent.id[:8]}", parent.run)

    def heard(self, host: str, items: list[tuple[int, bytes]]) -> None:
        """A neighbour's news, on the connection that it opened to us."""
        with self.lock:
            parent = self.parents.get(host)
            if host in self.banned or (parent and parent.neighbour.silent):
                return
            self.picker.has(host, [index for index, _ in items])
            if self.announcer:
                self.announcer.has(host, self.picker.holder_bits(host))
                self._gossip_ready.set()
            self.told(host, items)
        if parent:
            parent.wake()

    def told(self, host: str, items: Iterable[tuple[int, bytes]]) -> None:
        """What a neighbour says that pieces' digests are. Under the lock."""
        disputed = len(self.words.disputed)
        for index, said in items:
            if 0 <= index < self.task.pieces:
                self._told(host, index, said)
        if len(self.words.disputed) > disputed:
            self.reporter.kick()

    def _told(self, host: str, index: int, said: bytes) -> bool:
        """False: the record says otherwise, and nobody should ask it for that."""
        if self.words.say(host, index, said):
            return True
        self.picker.refused(host, index)
        self.reporter.news.misled.append((host, index))
        self.reporter.kick()
        return False

    def settle(self, record: Iterable[tuple[int, bytes]]) -> None:
        """The record's digests of some pieces: what is not so here is dropped, and fetched again."""
        wrong = []
        with self.lock:
            store = self.store
            if store is None:
                return
            for index, said in record:
                if not 0 <= index < self.task.pieces:
                    continue
                misled = set(self.words.settle(index, said))
                if store.has(index) and store.digests[index] != said:
                    wrong.append(index)
                    misled.update(filter(None, [self.provenance.get(index)]))
                for host in misled:
                    self.picker.refused(host, index)
                    self.reporter.news.misled.append((host, index))
        for index in wrong:
            log.warning("task %.12s: piece %d is not what the record says, dropped", self.task.id, index)
            store.discard(index)
        if wrong:
            self.discarded(wrong)
        self.reporter.kick()

    def wake_all(self) -> None:
        for parent in list(self.parents.values()):
            parent.wake()

    def holdings(self) -> list[tuple[int, bytes]]:
        return self._described(self.picker.have)

    def unreachable(self, host: str) -> None:
        with self.lock:
            if host not in self.reporter.news.unreachable:
                self.reporter.news.unreachable.append(host)
        self.reporter.kick()

    def introduced(self, host: str) -> None:
        """There is a connection to a neighbour now, on which it can be told what is here."""
        with self.lock:
            parent = self.parents.get(host)
            silent = parent is not None and parent.neighbour.silent
            if self.announcer and not silent:  # it would pass nothing on
                self.announcer.joined(host, self.picker.holder_bits(host))
        if self.announcer:
            self._gossip_ready.set()
            return
        mine = self.holdings()
        if mine and parent:
            parent.tell(mine)

    def parted(self, host: str) -> None:
        """The connection is gone; it may come again."""
        with self.lock:
            self.picker.reset(host)
            if self.announcer:
                self.announcer.left(host)
        self._gossip_ready.set()
        self.wake_all()

    def shown(self, host: str) -> int:
        """The pieces that a neighbour may ask for."""
        with self.lock:
            if self.announcer and not self.announcer.over and not self.picker.done:
                return self.announcer.may_ask(host)
            return self.picker.have

    def _gossip_loop(self) -> None:
        """Tells the neighbours what is new here; all that came in meanwhile goes in one message."""
        while not self.stopping.is_set():
            self._gossip_ready.wait(PATIENCE if self.announcer else None)
            self._gossip_ready.clear()
            self._gossip_now()
            self.stopping.wait(TOGETHER)

    def _gossip_now(self) -> None:
        with self.lock:
            items, self._gossip = self._gossip, []
            parents = list(self.parents.values())
            told = dict.fromkeys(parents, items)
            if self.announcer:
                self.announcer.fresh(index for index, _ in items)
                due = self.announcer.due(time.monotonic())
                told = {p: self._described(due[p.id]) for p in parents if p.id in due}
        for parent, news in told.items():
            if news:
                parent.tell(news)

    def _described(self, pieces: int) -> list[tuple[int, bytes]]:
        assert self.store is not None
        digests = self.store.digests
        return [(i, d) for i in bitset.members(pieces) if (d := digests[i]) is not None]

    # --- the scheduler ----------------------------------------------------------------------

    def on_news(self, news: m.News) -> None:
        """Pushed by the scheduler."""
        for host in news.left:
            with self.lock:
                parent = self.parents.pop(host, None)
                self.picker.left(host)
            if parent:
                parent.stop()
        for host in news.banned:
            self._ban(host)
        for neighbour in news.joined:
            self._meet(neighbour)
        if self.origin:
            self.origin.allow(news.may_claim, news.not_before, news.connections)
            if news.revoked:
                self.origin.revoked(news.revoked)
        if news.discard and self.store:
            for index in news.discard:
                if self.store.has(index):
                    self.store.discard(index)
                with self.lock:
                    self.words.forget(index)
            self.discarded(news.discard)
        if news.record:
            self.settle(news.record)
        if news.left or news.banned:
            self.wake_all()
        if news.settled:
            with self.lock:
                self._settled = True
                self.changed.notify_all()

    # --- the end ----------------------------------------------------------------------------

    def places(self) -> tuple[tuple[str, str], ...]:
        """(spec id, place) of the outputs that other nodes may write too, as long as that is open."""
        with self.lock:
            due = [d for d in self.deliveries.values() if d.checked and not d.over]
        return tuple((d.spec.id, place) for d in due if (place := d.undecided(self.context)))

    def placed(self, places: Iterable[tuple[str, str]], answer: m.Verified) -> None:
        """The scheduler has said who writes these."""
        other = {e.spec_id: e for e in answer.elsewhere}
        for spec_id, _ in places:
            self.deliveries[spec_id].decided(other.get(spec_id))

    def _wait_for_turn(self) -> None:
        """Until another node may have written what is due here."""
        with self.lock:
            due = [d for d in self.deliveries.values() if not d.over]
            if all(d.told for d in due) and not self._settled:
                self.changed.wait(max(LOOK_AGAIN, 10 * self.reporter.interval))
            self._settled = False
            if self.idle():
                return
        if not ask_for_places(self):
            self.stopping.wait(FIRST_PAUSE)

    def _deliver(self, delivery: Delivery, store: TaskStore) -> None:
        try:
            if not delivery.checked:
                # This one may have joined a run that had no digest to compute.
                prefix = self.prefix or PrefixHash(self, delivery.spec.digest)
                prefix.check(delivery.spec.digest)
                delivery.checked = True
            if delivery.publish(self.context, store):
                self._end(delivery, None)
        except DragonflyError as error:
            self._end(delivery, error)

    def _fail_all(self, error: DragonflyError) -> None:
        with self.lock:
            self._closed = True
            deliveries = list(self.deliveries.values())
        for delivery in deliveries:
            if not delivery.over:
                self._end(delivery, error)

    def fail(self, error: DragonflyError) -> None:
        """The task cannot go on here."""
        with self.lock:
            if self.error is None:
                self.error = error
            self.changed.notify_all()

    def _end(self, delivery: Delivery, error: DragonflyError | None) -> None:
        delivery.over = True
        if delivery.helper:
            return
        if error is None:
            with self.lock:
                self.reporter.news.got.clear()  # the outcome says that all of it is here
        if self.reporter.pending:
            try:
                self.reporter.report(claim=False)
            except DragonflyError:
                log.info("task %.12s: report before the end not delivered", self.task.id)
        outcome = f"failed ({error.kind})" if error else f"at {delivery.path}"
        log.info(
            "task %.12s: %s after %.2f s", self.task.id, outcome, self._elapsed(),
            extra=logs.about_spec(delivery.spec.id, self.task.id),
        )  # fmt: skip
        self.context.ended(
            m.Ended(
                host_id=self.context.host_id,
                spec_id=delivery.spec.id,
                task_id=self.task.id,
                ok=error is None,
                path=str(delivery.path or ""),
                size=self.task.size,
                seconds=self._elapsed(),
                bytes_origin=self.origin.bytes if self.origin else 0,
                bytes_peers=self.bytes_peers,
                bytes_cache=self.bytes_cache,
                bytes_small=self.bytes_small,
                merged=delivery.merged,
                kind=error.kind if error else "",
                message=str(error) if error else "",
                place=delivery.place,
                stamp=delivery.stamp,
                written_by=delivery.written_by,
            )
        )

    # --- readers ----------------------------------------------------------------------------

    def await_pieces(self, pieces: range, timeout: float) -> bool:
        """Blocks until these pieces are here, and fetches them first. False: not within `timeout`."""
        deadline = time.monotonic() + timeout
        wanted = bitset.of(pieces)
        with self.lock:
            self._readers += 1
            missing = [p for p in pieces if not self.picker.have >> p & 1]
            self.picker.urgent = missing + [p for p in self.picker.urgent if p not in missing]
            try:
                while self.picker.have & wanted != wanted:
                    left = deadline - time.monotonic()
                    if self.error or self.stopping.is_set() or left <= 0:
                        return False
                    self.changed.wait(left)
            finally:
                self._readers -= 1
                self.picker.urgent = [p for p in self.picker.urgent if p not in missing]
        return True
