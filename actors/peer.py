"""The peer as a Ray actor: a shell round `PeerNode`, whose work runs in threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import numpy as np
import ray

from dragonfly_ray import logs
from dragonfly_ray import messages as m
from dragonfly_ray.actors.connect import Actors
from dragonfly_ray.actors.failures import CallFailure, answered
from dragonfly_ray.actors.handles import scheduler_name
from dragonfly_ray.cluster_directives import Directives, Follower
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.grants import GrantVerifier
from dragonfly_ray.model import Identity
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.peer.object_store import LoadedObjects
from dragonfly_ray.scheduling.origin_retry import patience_with_helper
from dragonfly_ray.scheduling.rendezvous import shard_of
from dragonfly_ray.statuses import encode
from dragonfly_ray.telemetry import RaySink, Telemetry

T = TypeVar("T")

log = logging.getLogger(__name__)

WORK_THREADS = 32
READER_THREADS = 512
"""Each reader that waits for bytes to arrive has one of them; none is started before it is needed."""
CALL_TIMEOUT = 5.0
ANNOUNCE_PAUSE = 0.5
FLUSH_INTERVAL = 1.0


class _Link:
    """One scheduler."""

    def __init__(self, actors: Actors, index: int, settings: Settings) -> None:
        self._actors = actors
        self._name = scheduler_name(index)
        self._settings = settings

    def call(self, message: m.Message) -> m.Message | None:
        """Raises `ClusterError`."""
        timeout = CALL_TIMEOUT
        if isinstance(message, m.Stat):
            timeout += patience_with_helper(self._settings.origin)
        answer = self._actors.call(self._name, "call", m.encode(message), timeout=timeout)
        found = m.decode(answer) if answer else None
        if isinstance(found, m.Unsupported):
            raise ClusterError(f"{self._name}: {m.UnsupportedMessageError(found)}")
        return found


class _Links:
    def __init__(self, settings: Settings) -> None:
        actors = Actors(settings.namespace)
        self._links = [_Link(actors, i, settings) for i in range(settings.scheduler.shards)]

    def of(self, source_id: str) -> _Link:
        return self._links[shard_of(source_id, len(self._links))]

    def every(self) -> Sequence[_Link]:
        return self._links


class _Threads:
    """What the actor's methods wait for happens in threads; each kind has its own, so that none waits for another.

    `control`: the schedulers' messages, in the order in which they come. `readers`: those that wait for bytes.
    """

    def __init__(self) -> None:
        self.control = ThreadPoolExecutor(1, thread_name_prefix="control")
        self.work = ThreadPoolExecutor(WORK_THREADS, thread_name_prefix="work")
        self.readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")


async def _run(threads: ThreadPoolExecutor, do: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, do, *args)


class PeerActor:
    """One a node."""

    def __init__(
        self, identity: Identity, settings: Settings, public_keys: Sequence[bytes], directives: bytes = b""
    ) -> None:
        # Nodes of one machine may have one name, and their logs one folder.
        logs.setup(f"peer:{identity.name}-{identity.node_id[:8]}", form=settings.log_format)
        self._follower = Follower(settings.on_this_node())
        if directives:
            self._follower.take(Directives.decode(directives))
        self._settings = settings = self._follower.settings
        telemetry = Telemetry(RaySink("actor"), actor=f"peer:{identity.name}")
        self._verifier = GrantVerifier(public_keys)
        self._node = PeerNode(identity, settings, self._verifier, _Links(settings), telemetry=telemetry)
        self._node.on_id_taken = lambda: os._exit(1)  # the controller starts another, which takes another id
        self._threads = _Threads()
        self._flusher: asyncio.Task[None] | None = None
        self._objects: LoadedObjects[Any] = LoadedObjects()
        self._loading: dict[str, asyncio.Future[Any]] = {}
        self._announced = False
        self._announcing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Peer({self._node.host.name})"

    async def _control(self, do: Callable[..., T], *args: Any) -> T:
        return await _run(self._threads.control, do, *args)

    async def _work(self, do: Callable[..., T], *args: Any) -> T:
        return await _run(self._threads.work, do, *args)

    async def ready(self) -> dict[str, Any]:
        """Serving; announcing goes on by itself until every scheduler has heard."""
        if self._flusher is None:
            self._flusher = asyncio.ensure_future(self._flush())
        if self._announcing is None:
            self._announcing = asyncio.ensure_future(self._announce())
        return {"host_id": self._node.host.id, "port": self._node.server.port}

    async def _announce(self) -> None:
        while not self._announced:
            try:
                await self._work(self._node.announce)
                self._announced = True
            except Exception as error:
                if isinstance(error, ClusterError):
                    log.info("not registered with the schedulers yet, retrying: %s", error)
                else:
                    log.exception("not registered with the schedulers yet, retrying")
                await asyncio.sleep(ANNOUNCE_PAUSE)

    async def announce(self, index: int) -> None:
        """A scheduler has restarted, and asks who is there."""
        if self._announced:
            with contextlib.suppress(ClusterError):
                await self._work(self._node.announce_at, index)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL)
            self._objects.expire(time.monotonic(), idle=self._settings.peer.loaded_ttl)
            try:
                self._node.telemetry.flush(FLUSH_INTERVAL)
                await self._work(self._node.measure)
            except Exception:
                log.exception("metrics not flushed")

    @ray.method(concurrency_group="health")
    async def ping(self) -> bool:
        """Never waits for work."""
        return True

    @ray.method(concurrency_group="health")
    async def brief(self) -> bytes:
        """As `ping`, with a `PeerStatus`."""
        known = self._follower.directives
        brief = self._node.brief()
        return encode(msgspec.structs.replace(brief, settings_version=known.version, marks_stamp=known.stamp))

    async def trust(self, public_keys: Sequence[bytes]) -> None:
        """The controller's signing keys: grants of these are taken from now on, and of no other."""
        self._verifier.trust(public_keys)

    async def direct(self, payload: bytes) -> bytes:
        """The controller's `Directives`; the answer is what is known here now."""
        if self._follower.take(Directives.decode(payload)):
            await self._work(self._node.configured)
        return self._follower.directives.encode()

    @ray.method(concurrency_group="health")
    async def carrying(self) -> bytes:
        """A `Carrying`: the deliveries under way."""
        return m.encode(self._node.carrying())

    async def call(self, payload: bytes, sender: str, number: int, objects: Sequence[Any] = ()) -> bytes:
        """A scheduler's message, and small content beside it; it comes again, with its number, until it is
        acknowledged by the answer."""
        message = m.decode_or_refuse(payload)
        if isinstance(message, m.Unsupported):  # again, it would not be understood either
            return m.encode(message)
        small: bytes | None = None
        if objects:
            with contextlib.suppress(CallFailure):
                found = await answered(objects[0], CALL_TIMEOUT, "content beside a delivery")
                small = memoryview(found).cast("B")  # type: ignore[assignment]
        await self._control(self._node.take, sender, number, message, small)
        return b""

    async def ask(self, payload: bytes) -> tuple[bytes, list[Any]]:
        """What a scheduler wants to know of the origin or of the store; content as an object where it is too long for
        a message."""
        question = m.decode_or_refuse(payload)
        refused = isinstance(question, m.Unsupported)
        answer = question if refused else await self._work(self._node.ask, question)
        if isinstance(answer, m.Resolved) and answer.content:
            transport = self._settings.transport
            beside = len(answer.content) > transport.small_inline and transport.carrier != "inline"
            if beside or transport.carrier == "object":
                reference = ray.put(np.frombuffer(answer.content, np.uint8))
                return m.encode(msgspec.structs.replace(answer, content=b"", beside=True)), [reference]
        return m.encode(answer), []

    async def status(self) -> dict[str, Any]:
        return await self._work(self._node.status)

    # --- for callers on this node -----------------------------------------------------------

    async def await_range(self, task_id: str, offset: int, length: int, timeout: float) -> bool:
        """Whether these bytes of the content are here, fetched first, within `timeout` seconds."""
        return await _run(
            self._threads.readers, self._node.reads.await_range, task_id, offset, length, timeout
        )

    async def layout(self, task_id: str) -> dict[str, Any] | None:
        """Where a reader on this node finds the bytes of a single file; None until it is known."""
        return await self._work(self._node.reads.layout, task_id)

    async def load(self, task_id: str) -> list[Any]:
        """The content as one object in Ray's store, put there once for all workers of the node."""
        held = self._objects.use(task_id, time.monotonic())
        if held is None:
            loading = self._loading.get(task_id)
            if loading is None:
                loading = self._loading[task_id] = asyncio.ensure_future(self._load(task_id))
                loading.add_done_callback(lambda _: self._loading.pop(task_id, None))
            held = await asyncio.shield(loading)
        return [held]

    async def _load(self, task_id: str) -> Any:
        reference, nbytes = await self._work(self._put, task_id)
        budget = self._settings.peer.loaded_bytes
        self._objects.keep(task_id, reference, nbytes, time.monotonic(), budget=budget)
        return reference

    def _put(self, task_id: str) -> tuple[Any, int]:
        with self._node.reads.mapped(task_id) as view:
            return ray.put(np.frombuffer(view, np.uint8)), len(view)

    async def pin(self, task_id: str, owner: str, expires: float | None) -> None:
        await self._work(self._node.store.pin, task_id, owner, expires)

    async def unpin(self, task_id: str, owner: str) -> None:
        await self._work(self._node.store.unpin, task_id, owner)

    async def pins(self, task_id: str) -> dict[str, float | None]:
        """Owner -> expiry."""
        return self._node.store.pins(task_id)

    async def manifest(self, task_id: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """How many entries there are, and a page of them."""
        return await self._work(self._node.manifest, task_id, offset, limit)

    async def evict(self, task_id: str) -> int:
        """Bytes freed."""
        self._objects.drop(task_id)
        return await self._work(self._node.evict, task_id)

    async def stop(self) -> None:
        await self._work(self._node.stop)
