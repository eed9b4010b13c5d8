"""The scheduler as a Ray actor: a shell that carries messages between peers and `SchedulerCore`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from dragonfly_ray import logs
from dragonfly_ray import messages as m
from dragonfly_ray.actors import nodes
from dragonfly_ray.actors.connect import Actors
from dragonfly_ray.actors.failures import CallFailure
from dragonfly_ray.actors.handles import CONTROLLER, peer_name, scheduler_name
from dragonfly_ray.cluster_directives import Directives, Follower
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import NotRunningError
from dragonfly_ray.grants import GrantIssuer, SigningKey
from dragonfly_ray.keyring import LEARNT
from dragonfly_ray.model import Credentials, Host, Task
from dragonfly_ray.scheduling import views
from dragonfly_ray.scheduling.dispatch import dispatch
from dragonfly_ray.scheduling.origin_retry import patience_with_helper
from dragonfly_ray.scheduling.outbox import Outbox, Queued
from dragonfly_ray.scheduling.scheduler import Action, Ask, Compare, Probe, SchedulerCore, Send, Tell, Verdict
from dragonfly_ray.scheduling.staleness import StalenessClock
from dragonfly_ray.statuses import TaskList, encode
from dragonfly_ray.telemetry import RaySink, Telemetry

log = logging.getLogger(__name__)

TICK = 0.25
MEMBERSHIP = 1.0
"""Seconds between looks at Ray's list of nodes, while somebody waits for one."""
PING_TIMEOUT = 2.0
SEND_TIMEOUT = 10.0
FIRST_RETRY = 0.1
LONGEST_RETRY = 2.0
"""Seconds until a message that was not acknowledged is sent again."""
GATHER = 0.2
"""Seconds in which a watcher's news are gathered into one answer; an end is told at once. What is over sooner costs one
answer."""
LISTED_FOR = 1.0
"""Seconds for which one listing of all tasks serves everybody who asks."""
LISTED_AT_ONCE = 8
RECORD_WAIT = 0.25
"""Seconds for which the answer to a `Verify` waits for what others have to tell."""
LEARN_TIMEOUT = 15.0
KEY_TIMEOUT, KEY_RETRY = 5.0, 0.2
"""Seconds for one request for the signing key, and until the next."""
KEY_REFRESH = LEARNT / 2


class SchedulerActor:
    """Soft state: whatever it knows, peers announce and submitters submit again after a restart."""

    def __init__(self, index: int, settings: Settings) -> None:
        logs.setup(scheduler_name(index), form=settings.log_format)
        self._index = index
        self._follower = Follower(settings)
        self._settings = self._follower.settings
        self._issuer: GrantIssuer | None = None
        self._keyed = asyncio.Event()
        """Set once grants can be signed. Nothing that needs one is looked at before."""
        self._core = SchedulerCore(self._settings, self._sign)
        self._actors = Actors(settings.namespace)
        self._objects: dict[str, list[Any]] = {}
        self._probing: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._dirty = False
        self._started = False
        self._telemetry: Telemetry | None = None
        self._granted = 0
        self._complaints = 0
        self._ages = StalenessClock()
        self._listing: asyncio.Task[bytes] | None = None
        self._listed = 0.0
        self._outbox = Outbox()
        self._session = f"{index}:{secrets.token_hex(8)}"
        """With it, a peer tells a message that comes again from one of this actor's predecessor."""
        self._pumps: dict[str, asyncio.Event] = {}
        """Hosts that are being told something, and what ends the pause before it is tried again."""
        self._pages = asyncio.Lock()
        self._comparing: dict[str, bool] = {}
        """Hosts that are asked what they carry, and whether something has been sent to them since."""

    def __repr__(self) -> str:
        return f"Scheduler({self._index})"

    def _sign(self, task: Task, host: Host) -> bytes:
        assert self._issuer is not None, "messages are queued until the signing key arrives"
        ttl = self._settings.scheduler.grant_ttl
        return self._issuer.issue(task.id, host.id, host.key, task.tenant, ttl)

    async def ready(self) -> bool:
        self._start()
        return True

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._spawn(self._fetch_key())
            self._spawn(self._tick_loop())
            self._spawn(self._membership_loop())
            self._spawn(self._telemetry_loop())
            self._spawn(self._learn())
            self._spawn(self._gather())

    async def _fetch_key(self) -> None:
        """From the controller, which may be restarting, too; and again and again, since it may be replaced."""
        while True:
            try:
                key = await self._actors.ask(CONTROLLER, "signing_key", timeout=KEY_TIMEOUT)
                self._issuer = GrantIssuer(SigningKey.from_private_bytes(key))
                self._keyed.set()
            except CallFailure as failure:
                log.info("signing key not received: %s", failure)
            await asyncio.sleep(KEY_RETRY if self._issuer is None else KEY_REFRESH)

    async def _learn(self) -> None:
        """Directives that came after this actor was made: it may have been restarted since.

        The controller tells them, too, as soon as it looks.
        """
        with contextlib.suppress(CallFailure, ValueError):
            await self.direct(await self._actors.ask(CONTROLLER, "directives", timeout=LEARN_TIMEOUT))

    async def direct(self, payload: bytes) -> bytes:
        """The controller's `Directives`; the answer is what is known here now."""
        self._start()
        if self._follower.take(Directives.decode(payload)):
            self._core.configured()
        known = self._follower.directives
        self._act(self._core.mark(known.cordoned, known.draining, time.monotonic()))
        return known.encode()

    async def _gather(self) -> None:
        """Asks every peer that runs already to announce itself: this may be a restart."""
        rows = await asyncio.to_thread(nodes.table)
        self._call_for(row["NodeID"] for row in rows if row["Alive"])

    def _call_for(self, node_ids: Iterable[str]) -> None:
        for node in node_ids:
            with contextlib.suppress(NotRunningError):
                self._actors.start(peer_name(node), "announce", self._index)

    # --- callers ----------------------------------------------------------------------------

    async def call(self, payload: bytes) -> bytes:
        """A peer's message and its answer, both encoded; empty where there is none."""
        self._start()
        await self._keyed.wait()
        message = m.decode_or_refuse(payload)
        match message:
            case m.Unsupported():
                answer: m.Message | None = message
            case m.Stat():
                answer = await self._look(message)
            case m.Announce():
                answer = await self._announced(message)
            case m.Verify():
                answer = await self._verified(message)
            case _:
                answer = self._dispatch(message)
        return b"" if answer is None else m.encode(answer)

    def _dispatch(self, message: m.Message) -> m.Message | None:
        answer, actions = dispatch(self._core, message, time.monotonic())
        self._act(actions)
        return answer

    async def _verified(self, message: m.Verify) -> m.Message | None:
        """What others fill in any moment is waited for: whoever asks would ask again and again."""
        answer, until = self._dispatch(message), time.monotonic() + RECORD_WAIT
        while isinstance(answer, m.Verified) and self._core.waits_for_others(message, answer):
            if time.monotonic() >= until:
                break
            await self._change(until)
            answer = msgspec.structs.replace(self._core.verify(message), reply=answer.reply)
        return answer

    async def _change(self, until: float) -> None:
        """Waits for news, at most until then."""
        with contextlib.suppress(TimeoutError):
            async with self._changed:
                await asyncio.wait_for(self._changed.wait(), until - time.monotonic())

    async def _taken(self, message: m.Announce) -> str:
        """The node of another live peer with this host id: machines were cloned with their stores."""
        host, rival = message.host, self._core.rival(message)
        if rival is None or await self._verdict(host.id) != "alive":
            return ""
        name = rival.name or rival.node_id
        log.error(
            "host id %s of node %s is already used by node %s; it gets a new one", host.id, host.name, name
        )
        return name

    async def _announced(self, message: m.Announce) -> m.Message | None:
        """One page at a time, and reports in between: after a restart all peers announce at once."""
        if taken := await self._taken(message):
            return m.Announced(taken=taken)
        async with self._pages:
            if not message.page:
                self._actors.forget(peer_name(message.host.node_id))
            if pump := self._pumps.get(message.host.id):
                pump.set()
            answer = self._dispatch(message)
            await asyncio.sleep(0)
        return answer

    async def submit(self, payload: bytes, credentials: Credentials) -> None:
        self._start()
        await self._keyed.wait()
        spec = m.decode(payload)
        if isinstance(spec, m.DistributionSpec):
            self._act(self._core.submit(spec, credentials, time.monotonic()))

    async def watch(self, known: dict[str, int], timeout: float) -> dict[str, dict[str, Any] | None]:
        """The specs of `known` (id -> version) that differ, at once if one has ended. A sign of life, too."""
        now = time.monotonic()
        deadline, gathered = now + timeout, now + min(GATHER, timeout)
        while True:
            now = time.monotonic()
            urgent, news = self._core.news(known, now)
            if urgent or now >= deadline or (news and now >= gathered):
                return {spec_id: self._core.view(spec_id) for spec_id in news}
            await self._change(gathered if news else deadline)

    async def submit_and_watch(
        self, payloads: Sequence[bytes], credentials: Credentials, known: dict[str, int], timeout: float
    ) -> dict[str, dict[str, Any] | None]:
        """Both in one call."""
        for payload in payloads:
            await self.submit(payload, credentials)
        return await self.watch(known, timeout)

    async def cancel(
        self, spec_id: str, kind: str = "cancelled", message: str = "cancelled", run: str = ""
    ) -> None:
        self._act(self._core.cancel(spec_id, time.monotonic(), kind, message, run))

    async def find(self, prefix: str) -> list[str]:
        """The ids of the specs that start so."""
        return [spec_id for spec_id in self._core.specs if spec_id.startswith(prefix)]

    async def spec(self, spec_id: str) -> bytes:
        state = self._core.specs.get(spec_id)
        return m.encode(state.spec) if state else b""

    async def where(self, source_id: str) -> dict[str, float]:
        return self._core.where(source_id)

    async def held(self, source_id: str) -> dict[str, list[str]]:
        """Node id -> the ids of the tasks of this source that it holds something of."""
        return self._core.held(source_id)

    async def patience(self, origin: str, seconds: float) -> None:
        """Another scheduler's origin answered HTTP 429 or 503; it may be ours too."""
        self._act(self._core.patience(origin, seconds, time.monotonic()))

    async def decisions(self, task_id: str | None = None) -> list[Any]:
        return self._core.decisions.recent(task_id)

    async def edges(self, task_id: str, most: int = 10_000) -> list[dict[str, Any]]:
        """Who feeds whom in a task; see `SchedulerCore.edges`."""
        return self._core.edges(task_id, most)

    async def tasks(self) -> bytes:
        """A `TaskList`; at most a second old."""
        if self._listing is None or time.monotonic() - self._listed > LISTED_FOR:
            self._listed = time.monotonic()
            self._listing = asyncio.ensure_future(self._list())
        return await asyncio.shield(self._listing)

    async def _list(self) -> bytes:
        number: dict[str, int] = {}
        found = []
        for count, task in enumerate(list(self._core.tasks.values())):
            found.append(views.summary(self._core.cluster, task, number))
            if count % LISTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # reports do not wait for it
        return encode(TaskList(tuple(number), tuple(found)))

    async def keepers(self, task_id: str) -> list[str]:
        """The nodes that hold something of a task, those that have its manifest first."""
        return self._core.keepers(task_id)

    async def availability(self, task_id: str, cells: int) -> tuple[int, int, dict[str, bytes]] | None:
        return self._core.availability(task_id, cells)

    async def ping(self) -> int:
        """The process's id."""
        return os.getpid()

    async def status(self) -> dict[str, Any]:
        return {"index": self._index, "pid": os.getpid(), **self._core.status()}

    # --- actions ----------------------------------------------------------------------------

    def _act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(host, message):
                    self._push(host, message)
                case Ask():
                    self._spawn(self._ask(action))
                case Probe(host):
                    if host not in self._probing:
                        self._probing.add(host)
                        self._spawn(self._probe(host))
                case Compare(host):
                    if host not in self._comparing:
                        self._spawn(self._compare(host))
                case Tell(origin, seconds):
                    self._spawn(self._tell(origin, seconds))
        self._dirty = True
        self._spawn(self._wake())

    async def _wake(self) -> None:
        if self._dirty:
            self._dirty = False
            async with self._changed:
                self._changed.notify_all()

    def _spawn(self, work: Any) -> None:
        job: asyncio.Task[None] = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _push(self, host: str, message: m.Message) -> None:
        """In order for each host, and without waiting for any."""
        known = self._core.hosts.get(host)
        if known is None:
            return
        if host in self._comparing:
            self._comparing[host] = True
        if not self._outbox.push(host, known.host.incarnation, message):
            log.warning("outbox of host %s overflowed; redelivering its open distributions", host)
            self._act(self._core.deliver_again(host, time.monotonic()))
        if host not in self._pumps:
            self._pumps[host] = asyncio.Event()
            self._spawn(self._pump(host, self._pumps[host]))

    async def _pump(self, host: str, back: asyncio.Event) -> None:
        """Until the host has acknowledged everything, or is given up."""
        try:
            await self._send_queued(host, back)
        finally:
            del self._pumps[host]

    async def _send_queued(self, host: str, back: asyncio.Event) -> None:
        pause = FIRST_RETRY
        while queued := self._outbox.head(host):
            if not self._core.cluster.alive(host):
                self._outbox.drop(host)
                return
            try:
                await self._say(host, queued)
            except CallFailure as failure:
                if failure.verdict != "alive":
                    log.info("host %s not reached: %s", host, failure)
                    self._act([Probe(host)])
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(back.wait(), pause)
                    back.clear()
                    pause = min(LONGEST_RETRY, 2 * pause)
                    continue
                # It came, and would fail again: the next comparison finds out what the host lacks.
                log.error("host %s rejected a %s: %s", host, type(queued.message).__name__, failure)
            except Exception:  # of ours: what comes behind it must not wait for ever
                log.exception("host %s: a %s could not be sent", host, type(queued.message).__name__)
            pause = FIRST_RETRY
            self._outbox.acknowledged(host, queued.number)

    async def _say(self, host: str, queued: Queued) -> None:
        message = queued.message
        said: list[Any] = [m.encode(message), self._session, queued.number]
        if isinstance(message, m.Deliver) and message.beside:
            said.append(self._objects.get(message.spec.id, []))
        if answer := await self._ask_peer(host, "call", *said, timeout=SEND_TIMEOUT):
            log.error("host %s rejected a %s: %s", host, type(message).__name__, m.decode(answer))

    async def _compare(self, host: str) -> None:
        if self._outbox.pending(host):
            return
        self._comparing[host] = False
        try:
            answer = m.decode(await self._ask_peer(host, "carrying", timeout=PING_TIMEOUT))
            if isinstance(answer, m.Carrying) and not self._comparing[host]:
                self._act(self._core.compare(answer, time.monotonic()))
        except (CallFailure, ValueError) as error:
            log.info("host %s did not report its open downloads: %s", host, error)
            self._act([Probe(host)])
        finally:
            del self._comparing[host]

    async def _ask_peer(self, host: str, method: str, *args: Any, timeout: float | None) -> Any:
        """Raises `CallFailure`."""
        name = peer_name(self._core.hosts[host].host.node_id)
        return await self._actors.ask(name, method, *args, timeout=timeout)

    async def _ask(self, ask: Ask) -> None:
        question = type(ask.message).__name__
        try:
            payload, objects = await self._answer(
                ask, self._ask_peer(ask.host, "ask", m.encode(ask.message), timeout=None)
            )
            answer = m.decode(payload)
            if objects:
                self._objects[ask.spec_id] = objects
            actions = self._core.answered(ask, answer, time.monotonic())
        except Exception as error:  # an unexpected one, too, must not leave the distribution waiting for ever
            unexpected = not isinstance(error, (CallFailure, ValueError, TimeoutError))
            why = str(error) or type(error).__name__
            log.warning("host %s did not answer %s: %s", ask.host, question, why, exc_info=unexpected)
            actions = [Probe(ask.host), *self._core.unanswered(ask, time.monotonic())]
        self._act(actions)

    async def _answer(self, ask: Ask, call: Coroutine[Any, Any, Any]) -> Any:
        """As long as the look goes on; raises `TimeoutError`."""
        work, asked = asyncio.ensure_future(call), time.monotonic()
        try:
            while (left := self._core.overdue_at(ask, asked) - time.monotonic()) > 0:
                done, _ = await asyncio.wait({work}, timeout=left)
                if done:
                    return work.result()
            raise TimeoutError
        finally:
            work.cancel()

    async def _look(self, message: m.Stat) -> m.Message:
        """Passes it on to the peer that is meant."""
        if not self._core.may_look(message):
            return m.StatReply(
                kind="cluster", message=f"host {message.host} is not a helper of this distribution"
            )
        try:
            patience = patience_with_helper(self._settings.origin)
            payload, _ = await self._ask_peer(message.host, "ask", m.encode(message), timeout=patience)
            return m.decode(payload)
        except (CallFailure, ValueError) as error:
            self._act([Probe(message.host)])
            return m.StatReply(kind="cluster", message=f"host {message.host}: {error}")

    async def _probe(self, host: str) -> None:
        try:
            incarnation = self._core.hosts[host].host.incarnation
            verdict = await self._verdict(host)
            self._act(self._core.probed(host, verdict, time.monotonic(), incarnation))
        finally:
            self._probing.discard(host)

    async def _verdict(self, host: str) -> Verdict:
        try:
            await self._ask_peer(host, "ping", timeout=PING_TIMEOUT)
        except CallFailure as failure:
            return failure.verdict
        return "alive"

    async def _tell(self, origin: str, seconds: float) -> None:
        for index in range(self._settings.scheduler.shards):
            if index != self._index:
                with contextlib.suppress(CallFailure):
                    name = scheduler_name(index)
                    await self._actors.ask(name, "patience", origin, seconds, timeout=SEND_TIMEOUT)

    # --- time -------------------------------------------------------------------------------

    async def _tick_loop(self) -> None:
        await self._every(TICK, self._tick)

    async def _tick(self) -> None:
        self._act(self._core.tick(time.monotonic()))
        for spec_id in [s for s in self._objects if self._core.over(s)]:
            del self._objects[spec_id]

    async def _membership_loop(self) -> None:
        await self._every(MEMBERSHIP, self._membership)

    async def _telemetry_loop(self) -> None:
        await self._every(1.0, self._flush)

    async def _flush(self) -> None:
        if self._telemetry is None:
            self._telemetry = Telemetry(RaySink("actor"), actor=scheduler_name(self._index))
        granted = sum(t.leases.granted for t in self._core.tasks.values())
        self._telemetry.count("dragonfly_leases", max(0, granted - self._granted))
        self._granted = granted
        self._telemetry.gauge(
            "dragonfly_active_tasks", sum(bool(t.participants) for t in self._core.tasks.values())
        )
        age = self._ages.look(self._core.specs.values(), time.monotonic())
        self._telemetry.gauge("dragonfly_distributions", age.running)
        self._telemetry.gauge("dragonfly_oldest_distribution_seconds", age.oldest)
        self._telemetry.gauge("dragonfly_stalled_distribution_seconds", age.silent)
        complaints = self._core.cluster.complaints
        self._telemetry.count("dragonfly_origin_throttled", complaints - self._complaints)
        self._complaints = complaints
        self._telemetry.flush()

    async def _membership(self) -> None:
        waited, missed = self._core.awaited(), self._core.missed()
        if not waited and not missed:
            return
        alive = {n["NodeID"] for n in await asyncio.to_thread(nodes.table) if n["Alive"]}
        for node in waited - alive:
            self._act(self._core.node_gone(node, time.monotonic()))
        self._call_for(alive.intersection(missed))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                # One bad round must not be the last: everything here is tried again by the next.
                log.exception("scheduler %d: tick failed", self._index)
