"""One task on one peer, from its delivery to its outcomes: which parts it has, and in which order they begin and end.

Threads, all of them blocking in the kernel most of the time: one a neighbour (`parents`), a few for the origin
(`origin`), one that tells the neighbours what is new here, one that reports to the scheduler, those that follow the
contiguous prefix, and the one that sees the task through. Each tells the engine what happens, which decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dragonfly_ray import messages as m
from dragonfly_ray.checksums import offers_any
from dragonfly_ray.errors import DragonflyError, GrantError, IntegrityError, StorageFullError
from dragonfly_ray.model import DIGEST_SIZE, Manifest, Task, digest
from dragonfly_ray.peer.audit import AuditReader
from dragonfly_ray.peer.checksums import OriginChecksums
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.manifests import fetch_manifest, manifest_of
from dragonfly_ray.peer.neighbours import Neighbours
from dragonfly_ray.peer.origin_workers import OriginWorkers
from dragonfly_ray.peer.outputs import OutputJobs
from dragonfly_ray.peer.reporter import Figures, Reporter
from dragonfly_ray.peer.services import PeerServices
from dragonfly_ray.peer.streaming_digest import PrefixHash, check_whole
from dragonfly_ray.peer.verification import RecordCheck
from dragonfly_ray.scheduling.download.parent_state import NeighbourInfo, RequestLimits
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.transport.parent_connection import Caller, ParentConnection

log = logging.getLogger(__name__)


class TaskDownload:
    """Fetches a task, and sees its deliveries through."""

    def __init__(
        self,
        context: PeerServices,
        deliver: m.Deliver,
        small: bytes | None,
        finished: Callable[[TaskDownload], None],
    ) -> None:
        self.context = context
        self.task: Task = deliver.task
        self.access = deliver
        """For whom the origin is read: with the credentials and within the policy of one distribution."""
        self.grant = deliver.grant
        """The newest: for connections from now on."""
        self._first = deliver
        self._small = small
        self._finished = finished
        self._early: list[tuple[float, m.Deliver | m.TaskUpdate]] = []
        """What came while the task opens, and when."""
        self._fetching = False
        self._prefix: PrefixHash | None = None
        self._superseded = False
        """The origin has other content by now. What is here in part is of no use, and may be of both."""
        self.engine = engine = Engine(context, self.task, _state(context, deliver))
        link = context.link(self.task.source_id)
        self.reporter = Reporter(engine, link, deliver.interval, self._figures, self._answered)
        self.origin = OriginWorkers(engine, lambda: self.access, self.reporter.tell)
        self._audits = AuditReader(engine, self.origin, self.idle)
        self._record = RecordCheck(engine, self.reporter, self.origin.doubt, self._audits.take)
        self.deliveries = OutputJobs(engine, deliver, self._record, self.reporter, self._check_digest)
        self.neighbours = Neighbours(engine, deliver, self._connect)

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        self.engine.spawn("main", self._main)

    def _main(self) -> None:
        failure = self.engine.attempt(self._run)
        try:
            if failure and not self.engine.stopping.is_set():  # else it is resumed, or nobody waits for it
                self.deliveries.fail(failure)
            self._shut()
            partly = self._superseded and not (self.opened and self.opened.finished)
            if isinstance(failure, StorageFullError) or self.deliveries.dropped or partly:
                # What a full disk could not take whole is of no use there; what is false is of none anywhere.
                self.context.give_up(self.task)
        finally:
            self._finished(self)

    def _run(self) -> None:
        with self.context.store.hold(self.task, self._manifest(), self.check_wanted) as store:
            self._fetch(store)

    def _manifest(self) -> Manifest:
        known = self.context.store.get(self.task.id)
        if known is not None:
            return known.manifest

        def fetch() -> bytes:
            give_up = self.context.settings.origin.give_up
            return fetch_manifest(self.engine, self.neighbours.known, self._connect, self.idle, give_up)

        return manifest_of(self.task, self._first.manifest, fetch)

    def _fetch(self, store: TaskStore) -> None:
        engine = self.engine
        self.deliveries.refuse(store)
        if self.idle():
            return
        engine.open(store)
        self._take_small()
        self._open_origin()
        checksums = self._follow(store)
        while not self._complete(store):
            self._begin_fetching()
            with engine.lock:
                while not (engine.picker.done or engine.error or self.idle()):
                    engine.changed.wait(1.0)
                if engine.error:
                    raise engine.error
                if self.idle():
                    return
        log.info("task %.12s: all pieces stored after %.2f s", self.task.id, engine.elapsed())
        if checksums:
            self._compare(checksums)
        store.finish()
        engine.tell_now.set()
        self.deliveries.see_through(store)

    def _follow(self, store: TaskStore) -> OriginChecksums | None:
        """What is computed while the rest arrives."""
        followers = self.engine.followers
        if wanted := self.deliveries.wanted_digest():
            self._prefix = PrefixHash(self.engine, store, wanted)
            followers.append(self._prefix.advance)
        # Small content was compared by whoever looked at the origin, content that was finished before that.
        if self.engine.was_here or self._first.digests or not offers_any(store.manifest):
            return None
        checksums = OriginChecksums(self.engine, store)
        followers.append(checksums.advance)
        return checksums

    def _check_digest(self, wanted: str) -> None:
        if self._prefix:
            self._prefix.check(wanted)
        else:  # it came to a download that had no digest to compute
            check_whole(self.engine.store, wanted)

    def _compare(self, checksums: OriginChecksums) -> None:
        try:
            checksums.check()
        except IntegrityError:
            self.deliveries.dropped = True
            self._drop_all()
            raise

    def _drop_all(self) -> None:
        """Before anybody hears that it failed: whoever asks for it next must find nothing of it."""
        pieces = tuple(range(self.task.pieces))
        for index in pieces:
            self.engine.store.discard(index)
        with self.engine.lock:
            self.engine.lost(pieces)

    def _complete(self, store: TaskStore) -> bool:
        """All is here and vouched for: by the delivery itself, or by the scheduler's record."""
        if not (self.engine.picker.done and self.engine.survey()):
            return False
        said = self._first.digests
        if said and said == b"".join(d or b"" for d in store.digests):
            return True  # the record itself came with the delivery
        self.reporter.begin()
        return self._record.agrees(self.deliveries)

    def _begin_fetching(self) -> None:
        if self._fetching or self.engine.picker.done:
            return
        self._fetching = True
        self.reporter.begin()
        self.origin.start()
        self.neighbours.begin()

    def idle(self) -> bool:
        """Nobody waits for this task any more."""
        return self.engine.stopping.is_set() or self.deliveries.over

    def check_wanted(self) -> None:
        """Raises `DragonflyError` once nobody waits for this task: ends long work on it."""
        if self.idle():
            raise DragonflyError(f"{self.task.url}: no longer needed")

    def _shut(self) -> None:
        with self.engine.lock:
            self.deliveries.closed = True
        self.engine.attempt(self._last_words)  # however that ends, no thread is left
        self.stop()
        self._stop_parts()
        self.engine.join()
        self.origin.close()
        self.reporter.report_rest()

    def _last_words(self) -> None:
        self.neighbours.tell_now()
        if self.engine.error is None and not self.deliveries.dropped:
            self.neighbours.tell_rest()

    def stop(self) -> None:
        """Ends it without an outcome: the peer is shutting down."""
        self.engine.end()
        self.context.pool.wake()

    def _stop_parts(self) -> None:
        self.engine.tell_now.set()
        self.engine.report_now.set()
        self.origin.stop()
        self.neighbours.stop()

    # --- small content ----------------------------------------------------------------------

    def _take_small(self) -> None:
        """Content that came with the delivery."""
        engine = self.engine
        content = self._small if self._small is not None else self._first.content
        if not content or engine.picker.done:
            return
        view, expected = memoryview(content), self._first.digests
        for piece in engine.table:
            if engine.picker.have >> piece.index & 1:
                continue
            part = view[piece.offset : piece.offset + piece.length]
            found = digest(part)
            if expected and found != expected[piece.index * DIGEST_SIZE : (piece.index + 1) * DIGEST_SIZE]:
                raise IntegrityError(f"{self.task.url}: piece {piece.index} does not match its digest")
            if engine.put(piece.index, part, found):
                unproved = b"" if expected else found
                engine.arrived(engine.state.came_small, piece.index, unproved, piece.length, time.monotonic())
            self.context.received("object-store", piece.length)

    # --- the scheduler ----------------------------------------------------------------------

    def add(self, deliver: m.Deliver) -> bool:
        """Another distribution of the same task, or the same one again after the scheduler's restart.

        False if this download takes no more: it is about to end.
        """
        engine = self.engine
        with engine.lock:
            if self.deliveries.closed or self.idle():
                return False
            self.deliveries.add(deliver)
            engine.state.met(self.context.host_id, NeighbourInfo(importer=deliver.importer))
            self._granted(deliver.grant)
            if deliver.may_claim and not self.access.may_claim:
                self._read_for(deliver)
            self._heard(deliver)
            engine.changed.notify_all()
        for neighbour in deliver.neighbours:
            self.neighbours.meet(neighbour)
        return True

    def on_news(self, news: m.TaskUpdate) -> None:
        """Pushed by the scheduler."""
        engine = self.engine
        self._granted(news.grant)
        for host in news.left:
            engine.happened(engine.state.left, host)
        for host in news.banned:
            engine.happened(engine.state.ban, host)
        for neighbour in news.joined:
            self.neighbours.meet(neighbour)
        with engine.lock:
            opened = self._heard(news)
        if opened:
            self._corrected(news)
        if news.settled:
            self.deliveries.settled()

    def _heard(self, message: m.Deliver | m.TaskUpdate) -> bool:
        """What it says of the origin takes effect; False: later, when the task is open. Under the lock."""
        if self.origin.opened:
            self._allowed(message, 0.0)
        else:
            self._early.append((time.monotonic(), message))
        return self.origin.opened

    def _open_origin(self) -> None:
        """From here on messages take effect at once; what came before them does so now."""
        first = self._first
        with self.engine.lock:
            self.origin.open(first.may_claim, first.not_before, first.connections)
            early, self._early = self._early, []
            self.origin.leased(first.lease, first.left)
            for at, message in early:
                self._allowed(message, time.monotonic() - at)
        for _, message in early:
            if isinstance(message, m.TaskUpdate):
                self._corrected(message)

    def _allowed(self, message: m.Deliver | m.TaskUpdate, age: float) -> None:
        """What the scheduler said `age` seconds ago of the origin. Under the lock."""
        self.origin.allow(message.may_claim, max(0.0, message.not_before - age), message.connections)
        if isinstance(message, m.Deliver):
            self.origin.leased(message.lease, message.left)
        elif message.revoked:
            self.origin.revoked(message.revoked)

    def _corrected(self, news: m.TaskUpdate) -> None:
        """What the scheduler says of the digests of pieces."""
        engine = self.engine
        if news.discard:
            for index in news.discard:
                if engine.store.has(index):
                    engine.store.discard(index)
            with engine.lock:
                engine.state.forgotten(news.discard)
            engine.discarded(news.discard)
        if news.record:
            engine.settle(news.record)

    def cancel(self, spec_id: str, kind: str, message: str) -> None:
        with self.engine.lock:
            if kind == m.SUPERSEDED and self.deliveries.knows(spec_id):
                self._superseded = True
            self.deliveries.cancel(spec_id)
            over = self.idle()
            if not over and self.access.spec.id == spec_id:
                left = [d.message for d in self.deliveries.open()]
                self._read_for(next((d for d in left if d.may_claim), left[0]))
            self.engine.changed.notify_all()
        if over:
            self.stop()
            self._stop_parts()

    def _read_for(self, deliver: m.Deliver) -> None:
        """Under the lock."""
        self.access = deliver
        self.origin.reopen()

    def _granted(self, grant: bytes) -> None:
        """The scheduler has renewed the permission; empty: it has not."""
        self.grant = grant or self.grant

    def _figures(self) -> Figures:
        origin = self.origin
        carried = self.deliveries.carried()
        return Figures(origin.bytes, self._audits.bytes, carried, origin.awaiting, origin.answer)

    def _answered(self, reply: m.ReportReply) -> None:
        """The scheduler's answer to a report."""
        self._granted(reply.grant)
        if reply.record:
            self.engine.settle(reply.record)
        if self.origin.opened:
            self.origin.answered(reply)
            self._audits.take(reply.audit)

    def _connect(self, neighbour: m.Neighbour) -> ParentConnection:
        caller = Caller(self.context.host_id, self.context.key, self.task.id, self.grant)
        context, transport = self.context, self.context.settings.transport
        try:
            return ParentConnection.open(
                neighbour.host, caller, transport, self.task.pieces, context.network, context.capabilities
            )
        except GrantError:
            if caller.grant == self.grant:  # and no newer one has come meanwhile
                self.reporter.grant_refused()
            raise

    # --- children ---------------------------------------------------------------------------

    @property
    def opened(self) -> TaskStore | None:
        return self.engine.opened

    def shown(self, host: str) -> int:
        return self.neighbours.shown(host)

    def heard(self, host: str, items: list[tuple[int, bytes]]) -> None:
        self.neighbours.heard(host, items)

    def deserted(self, host: str) -> None:
        self.neighbours.deserted(host)


def _state(context: PeerServices, deliver: m.Deliver) -> DownloadState:
    pieces = deliver.task.pieces
    state = DownloadState(
        Picker(pieces),
        RequestLimits(),
        host=context.host_id,
        zone=context.zone,
        location=context.location,
        seeder=SuperSeeder(pieces) if deliver.sole else None,
        now=time.monotonic(),
        recorded=True,
    )
    state.met(context.host_id, NeighbourInfo(importer=deliver.importer))
    return state
