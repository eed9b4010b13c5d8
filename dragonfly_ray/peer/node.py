"""The peer of one node: its store, its upload server, and a `TaskDownload` for each task under way."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import (
    ClusterError,
    DragonflyError,
    NotRunningError,
    StorageFullError,
)
from dragonfly_ray.grants import GrantVerifier, SigningKey
from dragonfly_ray.model import (
    Endpoint,
    Entry,
    Host,
    Identity,
    Task,
)
from dragonfly_ray.names import shown
from dragonfly_ray.peer.buffers import BufferPool
from dragonfly_ray.peer.download import TaskDownload
from dragonfly_ray.peer.inbox import Inbox
from dragonfly_ray.peer.local_reads import LocalReads
from dragonfly_ray.peer.origin_queries import OriginQueries
from dragonfly_ray.peer.outcomes import Outcomes
from dragonfly_ray.peer.output_turns import OutputTurns
from dragonfly_ray.peer.recheck import Rechecker
from dragonfly_ray.peer.registration import Registration, digests_of, held
from dragonfly_ray.peer.scheduler_links import Links
from dragonfly_ray.peer.services import PeerServices
from dragonfly_ray.peer.supervisor import THREADS
from dragonfly_ray.peer.upload_view import UploadView
from dragonfly_ray.statuses import PeerStatus
from dragonfly_ray.storage.open_files import raise_limit
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.telemetry import Telemetry
from dragonfly_ray.transport.limiter import RateLimiter
from dragonfly_ray.transport.negotiation import CURRENT, Capabilities
from dragonfly_ray.transport.server import UploadServer
from dragonfly_ray.transport.streams import Network
from dragonfly_ray.transport.tcp import TCP

log = logging.getLogger(__name__)

ENDING = 5.0
"""Seconds that a run may take to end once all outcomes are known."""


class PeerNode:
    """Starts serving what its store holds at once; `announce` makes it known."""

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        verifier: GrantVerifier,
        links: Links,
        *,
        telemetry: Telemetry | None = None,
        network: Network = TCP,
        capabilities: Capabilities = CURRENT,
    ) -> None:
        self.identity = identity
        self.settings = settings
        raise_limit()
        self.store = PieceStore(settings.storage)
        self.store.on_evicted = self._evicted
        self._rechecker = Rechecker(self.store.get, self._lost)
        self.links = links
        self.queries = OriginQueries(
            self.store.host_id, self.store, links, settings, lambda stored: self.announce_task(stored)
        )
        self.pool = BufferPool()
        self._limiter = RateLimiter(settings.transport.download_rate)
        self.telemetry = telemetry or Telemetry()
        self._runs: dict[str, TaskDownload] = {}
        self._dropped: dict[str, str] = {}
        """Task id -> source id: evicted, and the scheduler has not heard it yet."""
        self._turns = OutputTurns()
        self._inbox = Inbox()
        self._reannouncing: set[str] = set()
        """Tasks whose scheduler is about to be told again what is here."""
        self._registered: list[Registration] = []
        self.on_id_taken: Callable[[], None] = lambda: None
        """Called when another live peer has this one's host id: this process must end."""
        self._lock = threading.Lock()
        self._begun = threading.Condition(self._lock)
        """A delivery has begun, or a run has ended."""
        self._work = ThreadPoolExecutor(8, thread_name_prefix="peer")
        self._stopping = threading.Event()
        self.outcomes = Outcomes(links, lambda source_id: self.announce_to(source_id), self._stopping)
        self._usage = self.store.usage()
        transport = settings.transport
        self._key = SigningKey.generate()
        self._network = network
        self._capabilities = capabilities
        self.server = UploadServer(
            transport.bind or identity.address,
            transport.port,
            self,
            transport,
            verifier,
            self.store.host_id,
            self._key,
            network,
            capabilities,
        )
        self.server.start()
        self.host = Host(
            id=self.store.host_id,
            node_id=identity.node_id,
            endpoints=(Endpoint(transport.advertise or identity.address, self.server.port),),
            name=identity.name or identity.address,
            seed=identity.seed,
            idc=identity.idc,
            location=identity.location,
            labels=identity.labels,
            incarnation=secrets.token_hex(8),
            key=self._key.public_bytes(),
        )
        self.reads = LocalReads(self.host.name, self.store, self.stored, self._under_way)

    def configured(self) -> None:
        """The settings have changed, in place: what was derived from them follows."""
        self._limiter.change(self.settings.transport.download_rate)
        self.server.configured()
        with contextlib.suppress(StorageFullError):  # what is in use stays, whatever the quota is now
            self.store.make_room(0)

    # --- the scheduler's messages -----------------------------------------------------------

    def take(self, sender: str, number: int, message: m.Message, small: bytes | None = None) -> None:
        """A message of a scheduler's queue, which comes again, with its number, until it is acknowledged."""
        self._inbox.take(sender, number, partial(self.handle, message, small))

    def carrying(self) -> m.Carrying:
        """The deliveries without an outcome, or whose outcome has not been heard."""
        with self._lock:
            runs = list(self._runs.values())
        carried = self.outcomes.unheard
        carried |= dict.fromkeys(pair for run in runs for pair in run.deliveries.carried())
        return m.Carrying(self.host.id, self.host.incarnation, tuple(carried))

    def handle(self, message: m.Message, small: bytes | None = None) -> None:
        """A message that wants no answer. `small`: content that came beside it.

        What goes wrong with it unexpectedly fails what it is about, here: whoever sent it can do nothing.
        """
        try:
            self._handle(message, small)
        except Exception as error:
            log.exception("failed to handle %s", type(message).__name__)
            text = f"{self.host.name}: {type(message).__name__} not handled ({type(error).__name__}); see the peer's log"
            if isinstance(message, m.Deliver):
                self._refuse(message, text)
            elif isinstance(message, m.TaskUpdate) and (run := self._runs.get(message.task_id)):
                run.engine.fail(DragonflyError(text))

    def _refuse(self, deliver: m.Deliver, text: str) -> None:
        """A delivery that cannot begin has an outcome all the same."""
        ended = m.Ended(
            self.host.id,
            deliver.spec.id,
            deliver.task.id,
            ok=False,
            kind="error",
            message=text,
            run=deliver.spec.run,
        )
        self.outcomes.owe(ended)
        self._work.submit(self.outcomes.tell, deliver.task.source_id, ended)

    def _handle(self, message: m.Message, small: bytes | None) -> None:
        match message:
            case m.Deliver():
                self._deliver(message, small)
            case m.TaskUpdate():
                for banned in message.banned:
                    self.server.ban(message.task_id, banned)
                run = self._runs.get(message.task_id)
                if run:
                    run.on_news(message)
                elif message.discard and (stored := self.store.get(message.task_id)):
                    for index in message.discard:
                        stored.discard(index)
            case m.TellDigests():
                self._work.submit(self._tell_digests, message.task_id)
            case m.Cancel():
                if message.kind != m.SUPERSEDED:  # that is about the content before the look
                    self.queries.stop(message.spec_id, message.run)
                for run in list(self._runs.values()):
                    run.cancel(message.spec_id, message.kind, message.message)
            case _:
                log.warning("unknown message type %s", type(message).__name__)

    def _deliver(self, deliver: m.Deliver, small: bytes | None) -> None:
        for banned in deliver.banned:
            self.server.ban(deliver.task.id, banned)
        with self._lock:
            if ended := self.outcomes.of(deliver):
                self._work.submit(self.outcomes.tell, deliver.task.source_id, ended)
                return
            run = self._runs.get(deliver.task.id)
            if not deliver.proved and self._holds(deliver, run):
                self._work.submit(self._unproved, deliver)
                return
            if run and run.add(deliver):
                return
            run = TaskDownload(self._context(), deliver, small, self._on_finished)
            self._runs[deliver.task.id] = run
            self._begun.notify_all()
            self.telemetry.gauge("dragonfly_active_tasks", len(self._runs))
        run.start()

    def _holds(self, deliver: m.Deliver, run: TaskDownload | None) -> bool:
        """Whether something of it is here that its distribution has not read itself."""
        if run and run.deliveries.knows(deliver.spec.id):
            return False
        store = self.store.get(deliver.task.id)
        return store is not None and store.count > 0

    def _unproved(self, deliver: m.Deliver) -> None:
        """The scheduler did not know that something of it is here, and has its caller prove first."""
        self._reannounce(deliver.task.id)
        text = "cached here, but read access at the origin is not proven for these credentials"
        ended = m.Ended(
            self.host.id,
            deliver.spec.id,
            deliver.task.id,
            False,
            kind=m.UNPROVED,
            message=text,
            run=deliver.spec.run,
        )
        self.outcomes.tell(deliver.task.source_id, ended)

    def _context(self) -> PeerServices:
        return PeerServices(
            host_id=self.host.id,
            key=self._key,
            node_name=self.host.name,
            node_id=self.identity.node_id,
            settings=self.settings,
            store=self.store,
            pool=self.pool,
            announce=self.announce_to,
            introduce=self.announce_task,
            link=self.links.of,
            give_up=self._give_up,
            ended=self._on_ended,
            telemetry=self.telemetry,
            turns=self._turns,
            limiter=self._limiter,
            network=self._network,
            capabilities=self._capabilities,
            uploads=lambda: self.server.sending,
            zone=self.host.idc,
            location=self.host.location,
        )

    def _on_ended(self, ended: m.Ended) -> None:
        if not ended.ok:
            self.telemetry.count("dragonfly_failures", kind=ended.kind)
        self.outcomes.keep(ended)
        self.outcomes.owe(ended)
        run = self._runs.get(ended.task_id)
        if run:
            self.outcomes.tell(run.task.source_id, ended)

    def _on_finished(self, run: TaskDownload) -> None:
        with self._lock:
            if self._runs.get(run.task.id) is run:
                del self._runs[run.task.id]
                self._begun.notify_all()
            self.telemetry.gauge("dragonfly_active_tasks", len(self._runs))
            if not self._runs:
                self.pool.trim()

    # --- announcing -------------------------------------------------------------------------

    def announce(self) -> None:
        """To every scheduler, all of it. Raises `ClusterError`."""
        for registration in self._registrations():
            registration.all()

    def announce_to(self, source_id: str) -> None:
        """To a scheduler that has forgotten this peer: the work in hand now, the rest soon."""
        link = self.links.of(source_id)
        next(r for r in self._registrations() if r.link is link).hurry()

    def announce_at(self, index: int) -> None:
        """As `announce_to`, to one that has restarted."""
        self._registrations()[index].insist()

    def announce_task(self, stored: TaskStore) -> None:
        """What is here of one task. Raises `ClusterError`."""
        self.links.of(stored.task.source_id).call(m.Announce(self.host, (held(stored),)))

    def _registrations(self) -> list[Registration]:
        with self._lock:
            if not self._registered:
                self._registered = [
                    Registration(
                        self.host,
                        self.store,
                        link,
                        self._in_hand,
                        self._work,
                        self._stopping,
                        self._id_taken,
                    )
                    for link in self.links.every()
                ]
            return self._registered

    def _id_taken(self, node: str) -> None:
        log.error("host id %s is already used by node %s; restarting with a new one", self.host.id, node)
        self._stopping.set()
        self.store.give_up_host_id()
        self.on_id_taken()

    def _in_hand(self) -> list[m.Deliver]:
        with self._lock:
            runs = list(self._runs.values())
        return [d.message for run in runs for d in run.deliveries.open()]

    def _tell_digests(self, task_id: str) -> None:
        """The scheduler asks another where no answer comes."""
        stored = self.store.get(task_id)
        link = self.links.of(stored.task.source_id) if stored else None
        for each in [link] if link else self.links.every():
            with contextlib.suppress(ClusterError):
                each.call(digests_of(self.host.id, task_id, stored))

    def ask(self, ask: m.Message) -> m.Message:
        """See `OriginQueries.ask`."""
        return self.queries.ask(ask)

    # --- what others ask --------------------------------------------------------------------

    def shared(self, task_id: str) -> UploadView | None:
        """For the upload server."""
        store = self.store.get(task_id)
        if store is None:
            return None
        return UploadView(store, partial(self._runs.get, task_id), self._rechecker, self._sent)

    def _sent(self, nbytes: int) -> None:
        self.telemetry.count("dragonfly_bytes_sent", nbytes)

    def _lost(self, store: TaskStore, pieces: list[int]) -> None:
        """Pieces turned out bad and were discarded: whoever counts on them here must know."""
        run = self._runs.get(store.task.id)
        if run and run.opened is store:
            run.engine.discarded(pieces)
            return
        with self._lock:
            if store.task.id not in self._reannouncing:
                self._reannouncing.add(store.task.id)
                self._work.submit(self._reannounce, store.task.id)

    def _reannounce(self, task_id: str) -> None:
        with self._lock:
            self._reannouncing.discard(task_id)
        stored = self.store.get(task_id)
        with contextlib.suppress(ClusterError):  # a scheduler that is away will ask
            if stored is not None:
                self.announce_task(stored)

    def stored(self, task_id: str) -> TaskStore:
        found = self.store.get(task_id)
        if found is None:
            raise NotRunningError(f"{self.host.name}: task {task_id[:12]} is not in its store")
        return found

    def _under_way(self, task_id: str, timeout: float) -> TaskDownload | None:
        """The download of a task, which may begin within `timeout` seconds."""
        with self._begun:
            self._begun.wait_for(lambda: task_id in self._runs, timeout)
            return self._runs.get(task_id)

    def evict(self, task_id: str) -> int:
        """Bytes freed. Raises for what is in use or pinned."""
        found = self.stored(task_id)
        with self._begun:
            # Whoever has just heard of the outcome may be faster than the threads that made it.
            self._begun.wait_for(lambda: not self._ending(task_id), ENDING)
        freed = self.store.evict(task_id)
        self._evicted(found.task)
        return freed

    def _ending(self, task_id: str) -> bool:
        """Whether a run of it is there that nobody waits for any more."""
        run = self._runs.get(task_id)
        return run is not None and not run.deliveries.open()

    def _give_up(self, task: Task) -> None:
        """Frees what is here of it, now or when those who read it have ended."""
        if self.store.give_up(task.id):
            self._evicted(task)

    def _evicted(self, task: Task) -> None:
        """The scheduler must not send anybody here for it."""
        self.telemetry.count("dragonfly_evictions")
        self._dropped[task.id] = task.source_id
        self._tell_dropped([task.id])

    def _tell_dropped(self, tasks: Sequence[str]) -> None:
        """Until the scheduler has heard it: `measure` tries again."""
        # A page of an announcement that was made before may come after it.
        again = any(registration.under_way for registration in self._registrations())
        for task_id in tasks:
            if self.store.get(task_id) is None:
                try:
                    self.links.of(self._dropped[task_id]).call(m.Evicted(self.host.id, task_id))
                except ClusterError as error:
                    log.info("task %.12s: eviction not reported yet, retrying: %s", task_id, error)
                    return
                if again:
                    continue
            self._dropped.pop(task_id, None)

    def manifest(self, task_id: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """How many entries a task has, and `limit` of them from `offset` on, with names for people. Raises `NotRunningError`."""
        entries = self.stored(task_id).manifest.entries
        page = entries[max(0, offset) : max(0, offset) + max(0, limit)]
        return len(entries), [
            {name: getattr(e, name) for name in Entry.__struct_fields__ if name != "url"}
            | {"path": shown(e.path), "target": shown(e.target)}
            for e in page
        ]

    def measure(self) -> None:
        """Looks at the store's disk, which may take a while; once a second is enough."""
        self._usage = self.store.usage()
        self._tell_dropped(list(self._dropped))
        said = self.brief()
        self.telemetry.gauge("dragonfly_store_used_bytes", said.store_used)
        self.telemetry.gauge("dragonfly_store_quota_bytes", said.store_quota)
        self.telemetry.gauge("dragonfly_disk_free_bytes", said.disk_free)
        self.telemetry.gauge("dragonfly_disk_total_bytes", said.disk_total)

    def brief(self) -> PeerStatus:
        """What comes with every health check: waits for nothing."""
        totals, usage = self.telemetry.totals, self._usage
        storage = self.settings.storage
        spare = int(usage.total * storage.keep_free)
        return PeerStatus(
            host_id=self.host.id,
            incarnation=self.host.incarnation,
            pid=os.getpid(),
            store_used=usage.held,
            store_quota=storage.quota or usage.held + max(0, usage.free - spare),
            disk_free=usage.free,
            disk_total=usage.total,
            receive_rate=self.telemetry.receive_rate,
            send_rate=self.telemetry.send_rate,
            bytes_origin=totals["origin"],
            bytes_peers=totals["peers"],
            bytes_cache=totals["cache"],
            bytes_object_store=totals["object-store"],
            bytes_sent=totals["sent"],
            active_tasks=len(self._runs),
            children=self.server.connections,
        )

    def status(self) -> dict[str, Any]:
        with self._lock:
            runs = list(self._runs.values())
        return {
            "host_id": self.host.id,
            "node_id": self.identity.node_id,
            "name": self.host.name,
            "address": self.host.endpoints[0].address,
            "port": self.host.endpoints[0].port,
            "seed": self.host.seed,
            "pid": os.getpid(),
            "tasks": len(runs),
            "task_threads": sum(t.name.startswith(THREADS) for t in threading.enumerate()),
            "connections": self.server.connections,
            "received": self.telemetry.received,
            "used": sum(t.task.size for t in self.store.tasks() if t.complete),
            "store": str(self.store.path),
            "receive_rate": self.telemetry.receive_rate,
            "send_rate": self.telemetry.send_rate,
            "held": [
                {
                    "task_id": t.task.id,
                    "source_id": t.task.source_id,
                    "url": t.task.url,
                    "size": t.task.size,
                    "pieces": t.task.pieces,
                    "have": t.count,
                    "complete": t.complete,
                }
                for t in self.store.tasks()
            ],
        }

    def stop(self) -> None:
        """Ends what is under way, keeps what is stored."""
        self._stopping.set()
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stop()
        self.server.stop()
        self._rechecker.stop()
        self._work.shutdown(wait=False, cancel_futures=True)
        self.store.close()
