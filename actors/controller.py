"""The controller as a Ray actor: keeps one peer on every eligible node, and the schedulers running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError

from dragonfly_ray import logs
from dragonfly_ray.actors import nodes
from dragonfly_ray.actors.connect import Actors
from dragonfly_ray.actors.failures import CallFailure, answered
from dragonfly_ray.actors.handles import CONTROLLER, as_actor, find, peer_name, scheduler_name
from dragonfly_ray.actors.scheduler import SchedulerActor
from dragonfly_ray.cluster_directives import Directives, Follower
from dragonfly_ray.config import Settings
from dragonfly_ray.keyring import KeyRing
from dragonfly_ray.private_folders import root_of
from dragonfly_ray.scheduling.reconciler import Action, Check, IdleSince, Kill, Reconciler, Start
from dragonfly_ray.statuses import NodeStatus, PeerState, PeerStatus, decode_peer, encode
from dragonfly_ray.targets import Member
from dragonfly_ray.telemetry import RaySink, Telemetry

log = logging.getLogger(__name__)

TICK = 0.5
DAY = 24 * 3600.0
READY_TIMEOUT = 60.0
CHECK_TIMEOUT = 5.0
STOP_TIMEOUT = 5.0
TELL_TIMEOUT = 5.0
LEARN_TIMEOUT = 5.0
"""Seconds that schedulers have to tell a restarted controller what they know, before it goes on without."""
NODE_ID_LABEL = "ray.io/node-id"
STATES: dict[str, PeerState] = {"starting": "starting", "healthy": "healthy", "failed": "unhealthy"}


class ControllerActor:
    """One a cluster, on the head node. After a restart it adopts what runs."""

    def __init__(self, settings: Settings) -> None:
        logs.setup(CONTROLLER, form=settings.log_format)
        self._base = settings
        self._follower = Follower(settings)
        self._settings = self._follower.settings
        root = root_of(settings.on_this_node().storage)
        self._ring_file = root / "keys" / f"{settings.namespace}.keyring"
        self._ring = KeyRing.load_or_create(self._ring_file)
        self._trusted = self._ring.public_keys()
        self._told: dict[str, list[bytes]] = {}
        """Node id -> the signing keys that its peer takes."""
        self._reconciler = Reconciler(interval=settings.peer.health_interval)
        self._rows: dict[str, dict[str, Any]] = {}
        self._telemetry: Telemetry | None = None
        self._restarts = 0
        """Since they were counted last."""
        self._started: set[str] = set()
        self._table: dict[str, dict[str, Any]] = {}
        self._peers: dict[str, Any] = {}
        self._actors = Actors(settings.namespace)
        self._said: dict[str, PeerStatus] = {}
        """What each node's peer said of itself last."""
        self._idle = IdleSince()
        self._telling: set[str] = set()
        """Actors that are being told of directives."""
        self._learnt = asyncio.Event()
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

    async def current(self) -> tuple[Settings, frozenset[str]]:
        """The settings, and the nodes that are cordoned or draining."""
        self._start()
        return self._settings, self._follower.directives.cordoned

    # --- directives -------------------------------------------------------------------------

    async def directives(self) -> bytes:
        """As they are known here; a scheduler that was restarted asks."""
        self._start()
        return self._follower.directives.encode()

    async def signing_key(self) -> bytes:
        """The private key of grants. Schedulers ask for it: the arguments of an actor's creation are kept in
        Ray's control store, the answers of its calls are not."""
        return self._ring.active

    async def rotate_signing_key(self) -> bool:
        """Another key signs as soon as every peer takes it; grants of the one before hold until they end.

        False: one that peers do not all take yet is to follow already.
        """
        ring = self._ring.rotated(time.time())
        begun = ring != self._ring
        self._keep(ring)
        return begun

    def _keep(self, ring: KeyRing) -> None:
        if ring != self._ring:
            ring.save(self._ring_file)
            self._ring, self._trusted = ring, ring.public_keys()

    def _advance_keys(self) -> None:
        known = self._settings.scheduler
        before = self._ring.active
        self._keep(
            self._ring.advanced(
                time.time(),
                ttl=known.grant_ttl,
                max_age=known.signing_key_days * DAY,
                told=all(self._told.get(node) == self._trusted for node in self._peers),
            )
        )
        if self._ring.active != before:
            log.info(
                "signing grants with a new key; grants of the previous key are accepted until they expire"
            )

    async def _tell_keys(self, node: str) -> None:
        trusted = self._trusted
        if self._told.get(node) != trusted:
            await answered(self._peers[node].trust.remote(trusted), CHECK_TIMEOUT, peer_name(node))
            self._told[node] = trusted

    async def configured(self) -> tuple[int, Settings]:
        """The version of the changes that hold, and the settings with them."""
        await self._ready_to_change()
        return self._follower.directives.version, self._settings

    async def configure(self, version: int, changes: dict[str, Any]) -> int:
        """Live settings, by their dotted names; what is not named is as at the start.

        An older version than the one that holds changes nothing. Returns the one that holds.
        Raises `InvalidRequestError`.
        """
        await self._ready_to_change()
        self._follower.check(changes)
        self._direct(Directives(version, changes))
        await self._kept()
        return self._follower.directives.version

    async def mark(self, node: str, cordoned: bool | None, draining: bool | None) -> None:
        """None: as it was."""
        await self._ready_to_change()
        known = self._follower.directives
        self._direct(known.marked(node, time.time(), cordoned=cordoned, draining=draining))
        await self._kept()

    async def _kept(self) -> None:
        """Others know it, too: it is not lost with this process."""
        names = [scheduler_name(i) for i in range(self._settings.scheduler.shards)]
        await asyncio.gather(*(self._tell(name, again=True) for name in names))

    async def _ready_to_change(self) -> None:
        """What others know comes first: this may be a restart."""
        self._start()
        await self._learnt.wait()

    def _direct(self, heard: Directives) -> None:
        """Takes over what is newer, and tells everybody."""
        known = self._follower.directives
        if self._follower.take(msgspec.structs.replace(heard, leaving=known.leaving)):
            self._reconciler.interval = self._settings.peer.health_interval
        if self._follower.directives != known:
            self._tell_all()

    def _tell_all(self) -> None:
        for index in range(self._settings.scheduler.shards):
            self._spawn(self._tell(scheduler_name(index)))
        for node in self._peers:
            self._spawn(self._tell(peer_name(node), again=True))

    async def _tell(self, name: str, *, again: bool = False) -> None:
        """Gives out the directives, and hears whether the other knows newer ones.

        `again`: even while an earlier call is under way.
        """
        if name in self._telling and not again:
            return
        self._telling.add(name)
        try:
            known = self._follower.directives.encode()
            self._direct(
                Directives.decode(await self._actors.ask(name, "direct", known, timeout=TELL_TIMEOUT))
            )
        except (CallFailure, ValueError) as error:
            log.info("%s not notified: %s", name, error)
        finally:
            self._telling.discard(name)

    async def _learn(self) -> None:
        """From the schedulers; peers tell with their next health check."""
        names = [scheduler_name(i) for i in range(self._settings.scheduler.shards)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(self._tell(name) for name in names)), LEARN_TIMEOUT)
        self._learnt.set()

    # --- what it sees -----------------------------------------------------------------------

    async def overview(self) -> bytes:
        """Every node with what its peer said last: a tuple of `NodeStatus`."""
        self._start()
        if not self._table:
            self._table = {r["NodeID"]: r for r in await asyncio.to_thread(nodes.table)}
        members = nodes.members_of(self._table.values(), self._settings.peer)
        return encode([self._status(member) for member in members])

    def _status(self, member: Member) -> NodeStatus:
        found = self._reconciler.peers.get(member.node_id)
        mark = self._follower.directives.marks.get(member.node_id)
        draining = member.node_id in self._follower.directives.draining
        state: PeerState = STATES[found.state] if found else "missing"
        if state == "healthy" and draining:
            state = "drained" if self._idle.for_long(member.node_id) else "draining"
        return NodeStatus(
            node_id=member.node_id,
            address=member.address,
            name=member.name,
            hostname=member.hostname,
            labels=dict(member.labels),
            alive=member.alive,
            seed=member.seed,
            state=state,
            cordoned=bool(mark and mark.cordoned),
            draining=draining,
            reason=found.reason if found and found.state != "healthy" else "",
            peer=self._said.get(member.node_id),
            drain_ordered=bool(mark and mark.draining),
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
        with contextlib.suppress(CallFailure):
            await answered(peer.stop.remote(), STOP_TIMEOUT, name)
        ray.kill(peer, no_restart=True)

    # --- the loop ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._loop is None and not self._stopped:
            self._loop = asyncio.ensure_future(self._run())
            self._spawn(self._learn())

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Exception:
                # One bad round must not be the last: the next looks at everything again.
                log.exception("reconcile round failed")
            await asyncio.sleep(TICK)

    async def _round(self) -> None:
        for index in range(self._settings.scheduler.shards):
            self._ensure_scheduler(index)
            self._spawn(self._tell(scheduler_name(index)))
        rows, leaving = await asyncio.to_thread(lambda: (nodes.table(), nodes.leaving()))
        if leaving != self._follower.directives.leaving:
            known = self._follower.directives
            self._follower.take(msgspec.structs.replace(known, leaving=leaving))
            self._tell_all()
        self._table = {r["NodeID"]: r for r in rows}
        self._rows = {r["NodeID"]: r for r in rows if nodes.is_eligible(r, self._settings.peer)}
        self._said = {node: said for node, said in self._said.items() if node in self._rows}
        self._told = {node: told for node, told in self._told.items() if node in self._rows}
        self._started.intersection_update(self._rows)
        self._idle.keep(self._rows)
        for action in self._reconciler.tick(self._rows, time.monotonic()):
            self._act(action)
        self._advance_keys()
        self._measure()

    def _measure(self) -> None:
        # Not in the constructor: Ray's metrics want a running worker.
        self._telemetry = self._telemetry or Telemetry(RaySink("actor"), actor=CONTROLLER)
        healthy = sum(p.state == "healthy" for n, p in self._reconciler.peers.items() if n in self._rows)
        self._telemetry.gauge("dragonfly_peers", len(self._rows))
        self._telemetry.gauge("dragonfly_unhealthy_peers", len(self._rows) - healthy)
        self._telemetry.count("dragonfly_peer_restarts", self._restarts)
        self._restarts = 0
        self._telemetry.flush(TICK)

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
            ).remote(index, self._base)

    def _act(self, action: Action) -> None:
        match action:
            case Start(node):
                self._restarts += node in self._started
                self._started.add(node)
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
        # Here, so that a driver that starts a controller loads neither the store nor pycurl.
        from dragonfly_ray.actors.peer import PeerActor

        name = peer_name(node)
        self._told.pop(node, None)
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
                        nodes.identity(self._rows[node], self._base.peer),
                        self._base,
                        self._trusted,
                        self._follower.directives.encode(),
                    )
                )
            self._peers[node] = peer
            self._actors.forget(name)
            await answered(peer.ready.remote(), READY_TIMEOUT, name)
            self._reconciler.ready(node, time.monotonic())
        except (CallFailure, RayError, ValueError, KeyError) as error:
            why = _line(error.cause if isinstance(error, CallFailure) else error)
            log.warning("the peer of node %.12s did not start: %s", node, why)
            self._kill(node)
            self._reconciler.failed(node, why, time.monotonic())

    async def _check(self, node: str) -> None:
        peer = self._peers.get(node)
        if peer is None:
            self._lost(node, "no actor handle")
            return
        try:
            brief = await answered(peer.brief.remote(), CHECK_TIMEOUT, peer_name(node))
            self._heard(node, decode_peer(brief))
            await self._tell_keys(node)
        except CallFailure as failure:
            if failure.verdict == "died":
                self._lost(node, str(failure))
                return
            self._unanswered(node)
        except Exception:  # whatever it is, the peer is to be checked again
            log.exception("the peer of node %.12s sent an invalid status", node)
            self._unanswered(node)
        else:
            self._reconciler.healthy(node, time.monotonic())

    def _unanswered(self, node: str) -> None:
        for action in self._reconciler.unanswered(node, time.monotonic()):
            self._act(action)

    def _lost(self, node: str, why: str) -> None:
        log.warning("lost the peer of node %.12s: %s", node, why)
        self._kill(node)
        self._reconciler.died(node, time.monotonic())

    def _heard(self, node: str, said: PeerStatus) -> None:
        self._said[node] = said
        known = self._follower.directives
        if (said.settings_version, said.marks_stamp) != (known.version, known.stamp):
            self._spawn(self._tell(peer_name(node)))
        if node in known.draining:
            self._idle.seen(node, bool(said.active_tasks or said.children), time.monotonic())
        else:
            self._idle.forget(node)

    def _kill(self, node: str) -> None:
        peer = self._peers.pop(node, None) or find(peer_name(node), self._settings.namespace)
        if peer is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(peer, no_restart=True)


def _line(error: BaseException) -> str:
    """The last line of an error: Ray's own hold whole stack traces."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
