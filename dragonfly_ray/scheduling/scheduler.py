"""The scheduler's decisions: messages in (with the time), actions out.

Soft state only. Everything here can be rebuilt from what peers announce and from what submitters
submit again, so losing it costs a moment and no data. The state is `cluster.ClusterState`; what
becomes of each message is told in the module of its subject.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.model import Credentials, Host, Task
from dragonfly_ray.scheduling import (
    access_checks,
    audits,
    completion,
    digest_recovery,
    drain,
    failure_detector,
    granting,
    importers,
    origin_admission,
    origin_retry,
    redelivery,
    registration,
    resolution,
    retention,
    trust,
    views,
)
from dragonfly_ray.scheduling.actions import Action, Ask, Compare, Probe, Send, Tell, Verdict
from dragonfly_ray.scheduling.cluster import Cancelled, ClusterState
from dragonfly_ray.scheduling.decisions import MOST
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.evaluator import BalancedEvaluator, Evaluator
from dragonfly_ray.scheduling.task import TaskState, Traffic

__all__ = ["Action", "Ask", "Compare", "Probe", "SchedulerCore", "Send", "Tell", "Verdict"]

log = logging.getLogger(__name__)

KEEP_ENDED = 600.0
"""Seconds for which an ended spec can still be asked about."""
SWEEP = 10.0
"""Seconds between looks for what can be forgotten."""
COMPARE = 1.0
"""Seconds between looks for hosts that have not named what they carry."""


class SchedulerCore:
    """One scheduler's state and decisions.

    `sign(task, host)` makes the grant of a holder; `evaluator` judges parents, by default on balance.
    """

    def __init__(
        self,
        settings: Settings,
        sign: Callable[[Task, Host], bytes],
        evaluator: Evaluator | None = None,
    ) -> None:
        known = settings.scheduler
        evaluator = evaluator or BalancedEvaluator(bears=known.everybody + known.neighbours)
        self.settings = settings
        self.sign = sign
        self.cluster = ClusterState(settings, sign, evaluator)
        self.hosts = self.cluster.hosts
        self.by_node = self.cluster.by_node
        self.tasks = self.cluster.tasks
        self.specs = self.cluster.specs
        self.budgets = self.cluster.budgets
        self.decisions = self.cluster.decisions
        self._compared = self._swept = 0.0

    # --- what holds for the cluster ---------------------------------------------------------

    def configured(self) -> None:
        """The settings have changed, in place: what was derived from them follows."""
        self.cluster.configured()
        known, evaluator = self.settings.scheduler, self.cluster.evaluator
        if isinstance(evaluator, BalancedEvaluator):
            evaluator.bears = known.everybody + known.neighbours

    def mark(self, cordoned: Collection[str], draining: Collection[str], now: float) -> list[Action]:
        """The nodes that are chosen for nothing unless they are named, and those that are draining."""
        return drain.mark(self.cluster, cordoned, draining, now)

    # --- submitters -------------------------------------------------------------------------

    def submit(self, spec: m.DistributionSpec, credentials: Credentials, now: float) -> list[Action]:
        """Opens a distribution. The same id again attaches to it while it is open; once it has ended, only
        the submissions that it served (by their `run`) attach, and any other begins a new run of the id.
        """
        known = self.specs.get(spec.id)
        if known and (known.phase != "ended" or spec.run in known.runs):
            known.heartbeat = now
            known.runs.add(spec.run)
            if not known.credentials.storage_options and not known.credentials.headers:
                known.credentials = credentials
            return []
        if known:
            completion.retire(self.cluster, known)
        failure_detector.expect(self.cluster, spec.targets, now)
        state = self.specs[spec.id] = DistributionState.new(spec, credentials, now)
        state.fingerprint = self.cluster.access.fingerprint(spec, credentials)
        state.version = known.version + 1 if known else 0  # whoever watches the id sees that it is another
        if cancelled := self.cluster.cancel_of(spec):
            return completion.fail(self.cluster, state, cancelled.kind, cancelled.message, now)
        return resolution.resolve(self.cluster, state, now)

    def beat(self, spec_id: str, now: float) -> bool:
        """Whoever submitted is still there. False: no such spec (any more)."""
        state = self.specs.get(spec_id)
        if state:
            state.heartbeat = now
        return state is not None

    def news(self, known: Mapping[str, int], now: float) -> tuple[bool, list[str]]:
        """For a watcher that knows specs by these versions: whether it must hear now, and which are others. A sign
        of life of whoever submitted them."""
        urgent, found = False, []
        for spec_id, version in known.items():
            self.beat(spec_id, now)
            state = self.specs.get(spec_id)
            if state is None or state.version != version:
                found.append(spec_id)
                urgent = urgent or state is None or state.phase == "ended"
        return urgent, found

    def cancel(
        self, spec_id: str, now: float, kind: str = "cancelled", message: str = "cancelled", run: str = ""
    ) -> list[Action]:
        """Stops it everywhere. What is not known (yet, after a restart) is stopped when it comes; `run`: only
        that run of the id, where none is known here.
        """
        state = self.specs.get(spec_id)
        runs = state.runs if state else {run} - {""}
        self.cluster.cancelled[spec_id] = Cancelled(kind, message, now, frozenset(runs))
        return completion.fail(self.cluster, state, kind, message, now) if state else []

    def over(self, spec_id: str) -> bool:
        """It has ended, or is not known (any more)."""
        state = self.specs.get(spec_id)
        return state is None or state.phase == "ended"

    def view(self, spec_id: str) -> dict[str, Any] | None:
        """What a submitter may know of a spec: plain values."""
        return views.view(self.cluster, spec_id)

    def status(self) -> dict[str, Any]:
        return views.status(self.cluster)

    def where(self, source_id: str) -> dict[str, float]:
        """Node id -> the share of the source's newest task that it holds."""
        return views.where(self.cluster, source_id)

    def held(self, source_id: str) -> dict[str, list[str]]:
        """Node id -> the tasks of the source that it holds, whole or in part."""
        return views.held(self.cluster, source_id)

    def keepers(self, task_id: str) -> list[str]:
        """The nodes that hold something of a task, those that have its manifest first."""
        return views.keepers(self.cluster, task_id)

    def availability(self, task_id: str, cells: int) -> tuple[int, int, dict[str, bytes]] | None:
        """Which pieces are where: see `views.availability`."""
        return views.availability(self.cluster, task_id, cells)

    # --- resolvers and origins --------------------------------------------------------------

    def resolved(self, spec_id: str, answer: m.Resolved, now: float) -> list[Action]:
        """A resolver's answer."""
        actions = resolution.resolved(self.cluster, spec_id, answer, now)
        return actions + access_checks.resolved(self.cluster, spec_id, now)

    def may_look(self, message: m.Stat) -> bool:
        """Whether the host was chosen to help with this source, and lives."""
        return resolution.may_look(self.cluster, message)

    def resolve_failed(self, spec_id: str, now: float) -> list[Action]:
        """The resolver died or did not answer: ask another."""
        return resolution.resolve_failed(self.cluster, spec_id, now)

    def answered(self, ask: Ask, answer: m.Message, now: float) -> list[Action]:
        """A peer's answer to an `Ask`."""
        if self._outlived(ask):
            return []
        match answer:
            case m.Resolved():
                return self.resolved(ask.spec_id, answer, now)
            case m.Proved():
                return access_checks.proved(self.cluster, ask.spec_id, answer, now)
            case m.SamplesCompared():
                return access_checks.compared(self.cluster, ask.spec_id, answer, now)
        return self.unanswered(ask, now)

    def unanswered(self, ask: Ask, now: float) -> list[Action]:
        """The peer died or did not answer: ask another."""
        if self._outlived(ask):
            return []
        match ask.message:
            case m.Resolve():
                return self.resolve_failed(ask.spec_id, now)
            case m.Prove():
                return access_checks.prove_failed(self.cluster, ask.spec_id, now)
            case m.CompareSamples():
                return access_checks.compare_failed(self.cluster, ask.message, ask.spec_id, now)

    def _outlived(self, ask: Ask) -> bool:
        """Whether it was for a run that has ended, and another one of the same id goes on."""
        state = self.specs.get(ask.spec_id)
        return state is not None and state.spec.run != ask.run

    def overdue_at(self, ask: Ask, asked: float) -> float:
        """When the answer to an `Ask` is given up: the later, the longer its look says that it goes on."""
        state = self.specs.get(ask.spec_id)
        heard = asked if state is None or self._outlived(ask) else max(asked, state.heard_look)
        return origin_retry.silent_until(heard, self.settings)

    def looking(self, message: m.StatPending, now: float) -> list[Action]:
        """A look goes on, or waits for the origin."""
        return resolution.looking(self.cluster, message, now)

    def throttled(self, message: m.Throttled, now: float) -> list[Action]:
        return origin_admission.throttled(self.cluster, message, now)

    def patience(self, key: str, seconds: float, now: float) -> list[Action]:
        """Nobody asks this origin for a while."""
        return origin_admission.patience(self.cluster, key, seconds, now)

    def origin_failed(self, message: m.OriginFailed, now: float) -> list[Action]:
        if message.final and message.kind in access_checks.REFUSALS:
            return access_checks.origin_refused(self.cluster, message, now)
        return resolution.origin_failed(self.cluster, message, now)

    # --- peers ------------------------------------------------------------------------------

    def announce(self, message: m.Announce, now: float) -> list[Action]:
        """A peer has started, or has found out that this scheduler is new; or a part of what it has changed."""
        return registration.announce(self.cluster, message, now)

    def rival(self, message: m.Announce) -> Host | None:
        """Who has this host id already, on another node, asked at the first page. If it lives, whoever announces
        itself must take another."""
        return None if message.page else registration.rival(self.cluster, message.host)

    def follows(self, message: m.Announce) -> bool:
        """Whether the pages before this one have come; if not, the announcement begins again."""
        return registration.follows(self.cluster, message)

    def digests(self, message: m.Digests, now: float) -> list[Action]:
        """A peer's digests of a task, which it was asked for."""
        return digest_recovery.told(self.cluster, message, now)

    def report(self, r: m.Report, now: float) -> tuple[m.ReportReply, list[Action]]:
        host, task = self.hosts.get(r.host_id), self.tasks.get(r.task_id)
        if host is None or task is None or not host.alive or r.host_id not in task.participants:
            return m.ReportReply(known=False), []
        host.last_seen = now
        redelivery.confirm(self.cluster, task, r.host_id, r.carried, now)
        actions: list[Action] = []
        traffic = task.traffic.setdefault(r.host_id, Traffic())
        task.leases.waits.told(r.host_id, r.awaiting, r.answer, now)
        if r.bytes_origin > traffic.origin:
            task.leases.progress(r.host_id, now)
            task.failing_since, task.failures, task.failure = None, 0, ""
        moved = (r.bytes_origin, r.bytes_peers, r.bytes_cache, r.bytes_small)
        if moved != (traffic.origin, traffic.peers, traffic.cache, traffic.small):
            traffic.origin, traffic.peers, traffic.cache, traffic.small = moved
            traffic.moved = now
            others = r.bytes_peers + r.bytes_small
            task.meter.told(host.host.node_id, host.host.idc, r.bytes_origin, others, now)
            self.cluster.touch(task)
        traffic.audit = r.bytes_audit
        if r.origin or r.audited or r.unaudited:
            actions += audits.reported(self.cluster, task, r, now)
            found = task.learn(r.host_id, audits.told(task, r))
            actions += trust.learnt(self.cluster, task, *found, now)
        self.cluster.told(r.host_id, r.task_id)
        if r.got:
            task.hold(r.host_id, bitset.among(r.got, task.task.pieces))
        if r.lost:
            task.drop(r.host_id, bitset.among(r.lost, task.task.pieces))
        if task.roots and (r.origin or r.disputed or r.misled):
            actions += digest_recovery.ask(self.cluster, task, now)
        if r.released:
            task.leases.release(r.host_id, r.released)
            task.passing.back(r.host_id, r.released, now)
        host.uploads, host.slots = r.uploads, r.slots
        if r.parents:
            self._fed(task, r, traffic, now)
        for bad in r.bad:
            actions += trust.complain(self.cluster, task, bad, r.host_id, now)
        if r.misled:
            actions += trust.misled(self.cluster, task, r.host_id, r.misled, now)
        record = tuple((p, task.record[p]) for p in r.disputed if p in task.record)
        actions += [Probe(h) for h in r.unreachable if h in self.hosts and self.hosts[h].alive]
        wait = self.cluster.budget(task).wait(now)
        lease: list[int] = []
        if r.claim and not wait:
            claimants = origin_admission.claimants(self.cluster, task, r.host_id)
            if claimants:
                origin_admission.back_to_source(self.cluster, task, r.host_id, traffic, now)
                task.claimants = claimants
                lease = origin_admission.grant(
                    self.cluster, task, r.host_id, r.claim, claimants, now, r.urgent, rate=r.rate
                )
                if not lease:
                    lease, revoked = origin_admission.take_over(
                        self.cluster, task, r.host_id, claimants, now, rate=r.rate
                    )
                    actions += revoked
        if task.leases.held_by(r.host_id):
            origin_admission.connections(self.cluster, task, r.host_id, now)
        reply = m.ReportReply(
            lease=tuple(lease),
            interval=self.cluster.interval(),
            left=task.leases.left,
            usual=task.passing.usual(now),
            not_before=wait,
            record=record,
            connections=task.connections.get(r.host_id, 0),
            grant=granting.renewed(self.cluster, task, r.host_id, now, refused=r.grant_refused),
            audit=audits.grant(self.cluster, task, r.host_id, now),
        )
        return reply, actions

    def _fed(self, task: TaskState, r: m.Report, traffic: Traffic, now: float) -> None:
        """Who fed this host since it last said."""
        edges = []
        for parent, nbytes in r.parents[:MOST]:
            if parent in self.hosts and nbytes > 0:
                task.flows.add(parent, r.host_id, nbytes)
                edges.append((parent, nbytes, task.drawn_in(parent, r.host_id)))
        zones = ((self.hosts[parent].host.idc, nbytes) for parent, nbytes, _ in edges)
        host = self.hosts[r.host_id].host
        task.meter.fed(host.node_id, host.idc, zones, now)
        seconds = now - traffic.told if traffic.told else 0.0
        traffic.told = now
        self.decisions.edges(task.task.id, r.host_id, edges, seconds, now, arm=task.arm)

    def edges(self, task_id: str, most: int = 10_000) -> list[dict[str, Any]]:
        """Who feeds whom in a task: `parent`, `child` (host ids), their nodes, `bytes`, most first."""
        return views.edges(self.cluster, task_id, most)

    def asked_to_verify(self, message: m.Verify, now: float) -> tuple[m.Verified, list[Action]]:
        """As `verify`, after the report that came with it."""
        if message.report is None:
            return self.verify(message), []
        reply, actions = self.report(message.report, now)
        answer = self.verify(message) if reply.known else m.Verified(known=False)
        return msgspec.structs.replace(answer, reply=reply), actions

    def waits_for_others(self, message: m.Verify, answer: m.Verified) -> bool:
        """Whether what is pending is for others alone to tell: the answer may wait for them. Whoever has leases, or
        reads something once more, has to say so itself."""
        task = self.tasks.get(message.task_id)
        if task is None or not answer.pending or answer.gaps or answer.audit:
            return False
        return not (task.leases.held_by(message.host_id) or task.audits.reads(message.host_id))

    def verify(self, message: m.Verify) -> m.Verified:
        """Whether a peer's digests agree with the record. `pending`: the record has gaps still."""
        answer = trust.verify(self.cluster, message)
        task = self.tasks.get(message.task_id)
        if task is None or not (answer.ok and answer.known and not answer.pending and task.audits.pending):
            return answer
        # For as long as a lease may take, what has been read once waits for those who compare it.
        audit = audits.grant(self.cluster, task, message.host_id, task.audits.now)
        return m.Verified(pending=True, audit=audit)

    def ended(self, message: m.Ended, now: float) -> tuple[m.ReportReply, list[Action]]:
        if message.host_id not in self.hosts:
            return m.ReportReply(known=False), []
        if message.report is not None:
            _, actions = self.report(message.report, now)
            _, more = self.ended(msgspec.structs.replace(message, report=None), now)
            return m.ReportReply(), actions + more
        if message.kind == m.UNPROVED:
            return m.ReportReply(), access_checks.refused(self.cluster, message, now)
        return m.ReportReply(), completion.ended(self.cluster, message, now)

    def compare(self, message: m.Carrying, now: float) -> list[Action]:
        """What a host carries, asked while nothing was on its way to it: what it should carry is sent again."""
        return redelivery.compare(self.cluster, message, now)

    def deliver_again(self, host_id: str, now: float) -> list[Action]:
        """Messages for this host were dropped: everything that it must be at."""
        return redelivery.again(self.cluster, host_id, now)

    def evicted(self, host_id: str, task_id: str, now: float) -> list[Action]:
        """A peer has dropped a task from its store."""
        return failure_detector.evicted(self.cluster, host_id, task_id, now)

    # --- loss and time ----------------------------------------------------------------------

    def probed(self, host_id: str, verdict: Verdict, now: float, incarnation: str = "") -> list[Action]:
        """What a look at a host found out. `died`: its process, and its node lives; it will be back.

        `incarnation`: of the process that was looked at; a successor is not judged by it.
        """
        return failure_detector.probed(self.cluster, host_id, verdict, now, incarnation)

    def node_gone(self, node: str, now: float) -> list[Action]:
        """Ray says that a node is dead."""
        return failure_detector.node_gone(self.cluster, node, now)

    def awaited(self) -> set[str]:
        """The nodes whose outcome somebody waits for."""
        return {n for s in self.specs.values() if s.phase != "ended" for n in s.open_nodes}

    def missed(self) -> list[str]:
        """The nodes whose peers were given up; they may have been too slow only."""
        return failure_detector.missed(self.cluster)

    def tick(self, now: float) -> list[Action]:
        """What is due by time alone; call it a few times a second."""
        actions: list[Action] = []
        for task in self.tasks.values():
            actions += audits.expired(self.cluster, task, now)
            if task.audits.disputed:
                actions += audits.unresolved(self.cluster, task, now)
            if task.suspects:
                actions += trust.judge(self.cluster, task, now)
            for host, pieces in task.leases.expire(now).items():
                log.info(
                    "task %.12s: lease of host %s expired",
                    task.task.id,
                    host,
                    extra={"task_id": task.task.id},
                )
                if self.cluster.alive(host):
                    revoked = tuple(bitset.members(pieces))
                    actions.append(Send(host, m.TaskUpdate(task.task.id, revoked=revoked)))
        actions += drain.move_away(self.cluster, now)
        actions += importers.review(self.cluster)
        if now - self._compared > COMPARE:
            self._compared = now
            actions += redelivery.overdue(self.cluster, now) + digest_recovery.overdue(self.cluster, now)
            actions += access_checks.overdue(self.cluster, now)
        actions += granting.renew(self.cluster, now)
        if now - self._swept > SWEEP:
            self._swept = now
            retention.sweep(self.cluster, now)
        cancelled = self.cluster.cancelled
        for spec_id in [s for s, c in cancelled.items() if now - c.since > KEEP_ENDED]:
            del cancelled[spec_id]
        self.cluster.access.expire(now, self.settings.origin.proof_ttl)
        busy: set[str] = set()
        for state in list(self.specs.values()):
            if state.phase == "ended":
                if now - state.ended_at > KEEP_ENDED:
                    completion.retire(self.cluster, state)
                continue
            timeout = self.settings.scheduler.heartbeat_timeout
            if not state.spec.detached and now - state.heartbeat > timeout:
                text = f"submitter heartbeat timed out ({timeout:g} s)"
                actions += completion.fail(self.cluster, state, "cancelled", text, now)
                continue
            if resolution.due(state, now):
                actions += resolution.resolve(self.cluster, state, now)
            actions += access_checks.resolved(self.cluster, state.spec.id, now)
            busy.update(state.open_nodes)
        for node in busy:
            actions += failure_detector.watch(self.cluster, node, now)
        return actions
