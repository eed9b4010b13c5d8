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
from typing import ParamSpec

from dragonfly_ray import bitset, logs
from dragonfly_ray import messages as m
from dragonfly_ray.checksums import offers_any
from dragonfly_ray.errors import (
    DragonflyError,
    GrantError,
    IntegrityError,
    StorageError,
    StorageFullError,
    TransportError,
)
from dragonfly_ray.model import DIGEST_SIZE, PieceTable, Task, digest
from dragonfly_ray.peer.audit import AuditReader
from dragonfly_ray.peer.checksums import OriginChecksums
from dragonfly_ray.peer.context import Context
from dragonfly_ray.peer.deliveries import Deliveries
from dragonfly_ray.peer.manifests import manifest_of
from dragonfly_ray.peer.neighbours import Neighbours
from dragonfly_ray.peer.origin import OriginWorkers
from dragonfly_ray.peer.prefix import PrefixHash
from dragonfly_ray.peer.record import agrees_with_record
from dragonfly_ray.peer.reporter import Reporter
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
from dragonfly_ray.scheduling.download.parent_state import NeighbourInfo, RequestLimits
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.transport.connection import Caller, Data, ParentConnection

log = logging.getLogger(__name__)

P = ParamSpec("P")

THREADS = "task-"
"""Names of a task's threads begin so."""
SHARE = 256
"""A request asks for at most this share of the content, so that no piece waits long behind others."""


class TaskRun:
    """Fetches a task, and sees its deliveries through."""

    def __init__(self, context: Context, deliver: m.Deliver, small: bytes | None = None) -> None:
        self.context = context
        self.task: Task = deliver.task
        self.access = deliver
        """For whom the origin is read: with the credentials and within the policy of one distribution."""
        self.grant = deliver.grant
        """The newest: for connections from now on."""
        self.settings = context.settings
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Anything that the main thread or a reader waits for."""
        self.store: TaskStore | None = None
        seeder = SuperSeeder(self.task.pieces) if deliver.sole else None
        self.state = DownloadState(
            Picker(self.task.pieces),
            RequestLimits(),
            host=context.host_id,
            zone=context.zone,
            location=context.location,
            seeder=seeder,
            now=time.monotonic(),
            recorded=True,
        )
        """What is decided. Under the lock."""
        self.state.met(context.host_id, NeighbourInfo(importer=deliver.importer))
        self.deliveries = Deliveries(self, deliver)
        self.neighbours = Neighbours(self, deliver)
        self.started = time.monotonic()
        self.stopping = threading.Event()
        self.error: DragonflyError | None = None
        self._first = deliver
        self._small = small
        self._threads: list[threading.Thread] = []
        self._readers = 0
        """Who waits for some of the pieces first."""
        self._reporting = self._fetching = False
        """What has been started."""
        self.origin: OriginWorkers | None = None
        self.audits = AuditReader(self)
        self._early: list[tuple[float, m.Deliver | m.News]] = []
        """What came while the task opens, and when."""
        self.prefix: PrefixHash | None = None
        self.checksums: OriginChecksums | None = None
        self.was_here = False
        """All of it lay in the store, finished, when it was asked for."""
        self.dropped = False
        """What the origin gave is not what it offers: nothing of it is kept here."""
        self.superseded = False
        """The origin has other content by now. What is here in part is of no use, and may be of both."""
        self.reporter = Reporter(self, context.link(self.task.source_id), deliver.interval)

    @property
    def picker(self) -> Picker:
        return self.state.picker

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        self.spawn("main", self._main)

    def _thread_name(self, name: str) -> str:
        """Log lines are prefixed with it, so that each tells its task."""
        return f"{THREADS}{self.task.id[:12]}-{name}"

    def spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(
            target=self._as_ours, args=(target,), name=self._thread_name(name), daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return thread

    def _as_ours(self, work: Callable[[], None]) -> None:
        """No thread ends for a reason that nobody expected without the task failing for it: else it hangs."""
        with logs.about(task_id=self.task.id):
            try:
                work()
            except DragonflyError as error:
                self.fail(error)
            except Exception as error:
                log.exception("task %.12s: a thread ended unexpectedly", self.task.id)
                self.fail(self._unexpected(error))

    def _unexpected(self, error: Exception) -> DragonflyError:
        """Without its text, which may hold anything; the log has it."""
        where = threading.current_thread().name.removeprefix(self._thread_name(""))
        return DragonflyError(
            f"{self.context.node_name}: {self.task.url}: {where} ended unexpectedly"
            f" ({type(error).__name__}); see the peer's log"
        )

    def add(self, deliver: m.Deliver) -> bool:
        """Another distribution of the same task, or the same one again after the scheduler's restart.

        False if this run takes no more: it is about to end.
        """
        with self.lock:
            if self.deliveries.closed or self.idle():
                return False
            self.deliveries.add(deliver)
            self.state.met(self.context.host_id, NeighbourInfo(importer=deliver.importer))
            self.granted(deliver.grant)
            if deliver.may_claim and not self.access.may_claim:
                self._read_for(deliver)
            if self.origin is None:
                self._early.append((time.monotonic(), deliver))
            else:
                self._allowed(deliver, 0.0)
            self.changed.notify_all()
        for neighbour in deliver.neighbours:
            self.neighbours.meet(neighbour)
        return True

    def _allowed(self, message: m.Deliver | m.News, age: float) -> None:
        """What the scheduler said `age` seconds ago of the origin. Under the lock."""
        assert self.origin is not None
        self.origin.allow(message.may_claim, max(0.0, message.not_before - age), message.connections)
        if isinstance(message, m.Deliver):
            self.origin.leased(message.lease)
        elif message.revoked:
            self.origin.revoked(message.revoked)

    def _corrected(self, news: m.News) -> None:
        """What the scheduler says of the digests of pieces."""
        if news.discard:
            assert self.store is not None
            for index in news.discard:
                if self.store.has(index):
                    self.store.discard(index)
            with self.lock:
                self.state.forgotten(news.discard)
            self.discarded(news.discard)
        if news.record:
            self.settle(news.record)

    def _open_origin(self) -> None:
        """From here on messages take effect at once; what came before them does so now."""
        first = self._first
        with self.lock:
            self.origin = OriginWorkers(self, first.may_claim, first.not_before, first.connections)
            early, self._early = self._early, []
            self.origin.leased(first.lease)
            for at, message in early:
                self._allowed(message, time.monotonic() - at)
        for _, message in early:
            if isinstance(message, m.News):
                self._corrected(message)

    def _read_for(self, deliver: m.Deliver) -> None:
        """Under the lock."""
        self.access = deliver
        if self.origin:
            self.origin.reopen()

    def _main(self) -> None:
        failure: DragonflyError | None = None
        try:
            manifest = manifest_of(self, self._first)
            with self.context.store.hold(self.task, manifest, self.check_wanted):
                self._run()
        except DragonflyError as error:
            failure = error
        except Exception as error:
            log.exception("task %.12s failed", self.task.id)
            failure = self._unexpected(error)
        try:
            if failure and not self.stopping.is_set():  # else it is resumed, or nobody waits for it
                self.deliveries.fail(failure)
            self._shut()
            partly = self.superseded and not (self.store and self.store.finished)
            if isinstance(failure, StorageFullError) or self.dropped or partly:
                # What a full disk could not take whole is of no use there; what is false is of none anywhere.
                self.context.give_up(self.task)
        finally:
            self.context.finished(self)

    def _run(self) -> None:
        store = self.context.store.get(self.task.id)
        assert store is not None
        self.deliveries.refuse(store)
        if self.idle():
            return
        edited = store.refresh()
        if edited:
            log.warning("task %.12s: %d pieces were edited through an output", self.task.id, len(edited))
        with self.lock:
            self.store = store
            have = bitset.from_bytes(store.have(), self.task.pieces)
            known = tuple((i, d) for i, d in enumerate(store.digests) if d is not None)
            cached = sum(store.table[i].length for i in bitset.members(have))
            transport = self.settings.transport
            longest = min(transport.request_bytes, self.task.size // SHARE)
            limits = RequestLimits(max(1, longest // store.table.leaf), transport.pipeline)
            self.state.opened(limits, have, known, tuple(edited), cached)
            self.was_here = store.finished
            self.context.received("cache", cached)
        self._take_small()
        self._open_origin()
        if wanted := self.deliveries.wanted_digest():
            self.prefix = PrefixHash(self, wanted)
            self.spawn("prefix", self.prefix.run)
        # Small content was compared by whoever looked at the origin, content that was finished before that.
        if not (self.was_here or self._first.digests) and offers_any(store.manifest):
            self.checksums = OriginChecksums(self)
            self.spawn("checksums", self.checksums.run)
        while not self._complete(store):
            self._begin_fetching()
            with self.lock:
                while not (self.picker.done or self.error or self.idle()):
                    self.changed.wait(1.0)
                if self.error:
                    raise self.error
                if self.idle():
                    return
        log.info("task %.12s: all pieces are here after %.2f s", self.task.id, self.elapsed())
        if self.checksums:
            self._compare(self.checksums)
        store.finish()
        self.neighbours.kick()
        self.deliveries.see_through(store)

    def _compare(self, checksums: OriginChecksums) -> None:
        try:
            checksums.check()
        except IntegrityError:
            self.dropped = True
            self._drop_all()
            raise

    def _drop_all(self) -> None:
        """Before anybody hears that it failed: whoever asks for it next must find nothing of it."""
        store = self.store
        assert store is not None
        pieces = range(self.task.pieces)
        for index in pieces:
            store.discard(index)
        with self.lock:
            self.neighbours.lost()
            self.state.lost(tuple(pieces))

    def _complete(self, store: TaskStore) -> bool:
        """All is here and vouched for: by the delivery itself, or by the scheduler's record."""
        if not self.picker.done:
            return False
        store.survey()
        if not store.complete:  # what the disk has lost meanwhile
            with self.lock:
                lost = self.picker.have & ~bitset.from_bytes(store.have(), self.task.pieces)
            self.discarded(bitset.members(lost))
            return False
        if self._as_delivered(store):
            return True
        self.begin_reporting()
        return agrees_with_record(self)

    def _begin_fetching(self) -> None:
        if self._fetching or self.picker.done:
            return
        self._fetching = True
        assert self.origin is not None
        self.begin_reporting()
        self.origin.start(self.spawn)
        self.neighbours.begin()

    def begin_reporting(self) -> None:
        """Not before it is of use: where all came with the delivery, the outcome says enough."""
        if not self._reporting:
            self._reporting = True
            self.spawn("report", self.reporter.run)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def _as_delivered(self, store: TaskStore) -> bool:
        """The record itself came with the delivery (small content), and all of it agrees."""
        said = self._first.digests
        return bool(said) and said == b"".join(d or b"" for d in store.digests)

    def idle(self) -> bool:
        """Nobody waits for this task any more."""
        return self.stopping.is_set() or self.deliveries.over

    def check_wanted(self) -> None:
        """Raises `DragonflyError` once nobody waits for this task: ends long work on it."""
        if self.idle():
            raise DragonflyError(f"{self.task.url}: no longer needed")

    def _shut(self) -> None:
        with self.lock:
            self.deliveries.closed = True
        self.neighbours.tell_now()
        if self.error is None and not self.dropped:
            self.neighbours.tell_rest()
        self.stop()
        self.neighbours.kick()
        self.reporter.kick()
        if self.origin:
            self.origin.stop()
        self.neighbours.stop()
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me:
                thread.join(timeout=15)
        if self.origin:
            self.origin.close()
        self.reporter.report_rest()

    def stop(self) -> None:
        """Ends it without an outcome: the peer is shutting down."""
        self.stopping.set()
        self.context.pool.wake()
        with self.lock:
            self.changed.notify_all()

    def cancel(self, spec_id: str, kind: str, message: str) -> None:
        with self.lock:
            if kind == m.SUPERSEDED and self.deliveries.knows(spec_id):
                self.superseded = True
            self.deliveries.cancel(spec_id)
            over = self.idle()
            if not over and self.access.spec.id == spec_id:
                left = [d.message for d in self.deliveries.open()]
                self._read_for(next((d for d in left if d.may_claim), left[0]))
            self.changed.notify_all()
        if over:
            self.stopping.set()
            self.context.pool.wake()
            if self.origin:
                self.origin.stop()
            self.neighbours.stop()

    def granted(self, grant: bytes) -> None:
        """The scheduler has renewed the permission; empty: it has not."""
        self.grant = grant or self.grant

    def connect(self, neighbour: m.Neighbour) -> ParentConnection:
        caller = Caller(self.context.host_id, self.context.key, self.task.id, self.grant)
        try:
            return ParentConnection.open(neighbour.host, caller, self.settings.transport, self.task.pieces)
        except GrantError:
            if caller.grant == self.grant:  # and no newer one has come meanwhile
                self.reporter.grant_refused()
            raise

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
            if self._put(piece.index, part, found):
                unproved = b"" if expected else found
                self._arrived(self.state.came_small, piece.index, unproved, piece.length, time.monotonic())
            self.context.received("object-store", piece.length)

    def table(self) -> PieceTable:
        assert self.store is not None
        return self.store.table

    def from_origin(self, index: int, view: memoryview) -> None:
        """A piece read from the origin."""
        found = digest(view)
        assert self.store is not None
        with self.lock:
            self.state.origin_read(index, found)
            other = self.store.has(index) and self.store.digests[index] != found
        if other:
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
        if found is None or self.store is None or found[0] is self.store:
            return False
        other, place = found
        try:
            with other.using():
                self.store.copy_from(other, place, index)
        except (StorageError, IntegrityError, KeyError):
            return False
        length = self.store.table[index].length
        self.context.received("cache", length)
        self._arrived(self.state.cached, connection, index, length, time.monotonic())
        return True

    def _keep(self, index: int, view: memoryview, found: bytes, *, parent: str = "") -> None:
        """Stores a verified piece, unless it is here already."""
        if self._put(index, view, found):
            self._arrived(self.state.stored, index, parent, len(view), time.monotonic())

    def _put(self, index: int, view: memoryview, found: bytes) -> bool:
        assert self.store is not None
        if self.store.has(index):
            return False
        try:
            self.store.put(index, view, found)
        except DragonflyError as error:
            self.fail(error)
            raise
        return True

    def _arrived(self, event: Callable[P, Effects], *args: P.args, **kwargs: P.kwargs) -> None:
        """A piece is in the store; `event` says so."""
        self.context.telemetry.count("dragonfly_pieces")
        with self.lock:
            effects = event(*args, **kwargs)
            if self.picker.done or self._readers:
                self.changed.notify_all()
        self.neighbours.kick()
        self.carry_out(effects)
        if self.prefix:
            self.prefix.advance()
        if self.checksums:
            self.checksums.advance()

    def carry_out(self, effects: Effects) -> None:
        """What the engine wants done, in order. Outside the lock. Raises `TransportError` where a complaint cannot be
        told, after all the rest."""
        failure: TransportError | None = None
        for each in effects:
            match each:
                case Report():
                    self.reporter.kick()
                case Wake():
                    self.neighbours.wake_all()
                case Cancel(connection, piece):
                    self.neighbours.cancel(connection, piece)
                case Close(host):
                    self.neighbours.close(host)
                case Tell():
                    self.neighbours.tell(each)
                case Complain(connection, piece):
                    try:
                        self.neighbours.complain(connection, piece)
                    except TransportError as error:
                        failure = error
        if failure:
            raise failure

    def discarded(self, pieces: Iterable[int]) -> None:
        """Pieces that are not what they should be: fetch them again."""
        pieces = list(pieces)
        with self.lock:
            self.was_here = False
            self.neighbours.lost()
            effects = self.state.lost(tuple(pieces))
        self.neighbours.start()
        self.carry_out(effects)

    # --- what others say --------------------------------------------------------------------

    def settle(self, record: Iterable[tuple[int, bytes]]) -> None:
        """The record's digests of some pieces: what is not so here is dropped, and fetched again."""
        with self.lock:
            store = self.store
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
            log.warning("task %.12s: piece %d is not what the record says, dropped", self.task.id, index)
            store.discard(index)
        if wrong:
            self.discarded(wrong)
        self.carry_out(effects)

    def holdings(self) -> list[tuple[int, bytes]]:
        return self.described(self.picker.have)

    def described(self, pieces: int) -> list[tuple[int, bytes]]:
        assert self.store is not None
        digests = self.store.digests
        return [(i, d) for i in bitset.members(pieces) if (d := digests[i]) is not None]

    # --- the scheduler ----------------------------------------------------------------------

    def on_news(self, news: m.News) -> None:
        """Pushed by the scheduler."""
        self.granted(news.grant)
        for host in news.left:
            self.neighbours.left(host)
        for host in news.banned:
            self.neighbours.ban(host)
        for neighbour in news.joined:
            self.neighbours.meet(neighbour)
        with self.lock:
            opens = self.origin is None
            if opens:
                self._early.append((time.monotonic(), news))
            else:
                self._allowed(news, 0.0)
        if not opens:
            self._corrected(news)
        if news.settled:
            self.deliveries.settled()

    def fail(self, error: DragonflyError) -> None:
        """The task cannot go on here."""
        with self.lock:
            if self.error is None:
                self.error = error
            self.changed.notify_all()

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
                    if self.error or self.stopping.is_set() or left <= 0:
                        return False
                    self.changed.wait(left)
            finally:
                self._readers -= 1
                self.state.hurried(missing)
        return True
