"""The scheduler's decisions: messages in (with the time), actions out.

Soft state only. Everything here can be rebuilt from what peers announce and from what submitters
submit again, so losing it costs a moment and no data.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.model import Credentials, Host, Task
from dragonfly_ray.scheduling import bits as bitset
from dragonfly_ray.scheduling.budget import OriginBudget
from dragonfly_ray.scheduling.decisions import DecisionLog
from dragonfly_ray.scheduling.spec import SpecState
from dragonfly_ray.scheduling.task import TaskState, Traffic, new_task
from dragonfly_ray.urls import origin, redacted

log = logging.getLogger(__name__)

MANIFEST_INLINE = 64 * 1024
"""A manifest up to this size travels with the delivery; a longer one goes from peer to peer."""
RESOLVE_ATTEMPTS = 3
MOST_GAPS = 4096
KEEP_ENDED = 600.0
"""Seconds for which an ended spec can still be asked about."""


@dataclass(frozen=True, slots=True)
class Send:
    """Push `message` to a peer."""

    host: str
    message: m.Message


@dataclass(frozen=True, slots=True)
class Ask:
    """Have a peer resolve a source, and bring the answer to `resolved` (or `resolve_failed`)."""

    host: str
    message: m.Resolve
    spec_id: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Somebody cannot reach this host: find out whether it lives, and tell `probed`."""

    host: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Other schedulers must know that an origin wants patience."""

    origin: str
    seconds: float


Action = Send | Ask | Probe | Tell
Verdict = Literal["alive", "died", "silent", "gone"]


@dataclass(slots=True)
class HostState:
    host: Host
    last_seen: float
    alive: bool = True


class SchedulerCore:
    """One scheduler's state and decisions. `sign(task, host)` makes the grant of a holder."""

    def __init__(self, settings: Settings, sign: Callable[[Task, Host], bytes]) -> None:
        self.settings = settings
        self.sign = sign
        self.hosts: dict[str, HostState] = {}
        self.by_node: dict[str, str] = {}
        self.tasks: dict[str, TaskState] = {}
        self.specs: dict[str, SpecState] = {}
        self.budgets: dict[str, OriginBudget] = {}
        self.decisions = DecisionLog()
        self._spread = itertools.count()

    # --- submitters -------------------------------------------------------------------------

    def submit(self, spec: m.Spec, credentials: Credentials, now: float) -> list[Action]:
        """Opens a distribution; the same id again attaches to it."""
        known = self.specs.get(spec.id)
        if known:
            known.heartbeat = now
            if not known.credentials.storage_options and not known.credentials.headers:
                known.credentials = credentials
            return []
        state = self.specs[spec.id] = SpecState.new(spec, credentials, now)
        return self._resolve(state, now)

    def beat(self, spec_id: str, now: float) -> bool:
        """Whoever submitted is still there. False: no such spec (any more)."""
        state = self.specs.get(spec_id)
        if state:
            state.heartbeat = now
        return state is not None

    def cancel(
        self, spec_id: str, now: float, kind: str = "cancelled", message: str = "cancelled"
    ) -> list[Action]:
        state = self.specs.get(spec_id)
        return self._fail(state, kind, message, now) if state else []

    def view(self, spec_id: str) -> dict[str, Any] | None:
        """What a submitter may know of a spec: plain values."""
        state = self.specs.get(spec_id)
        if state is None:
            return None
        task = self.tasks.get(state.task_id)
        nodes = {}
        for node, record in state.nodes.items():
            entry = record.to_dict()
            host = self.by_node.get(node, "")
            if task and not record.terminal and host in task.traffic:
                traffic = task.traffic[host]
                entry |= {"bytes_origin": traffic.origin, "bytes_peers": traffic.peers}
                entry |= {"bytes_cache": traffic.cache, "bytes_small": traffic.small}
            nodes[node] = entry
        return {
            "id": spec_id,
            "url": redacted(state.spec.source.url),
            "phase": state.phase,
            "version": state.version,
            "seconds": (state.ended_at or 0.0) - state.submitted if state.ended_at else None,
            "size": task.task.size if task else None,
            "pieces": task.task.pieces if task else None,
            "entries": task.task.entries if task else None,
            "task_id": state.task_id,
            "nodes": nodes,
        }  # fmt: skip

    # --- resolving --------------------------------------------------------------------------

    def _resolve(self, state: SpecState, now: float) -> list[Action]:
        host = self._resolver(state)
        if host is None:
            state.resolver = ""
            return []
        state.resolver = host
        state.tried.add(host)
        state.attempts += 1
        small = state.spec.small and self.settings.transport.carrier != "socket"
        return [Ask(host, m.Resolve(state.spec.source, state.credentials, small), state.spec.id)]

    def _resolver(self, state: SpecState) -> str | None:
        """Who looks at the origin for everybody: the owner of a local file, a seed, a target."""
        owner = state.spec.source.node
        if owner:
            host = self.by_node.get(owner)
            return host if host and self.hosts[host].alive else None
        alive = {h.host.node_id: h.host for h in self.hosts.values() if h.alive}
        seeds = [h.id for h in alive.values() if h.seed]
        targets = [alive[n].id for n in state.open_nodes if n in alive]
        policy = self.settings.origin.policy
        pool = (seeds or targets) if policy != "targets" else targets
        fresh = [h for h in pool if h not in state.tried] or pool
        return fresh[next(self._spread) % len(fresh)] if fresh else None

    def resolved(self, spec_id: str, answer: m.Resolved, now: float) -> list[Action]:
        """A resolver's answer."""
        state = self.specs.get(spec_id)
        if state is None or state.phase != "resolving":
            return []
        if answer.task is None:
            if self._may_differ_elsewhere(answer.kind) and state.attempts < RESOLVE_ATTEMPTS:
                return self._resolve(state, now)
            return self._fail(state, answer.kind or "source", answer.message or "could not resolve", now)
        if state.spec.digest and answer.task.directory:
            text = f"{answer.task.url}: is a directory; a digest is for one file"
            return self._fail(state, "invalid-request", text, now)
        task = self._task(answer.task, state.spec.source.url, answer.units)
        state.task_id, state.content, state.digests = answer.task.id, answer.content, answer.digests
        state.manifest, state.beside = answer.manifest, answer.beside
        state.phase = "running"
        state.version += 1
        task.manifest_holders.add(state.resolver)
        return self._start(state, now)

    @staticmethod
    def _may_differ_elsewhere(kind: str) -> bool:
        """Whether another node may fare better: its way to the origin, or its disk."""
        return kind in ("source-busy", "source-unreachable") or kind.startswith("storage")

    def resolve_failed(self, spec_id: str, now: float) -> list[Action]:
        """The resolver died or did not answer: ask another."""
        state = self.specs.get(spec_id)
        if state is None or state.phase != "resolving":
            return []
        if state.attempts >= RESOLVE_ATTEMPTS:
            shown = redacted(state.spec.source.url)
            return self._fail(state, "source-unreachable", f"{shown}: no node could resolve it", now)
        return self._resolve(state, now)

    def _task(self, task: Task, url: str, units: tuple[int, ...] = ()) -> TaskState:
        found = self.tasks.get(task.id)
        if found is None:
            s = self.settings
            found = self.tasks[task.id] = new_task(
                task,
                timeout=s.origin.lease_timeout,
                everybody=s.scheduler.everybody,
                degree=s.scheduler.neighbours,
                origin=origin(url) if url else "",
                units=units,
            )
        elif url and not found.origin:
            found.origin = origin(url)
        return found

    # --- deliveries -------------------------------------------------------------------------

    def _start(self, state: SpecState, now: float) -> list[Action]:
        task = self.tasks[state.task_id]
        joining = [self.by_node[n] for n in state.open_nodes if self._alive_node(n)]
        helpers = [h for h in self._helpers(state) if h not in joining]
        known = set(task.participants)
        for host in joining:
            self._join(task, host, helper=False)
        for host in helpers:
            self._join(task, host, helper=True)
        actions: list[Action] = [
            Send(host, self._delivery(state, task, host, now)) for host in itertools.chain(joining, helpers)
        ]
        actions += self._news_of_joined(task, [h for h in (*joining, *helpers) if h not in known], known)
        for host in joining:
            record = state.nodes[self.hosts[host].host.node_id]
            if record.state == "waiting":
                record.state = "running"
            self.hosts[host].last_seen = now
        state.version += 1
        return actions

    def _helpers(self, state: SpecState) -> list[str]:
        """Hosts that are no targets but must take part: whoever may go to the origin."""
        owner = state.spec.source.node
        if owner:
            return [self.by_node[owner]] if self._alive_node(owner) else []
        if self._seeds_only(state):
            return [h.host.id for h in self.hosts.values() if h.alive and h.host.seed]
        return []

    def _seeds_only(self, state: SpecState) -> bool:
        return self.settings.origin.policy == "seeds" or state.spec.seeds_only

    def _alive_node(self, node: str) -> bool:
        host = self.by_node.get(node)
        return host is not None and self.hosts[host].alive

    def _join(self, task: TaskState, host: str, *, helper: bool) -> None:
        task.participants[host] = task.participants.get(host, True) and helper
        task.traffic.setdefault(host, Traffic())
        task.graph.join(host, self.hosts[host].host.idc)
        for holder in task.holders:
            if holder not in task.graph and self._usable(task, holder):
                task.graph.join(holder, self.hosts[holder].host.idc)

    def _usable(self, task: TaskState, host: str) -> bool:
        return host in self.hosts and self.hosts[host].alive and host not in task.banned

    def _delivery(self, state: SpecState, task: TaskState, host: str, now: float) -> m.Deliver:
        target = self.hosts[host].host
        claimants = self._claimants(task, state)
        may_claim = host in claimants
        helper = task.participants.get(host, True)
        wait = self._budget(task).wait(now)
        lease: list[int] = []
        if may_claim and not wait and not state.small and not task.is_complete(host):
            lease = self._grant(task, host, 2 * self.settings.origin.connections, len(claimants), now)
        inline = state.manifest if len(state.manifest) <= MANIFEST_INLINE else b""
        return m.Deliver(
            spec=state.spec,
            task=task.task,
            credentials=state.credentials if may_claim else Credentials(),
            manifest=inline,
            neighbours=self._neighbours(task, host),
            grant=self.sign(task.task, target),
            may_claim=may_claim,
            helper=helper,
            lease=tuple(lease),
            content=state.content,
            digests=state.digests,
            beside=state.beside,
            interval=self._interval(),
            not_before=wait,
        )

    def _neighbours(
        self, task: TaskState, host: str, among: Iterable[str] | None = None
    ) -> tuple[m.Neighbour, ...]:
        chosen = task.graph.neighbours(host) if among is None else task.graph.neighbours(host) & set(among)
        return tuple(
            m.Neighbour(
                self.hosts[other].host,
                complete=other not in task.participants,
                manifest=other in task.manifest_holders or bool(task.holders.get(other)),
            )
            for other in sorted(chosen)
            if self._usable(task, other)
        )

    def _news_of_joined(self, task: TaskState, joined: list[str], to: Iterable[str]) -> list[Action]:
        actions: list[Action] = []
        for host in to:
            news = self._neighbours(task, host, joined)
            if news and self._usable(task, host):
                actions.append(Send(host, m.News(task.task.id, joined=news)))
        return actions

    # --- the origin -------------------------------------------------------------------------

    def _claimants(self, task: TaskState, state: SpecState | None = None) -> list[str]:
        """The hosts that may go to the origin for this task."""
        specs = [state] if state else self._specs_of(task)
        owner = next((s.spec.source.node for s in specs if s.spec.source.node), "")
        live = [h for h in task.participants if self._usable(task, h)]
        if owner:
            return [h for h in live if self.hosts[h].host.node_id == owner]
        seeds = [h for h in live if self.hosts[h].host.seed]
        if any(self._seeds_only(s) for s in specs):
            if not seeds and len(live) > 0:
                log.warning("task %.12s: no seed left, two targets take over at the origin", task.task.id)
            return seeds or sorted(live)[:2]
        if self.settings.origin.policy == "targets":
            return [h for h in live if not task.participants[h]]
        return live

    def _budget(self, task: TaskState) -> OriginBudget:
        if task.origin not in self.budgets:
            self.budgets[task.origin] = OriginBudget(self.settings.origin.max_connections)
        return self.budgets[task.origin]

    def _grant(
        self, task: TaskState, host: str, most: int, claimants: int, now: float, urgent: Iterable[int] = ()
    ) -> list[int]:
        if most <= 0 or not task.leases.free:
            return []
        active = {h for h in task.participants if task.leases.held_by(h)}
        room = self._budget(task).allowed(now) // self.settings.origin.connections
        if host not in active and len(active) >= max(1, room):
            return []
        pieces = task.leases.claim(host, most, claimants, now, urgent)
        if pieces:
            self.decisions.lease(task.task.id, host, pieces, now)
        return pieces

    def throttled(self, message: m.Throttled, now: float) -> list[Action]:
        task = self.tasks.get(message.task_id)
        if task is None:
            return []
        return [Tell(task.origin, message.retry_after), *self.patience(task.origin, message.retry_after, now)]

    def patience(self, key: str, seconds: float, now: float) -> list[Action]:
        """Nobody asks this origin for a while."""
        actions: list[Action] = []
        for task in self.tasks.values():
            if task.origin != key:
                continue
            self._budget(task).complained(seconds, now)
            task.leases.postpone(now + seconds)
            news = m.News(task.task.id, not_before=seconds)
            actions += [Send(h, news) for h in task.participants if self._usable(task, h)]
        return actions

    def origin_failed(self, message: m.OriginFailed, now: float) -> list[Action]:
        task = self.tasks.get(message.task_id)
        if task is None:
            return []
        task.leases.release(message.host_id, message.pieces)
        task.failures += 1
        if task.failing_since is None:
            task.failing_since = now
        if message.kind == "source-changed":
            return self._changed(task, message, now)
        if message.final or now - task.failing_since > self.settings.origin.give_up:
            return self._fail_task(task, message.kind, message.message, now)
        return []

    def _changed(self, task: TaskState, message: m.OriginFailed, now: float) -> list[Action]:
        """Other content at the same URL: everything starts again with a new resolve, once."""
        actions: list[Action] = []
        for state in self._specs_of(task):
            if state.attempts > 1:
                actions += self._fail(state, message.kind, message.message, now)
                continue
            for host in list(task.participants):
                actions.append(Send(host, m.Cancel(state.spec.id, "superseded", "the source has changed")))
            for record in state.nodes.values():
                if not record.terminal:
                    record.state = "waiting"
            state.phase, state.task_id, state.content = "resolving", "", b""
            state.version += 1
            actions += self._resolve(state, now)
        task.places.clear()
        return actions

    # --- peers ------------------------------------------------------------------------------

    def announce(self, message: m.Announce, now: float) -> list[Action]:
        """A peer has started, or has found out that this scheduler is new."""
        host = message.host
        old = self.hosts.get(host.id)
        actions: list[Action] = []
        restarted = old is not None and old.host.incarnation != host.incarnation
        previous = self.by_node.get(host.node_id)
        if previous and previous != host.id:
            actions += self._forget(previous)
        if restarted:
            actions += self._forget(host.id, leave=False)
        if old and old.host.node_id != host.node_id:
            # The store has moved to a peer on another node; what is delivered there is not here.
            if self.by_node.get(old.host.node_id) == host.id:
                del self.by_node[old.host.node_id]
            for task in self.tasks.values():
                task.participants.pop(host.id, None)
        self.hosts[host.id] = HostState(host, now)
        self.by_node[host.node_id] = host.id
        for held in message.held:
            task = self._task(held.task, "")
            bits = bitset.from_bytes(held.have, held.task.pieces)
            gone = task.holders.get(host.id, 0) & ~bits
            if gone:
                task.drop(host.id, gone)
            task.hold(host.id, bits)
            task.manifest_holders.add(host.id)
            actions += self._learnt(task, *task.learn_all(host.id, held.digests, bits))
        for delivery in message.deliveries:
            self._adopt(delivery, host, now)
        for task in self.tasks.values():
            if host.id in task.participants and (old is None or restarted):
                task.graph.join(host.id, host.idc)
                actions += self._news_of_joined(task, [host.id], list(task.participants))
        fresh = old is None or restarted or not old.alive
        in_hand = {d.spec.id for d in message.deliveries}
        for state in list(self.specs.values()):
            if state.phase == "resolving":
                if not state.resolver or (restarted and state.resolver == host.id):
                    actions += self._resolve(state, now)
            elif state.phase == "running" and fresh and state.spec.id not in in_hand:
                actions += self._deliver_late(state, host, now)
        return actions

    def _adopt(self, delivery: m.Deliver, host: Host, now: float) -> None:
        """A delivery that this scheduler does not know: it was another's, before a restart."""
        task = self._task(delivery.task, delivery.spec.source.url)
        state = self.specs.get(delivery.spec.id)
        if state is None:
            state = self.specs[delivery.spec.id] = SpecState.new(delivery.spec, delivery.credentials, now)
        if state.phase == "resolving":
            state.phase, state.task_id = "running", delivery.task.id
            state.version += 1
        if not state.credentials.storage_options and not state.credentials.headers:
            state.credentials = delivery.credentials
        self._join(task, host.id, helper=delivery.helper)
        record = state.nodes.get(host.node_id)
        if record and record.state == "waiting":
            record.state = "running"

    def _deliver_late(self, state: SpecState, host: Host, now: float) -> list[Action]:
        record = state.nodes.get(host.node_id)
        task = self.tasks[state.task_id]
        helper = record is None and host.id in task.participants
        if (record is None or record.terminal) and not helper:
            return []
        known = [h for h in task.participants if h != host.id]
        self._join(task, host.id, helper=helper)
        if record:
            record.state = "running"
            state.version += 1
        return [
            Send(host.id, self._delivery(state, task, host.id, now)),
            *self._news_of_joined(task, [host.id], known),
        ]

    def report(self, r: m.Report, now: float) -> tuple[m.ReportReply, list[Action]]:
        host, task = self.hosts.get(r.host_id), self.tasks.get(r.task_id)
        if host is None or task is None or not host.alive or r.host_id not in task.participants:
            return m.ReportReply(known=False), []
        host.last_seen = now
        actions: list[Action] = []
        traffic = task.traffic.setdefault(r.host_id, Traffic())
        if r.bytes_origin > traffic.origin:
            task.leases.progress(r.host_id, now)
            task.failing_since, task.failures = None, 0
        moved = (r.bytes_origin, r.bytes_peers, r.bytes_cache, r.bytes_small)
        if moved != (traffic.origin, traffic.peers, traffic.cache, traffic.small):
            traffic.origin, traffic.peers, traffic.cache, traffic.small = moved
            self._touch(task)
        actions += self._learnt(task, *task.learn(r.host_id, r.origin))
        if r.got:
            task.hold(r.host_id, bitset.of(p for p in r.got if 0 <= p < task.task.pieces))
        if r.lost:
            task.drop(r.host_id, bitset.of(p for p in r.lost if 0 <= p < task.task.pieces))
        if r.released:
            task.leases.release(r.host_id, r.released)
        for bad in r.bad:
            if task.complain(bad, r.host_id):
                actions += self._ban(task, bad, now)
        actions += [Probe(h) for h in r.unreachable if h in self.hosts and self.hosts[h].alive]
        wait = self._budget(task).wait(now)
        lease: list[int] = []
        if r.claim and not wait:
            claimants = self._claimants(task)
            if r.host_id in claimants:
                lease = self._grant(task, r.host_id, r.claim, len(claimants), now, r.urgent)
        reply = m.ReportReply(
            lease=tuple(lease), interval=self._interval(), left=task.leases.left, not_before=wait
        )
        return reply, actions

    def _learnt(self, task: TaskState, dropped: list[int], liars: list[str]) -> list[Action]:
        """Two digests for one piece: nobody keeps either."""
        actions: list[Action] = []
        if dropped:
            log.warning("task %.12s: two digests for pieces %s, both dropped", task.task.id, dropped)
            bits = bitset.of(dropped)
            for host in list(task.holders):
                if task.holders[host] & bits:
                    task.holders[host] &= ~bits
                    if self._usable(task, host):
                        actions.append(Send(host, m.News(task.task.id, discard=tuple(dropped))))
            task.leases.lost(bits)
        for liar in liars:
            actions += self._ban(task, liar, 0.0)
        return actions

    def _ban(self, task: TaskState, host: str, now: float) -> list[Action]:
        if host in task.banned:
            return []
        log.warning("task %.12s: host %s banned, its bytes do not match their digests", task.task.id, host)
        task.ban(host)
        self.decisions.ban(task.task.id, host, now)
        news = m.News(task.task.id, banned=(host,))
        return [Send(h, news) for h in task.participants if h != host and self._usable(task, h)]

    def verify(self, message: m.Verify) -> m.Verified:
        """Whether a peer's digests agree with the record. `pending`: the record has gaps still."""
        task = self.tasks.get(message.task_id)
        if task is None:
            return m.Verified(known=False)
        root = task.root()
        if root is None:
            return m.Verified(pending=True, gaps=task.gaps(MOST_GAPS))
        if root == message.root:
            return self._placed(task, message)
        return m.Verified(ok=False, digests=task.digests())

    def _placed(self, task: TaskState, message: m.Verify) -> m.Verified:
        """Its copy is right; is it to write its outputs, or does another host?"""
        host = self.hosts.get(message.host_id)
        if host is None and message.places:
            return m.Verified(known=False)
        elsewhere = []
        for spec_id, place in message.places:
            assert host is not None
            other = task.places.claim(place, message.host_id, host.host.node_id, spec_id)
            if other:
                elsewhere.append(m.Elsewhere(spec_id, other.node, other.stamp, other.merged))
        return m.Verified(elsewhere=tuple(elsewhere))

    def _settled(self, task: TaskState, hosts: Iterable[str]) -> list[Action]:
        """They wait for an output that another host was at."""
        news = m.News(task.task.id, settled=True)
        return [Send(h, news) for h in sorted(hosts) if self._usable(task, h)]

    def ended(self, message: m.Ended, now: float) -> list[Action]:
        state, host = self.specs.get(message.spec_id), self.hosts.get(message.host_id)
        if state is None or host is None:
            return []
        host.last_seen = now
        record = state.nodes.get(host.host.node_id)
        task = self.tasks.get(message.task_id)
        actions: list[Action] = []
        if task and message.place:
            done = task.places.ended(
                message.place, message.host_id, message.stamp if message.ok else "", merged=message.merged
            )
            actions += self._settled(task, done)
        if task and message.task_id == state.task_id:
            if message.ok:
                task.hold(message.host_id, task.everything)
            else:
                task.leases.drop(message.host_id)
        if record and not record.terminal and (message.task_id == state.task_id):
            state.end_node(host.host.node_id, message)
            state.version += 1
            actions += self._maybe_end(state, now)
        return actions

    # --- loss -------------------------------------------------------------------------------

    def probed(self, host_id: str, verdict: Verdict, now: float, incarnation: str = "") -> list[Action]:
        """What a look at a host found out. `died`: its process, and its node lives; it will be back.

        `incarnation`: of the process that was looked at; a successor is not judged by it.
        """
        state = self.hosts.get(host_id)
        if state is None or (incarnation and incarnation != state.host.incarnation):
            return []
        if verdict == "alive":
            state.last_seen = now
            return []
        if verdict == "died":
            if state.alive:
                state.last_seen = now
            actions = self._forget(host_id)
            for spec in self.specs.values():
                record = spec.nodes.get(state.host.node_id)
                if record and record.state == "running":
                    record.state = "waiting"
                    spec.version += 1
                if spec.phase == "resolving" and spec.resolver == host_id:
                    actions += self.resolve_failed(spec.spec.id, now)
            return actions
        if verdict == "silent" and now - state.last_seen < self.settings.scheduler.silent_after:
            return self._forget(host_id) if state.alive else []
        why = "the node has left the cluster" if verdict == "gone" else "no word from the node"
        return self._lost(host_id, f"{state.host.name or state.host.node_id}: {why}", now)

    def node_gone(self, node: str, now: float) -> list[Action]:
        """Ray says that a node is dead."""
        host = self.by_node.get(node)
        if host:
            return self.probed(host, "gone", now)
        return self._fail_nodes(node, f"{node}: the node has left the cluster", now)

    def _lost(self, host_id: str, why: str, now: float) -> list[Action]:
        node = self.hosts[host_id].host.node_id
        return [*self._forget(host_id), *self._fail_nodes(node, why, now)]

    def _fail_nodes(self, node: str, why: str, now: float) -> list[Action]:
        actions: list[Action] = []
        for state in list(self.specs.values()):
            record = state.nodes.get(node)
            if record and not record.terminal:
                state.fail_node(node, "node-lost", why)
                state.version += 1
                actions += self._maybe_end(state, now)
        return actions

    def _forget(self, host_id: str, *, leave: bool = True) -> list[Action]:
        """Nobody shall wait for this host any more; what only it had must be fetched again."""
        self.hosts[host_id].alive = False
        actions: list[Action] = []
        for task in self.tasks.values():
            was = host_id in task.participants or host_id in task.holders
            task.drop(host_id)
            task.manifest_holders.discard(host_id)
            actions += self._settled(task, task.places.lost(host_id))
            if host_id not in task.graph:
                continue
            near = list(task.graph.neighbours(host_id))
            if leave:
                for other, gained in task.graph.leave(host_id).items():
                    news = self._neighbours(task, other, gained)
                    actions.append(Send(other, m.News(task.task.id, joined=news)))
            if was:
                left = m.News(task.task.id, left=(host_id,))
                actions += [Send(h, left) for h in near if h in task.participants and self._usable(task, h)]
        return actions

    def tick(self, now: float) -> list[Action]:
        """What is due by time alone; call it a few times a second."""
        actions: list[Action] = []
        for task in self.tasks.values():
            for host, pieces in task.leases.expire(now).items():
                log.info("task %.12s: lease of %s ran out", task.task.id, host)
                if self._usable(task, host):
                    revoked = tuple(bitset.members(pieces))
                    actions.append(Send(host, m.News(task.task.id, revoked=revoked)))
        busy: set[str] = set()
        for state in list(self.specs.values()):
            if state.phase == "ended":
                if now - state.ended_at > KEEP_ENDED:
                    self._retire(state)
                continue
            if not state.spec.detached and now - state.heartbeat > self.settings.scheduler.heartbeat_timeout:
                actions += self._fail(state, "cancelled", "whoever submitted it has gone", now)
                continue
            if state.phase == "resolving" and not state.resolver:
                actions += self._resolve(state, now)
            busy.update(state.open_nodes)
        for node in busy:
            actions += self._watch(node, now)
        return actions

    def _watch(self, node: str, now: float) -> list[Action]:
        host_id = self.by_node.get(node)
        if host_id is None:
            waited = min(s.submitted for s in self.specs.values() if node in s.open_nodes)
            if now - waited > self.settings.peer.start_timeout:
                return self._fail_nodes(node, f"{node}: no peer has started there", now)
            return []
        host = self.hosts[host_id]
        silence = now - host.last_seen
        if silence > self.settings.peer.start_timeout:
            return self._lost(host_id, f"{host.host.name or node}: its peer did not come back", now)
        return [Probe(host_id)] if silence > min(2.0, self.settings.scheduler.silent_after / 2) else []

    # --- ends -------------------------------------------------------------------------------

    def _specs_of(self, task: TaskState) -> list[SpecState]:
        return [s for s in self.specs.values() if s.task_id == task.task.id and s.phase == "running"]

    def _fail_task(self, task: TaskState, kind: str, message: str, now: float) -> list[Action]:
        return [a for s in self._specs_of(task) for a in self._fail(s, kind, message, now)]

    def _fail(self, state: SpecState, kind: str, message: str, now: float) -> list[Action]:
        if state.phase == "ended":
            return []
        actions: list[Action] = []
        task = self.tasks.get(state.task_id)
        if task:
            cancel = m.Cancel(state.spec.id, kind, message)
            actions += [Send(h, cancel) for h in task.participants if self.hosts[h].alive]
        for node in state.open_nodes:
            state.fail_node(node, kind, message)
        return actions + self._maybe_end(state, now)

    def _maybe_end(self, state: SpecState, now: float) -> list[Action]:
        state.version += 1
        if state.open_nodes or state.phase == "ended":
            return []
        state.phase, state.ended_at = "ended", now
        state.content = b""
        state.credentials = Credentials()
        task = self.tasks.get(state.task_id)
        if task is None:
            return []
        if self._specs_of(task):
            return self._settled(task, task.places.over(state.spec.id))
        done = m.Cancel(state.spec.id, "done", "")
        actions: list[Action] = [
            Send(h, done) for h, helper in task.participants.items() if helper and self._usable(task, h)
        ]
        for host in task.participants:
            task.leases.drop(host)
            if host in task.graph and not task.is_complete(host):
                task.graph.leave(host)
        task.participants.clear()
        task.traffic.clear()
        task.complaints.clear()
        task.places.clear()
        return actions

    def _retire(self, state: SpecState) -> None:
        del self.specs[state.spec.id]
        task = self.tasks.get(state.task_id)
        if task and not task.holders and not any(s.task_id == task.task.id for s in self.specs.values()):
            del self.tasks[task.task.id]

    def missed(self) -> list[str]:
        """The nodes whose peers were given up; they may have been too slow only."""
        return [h.host.node_id for h in self.hosts.values() if not h.alive]

    def evicted(self, host_id: str, task_id: str) -> None:
        """A peer has dropped a task from its store."""
        task = self.tasks.get(task_id)
        if task:
            task.drop(host_id)
            task.manifest_holders.discard(host_id)

    # --- odds -------------------------------------------------------------------------------

    def _interval(self) -> float:
        s = self.settings.scheduler
        busy = sum(len(t.participants) for t in self.tasks.values())
        return max(s.report_interval, busy / s.max_reports)

    def _touch(self, task: TaskState) -> None:
        for state in self._specs_of(task):
            state.version += 1

    def where(self, source_id: str) -> dict[str, float]:
        """Node id -> the share of the source's newest task that it holds."""
        tasks = [t for t in self.tasks.values() if t.task.source_id == source_id]
        if not tasks:
            return {}
        found: dict[str, float] = {}
        for task in tasks:
            for host, held in task.holders.items():
                if self._usable(task, host) and (held or not task.task.pieces):
                    share = held.bit_count() / task.task.pieces if task.task.pieces else 1.0
                    node = self.hosts[host].host.node_id
                    found[node] = max(share, found.get(node, 0.0))
        return found

    def held(self, source_id: str) -> dict[str, list[str]]:
        """Node id -> the tasks of the source that it holds, whole or in part."""
        found: dict[str, list[str]] = {}
        for task in self.tasks.values():
            if task.task.source_id == source_id:
                for host in task.holders:
                    if self._usable(task, host):
                        found.setdefault(self.hosts[host].host.node_id, []).append(task.task.id)
        return found
