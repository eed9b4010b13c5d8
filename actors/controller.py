"""The controller as a Ray actor: keeps one peer on every eligible node, and the schedulers running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError

from dragonfly_ray import logs
from dragonfly_ray.actors import nodes
from dragonfly_ray.actors.handles import CONTROLLER, as_actor, find, peer_name, scheduler_name
from dragonfly_ray.actors.peer import PeerActor
from dragonfly_ray.actors.scheduler import SchedulerActor
from dragonfly_ray.config import Settings
from dragonfly_ray.grants import SigningKey
from dragonfly_ray.scheduling.reconciler import Action, Check, Kill, Reconciler, Start
from dragonfly_ray.statuses import NodeStatus, PeerState, PeerStatus, decode_peer, encode
from dragonfly_ray.targets import Member

log = logging.getLogger(__name__)

TICK = 0.5
READY_TIMEOUT = 60.0
CHECK_TIMEOUT = 5.0
STOP_TIMEOUT = 5.0
NODE_ID_LABEL = "ray.io/node-id"


class ControllerActor:
    """One a cluster, on the head node. After a restart it adopts what runs."""

    def __init__(self, settings: Settings) -> None:
        logs.setup(CONTROLLER, form=settings.log_format)
        self._settings = settings
        root = settings.on_this_node().storage.root
        key = SigningKey.load_or_create(root / "keys" / f"{settings.namespace}.key")
        self._private, self._public = key.private_bytes(), key.public_bytes()
        self._reconciler = Reconciler(interval=settings.peer.health_interval)
        self._rows: dict[str, dict[str, Any]] = {}
        self._table: dict[str, dict[str, Any]] = {}
        self._peers: dict[str, Any] = {}
        self._said: dict[str, PeerStatus] = {}
        """What each node's peer said of itself last."""
        self._jobs: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._stopped = False

    def __repr__(self) -> str:
        return "Controller"

    async def ready(self) -> bool:
        self._start()
        return True

    async def settings(self) -> Settings:
        self._start()
        return self._settings

    async def peers(self) -> dict[str, dict[str, Any]]:
        """Node id -> the state of its peer."""
        self._start()
        return {
            node: {"state": p.state, "failures": p.failures, "reason": p.reason}
            for node, p in self._reconciler.peers.items()
        }

    async def overview(self) -> bytes:
        """Every node with what its peer said last: a tuple of `NodeStatus`."""
        self._start()
        if not self._table:
            self._table = {r["NodeID"]: r for r in await asyncio.to_thread(nodes.table)}
        members = nodes.members_of(self._table.values(), self._settings.peer)
        return encode([self._status(member) for member in members])

    def _status(self, member: Member) -> NodeStatus:
        found = self._reconciler.peers.get(member.node_id)
        states: dict[str, PeerState] = {"starting": "starting", "healthy": "healthy", "failed": "unhealthy"}
        return NodeStatus(
            node_id=member.node_id,
            address=member.address,
            name=member.name,
            hostname=member.hostname,
            labels=dict(member.labels),
            alive=member.alive,
            seed=member.seed,
            state=states[found.state] if found else "missing",
            reason=found.reason if found and found.state != "healthy" else "",
            peer=self._said.get(member.node_id),
        )

    @ray.method(concurrency_group="health")
    async def ping(self) -> int:
        """The process's id."""
        return os.getpid()

    async def stop(self) -> None:
        """Stops peers and schedulers; what they stored stays."""
        self._stopped = True
        for job in [self._loop, *self._jobs]:
            if job:
                job.cancel()
        rows = await asyncio.to_thread(nodes.table)
        names = {peer_name(row["NodeID"]) for row in rows}
        await asyncio.gather(*(self._stop_peer(name) for name in names))
        for index in range(self._settings.scheduler.shards):
            scheduler = find(scheduler_name(index), self._settings.namespace)
            if scheduler is not None:
                ray.kill(scheduler, no_restart=True)

    async def _stop_peer(self, name: str) -> None:
        peer = find(name, self._settings.namespace)
        if peer is None:
            return
        with contextlib.suppress(RayError, TimeoutError):
            await asyncio.wait_for(_result(peer.stop.remote()), STOP_TIMEOUT)
        ray.kill(peer, no_restart=True)

    # --- the loop ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._loop is None and not self._stopped:
            self._loop = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Exception:
                # One bad round must not be the last: the next looks at everything again.
                log.exception("a round failed")
            await asyncio.sleep(TICK)

    async def _round(self) -> None:
        for index in range(self._settings.scheduler.shards):
            self._ensure_scheduler(index)
        rows = await asyncio.to_thread(nodes.table)
        self._table = {r["NodeID"]: r for r in rows}
        self._rows = {r["NodeID"]: r for r in rows if nodes.is_eligible(r, self._settings.peer)}
        self._said = {node: said for node, said in self._said.items() if node in self._rows}
        for action in self._reconciler.tick(self._rows, time.monotonic()):
            self._act(action)

    def _ensure_scheduler(self, index: int) -> None:
        name = scheduler_name(index)
        if find(name, self._settings.namespace) is not None:
            return
        with contextlib.suppress(ValueError):
            as_actor(SchedulerActor).options(
                name=name,
                namespace=self._settings.namespace,
                lifetime="detached",
                max_restarts=-1,
                num_cpus=0,
                max_concurrency=100_000,
                # The first lives and dies with the head: another node's death takes Ray most of a
                # minute to notice, and its scheduler would be away for as long.
                resources={"node:__internal_head__": 0.001} if index == 0 else {},
                scheduling_strategy="DEFAULT" if index == 0 else "SPREAD",
            ).remote(index, self._settings, self._private)

    def _act(self, action: Action) -> None:
        match action:
            case Start(node):
                self._spawn(self._bring_up(node))
            case Check(node):
                self._spawn(self._check(node))
            case Kill(node):
                self._kill(node)

    def _spawn(self, work: Any) -> None:
        job: asyncio.Task[None] = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _bring_up(self, node: str) -> None:
        name = peer_name(node)
        try:
            peer = find(name, self._settings.namespace)
            if peer is None:
                peer = (
                    as_actor(PeerActor, health=1)
                    .options(
                        name=name,
                        namespace=self._settings.namespace,
                        lifetime="detached",
                        max_restarts=0,
                        num_cpus=0,
                        label_selector={NODE_ID_LABEL: node},
                        max_concurrency=1000,
                    )
                    .remote(
                        nodes.identity(self._rows[node], self._settings.peer), self._settings, [self._public]
                    )
                )
            self._peers[node] = peer
            await asyncio.wait_for(_result(peer.ready.remote()), READY_TIMEOUT)
            self._reconciler.ready(node, time.monotonic())
        except (RayError, ValueError, TimeoutError, KeyError) as error:
            log.warning("the peer of node %.12s did not start: %s", node, _line(error))
            self._kill(node)
            self._reconciler.failed(node, _line(error), time.monotonic())

    async def _check(self, node: str) -> None:
        try:
            said = await asyncio.wait_for(_result(self._peers[node].brief.remote()), CHECK_TIMEOUT)
            self._said[node] = decode_peer(said)
            self._reconciler.healthy(node, time.monotonic())
        except (TimeoutError, ActorUnavailableError):
            for action in self._reconciler.unanswered(node, time.monotonic()):
                self._act(action)
        except (RayActorError, KeyError) as error:
            log.warning("the peer of node %.12s is gone: %s", node, type(error).__name__)
            if not isinstance(error, ActorDiedError):
                self._kill(node)
            self._peers.pop(node, None)
            self._reconciler.died(node, time.monotonic())

    def _kill(self, node: str) -> None:
        peer = self._peers.pop(node, None) or find(peer_name(node), self._settings.namespace)
        if peer is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(peer, no_restart=True)


def _line(error: BaseException) -> str:
    """The last line of an error: Ray's own hold whole stack traces."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


async def _result(reference: Any) -> Any:
    return await reference
