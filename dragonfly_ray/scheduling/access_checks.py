"""A caller gets what the cluster holds already only if the origin gives it to that caller, too.

A listing is no proof: with the caller's own credentials a little of each file is read at the origin,
and compared with what is held. Whoever reads all of it at the origin has proved it by that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.backoff import PASSING_KINDS
from dragonfly_ray.scheduling import completion, neighbourhood, origin_admission, resolution, task_join, trust
from dragonfly_ray.scheduling.access_proofs import needs_proof
from dragonfly_ray.scheduling.actions import Action, Ask
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.task import TaskState

log = logging.getLogger(__name__)

PROOF_ATTEMPTS = 3
REFUSALS = frozenset(("source-auth", "source-forbidden", "source-not-found"))
"""What an origin says to some credentials and not to others."""
FINAL = REFUSALS | {"source-archived"}
"""What no other node, and no patience, would make a proof of."""


def resolved(cluster: ClusterState, spec_id: str, now: float) -> list[Action]:
    """Starts what has been resolved, now or as soon as it may."""
    state = cluster.specs.get(spec_id)
    if state is None or not state.pending or state.phase != "resolving":
        return []
    task = cluster.tasks.get(state.pending)
    if task is None:  # nobody holds it any more
        return resolution.resolve(cluster, state, now)
    return admit(cluster, state, task, now)


def admit(cluster: ClusterState, state: DistributionState, task: TaskState, now: float) -> list[Action]:
    """Starts a resolved distribution, or has proved first what must be. Nobody meets anybody unproved."""
    lacking = [] if _entitled(cluster, state, task, now) else [state]
    lacking += [s for s in task.specs.values() if s.fingerprint != state.fingerprint and not s.proved]
    if lacking:
        return [action for each in lacking for action in _ask(cluster, each, task, now)]
    return _begin(cluster, state, task, now)


def admit_pending(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """Those that wait, for themselves or for others, may have waited long enough."""
    waiting = [s for s in cluster.specs.values() if s.pending == task.task.id and s.phase == "resolving"]
    return [action for state in waiting for action in admit(cluster, state, task, now)]


def _entitled(cluster: ClusterState, state: DistributionState, task: TaskState, now: float) -> bool:
    """Whether this one needs no (further) proof. Sets whether it has one."""
    ttl = cluster.settings.origin.proof_ttl
    if (
        state.proved
        or not needs_proof(state.spec, task.task.pieces)
        or cluster.access.fresh(task.task.id, state.fingerprint, now, ttl)
    ):
        state.proved = True
        return True
    alike = [s for s in task.specs.values() if s.fingerprint == state.fingerprint]
    if alike:  # it reads what these read, with the same credentials
        state.proved = any(s.proved for s in alike)
        state.fed.update(*(s.fed for s in alike))
        return True
    held = any(held and cluster.alive(host) for host, held in task.holders.items())
    # Whoever has not told everything yet may hold it, too.
    untold = any(cluster.alive(host) for host in cluster.announcing)
    return not (held or task.specs or untold)


def _begin(cluster: ClusterState, state: DistributionState, task: TaskState, now: float) -> list[Action]:
    state.pending = ""
    state.superseded.discard(task.task.id)
    cluster.running(state, task)
    # Small content came along: its digests are the record.
    found = task.learn_all(state.resolver, state.digests, task.everything)
    return [*trust.learnt(cluster, task, *found, now), *task_join.start(cluster, state, now)]


# --- the proof ----------------------------------------------------------------------------------


def _ask(cluster: ClusterState, state: DistributionState, task: TaskState, now: float) -> list[Action]:
    if state.proving or state.comparing:
        return []
    host = _prover(cluster, state, task)
    if host is None:
        return []  # `tick` asks again
    helpers, connections = resolution.lookers(cluster, state, now)
    if state.phase == "resolving":
        state.lookers = helpers
    else:
        helpers = ()
    state.proving, state.partly, state.compared_by = host, False, set()
    held = task.somewhere()
    ask = m.Prove(
        source=state.spec.source,
        credentials=state.credentials,
        task=task.task,
        manifest=state.manifest if len(state.manifest) <= task_join.MANIFEST_INLINE else b"",
        held=b"" if held == task.everything else bitset.to_bytes(held, task.task.pieces),
        helpers=helpers,
        connections=connections,
        rate=(cluster.most_requests or 0.0) / (len(helpers) + 1),
        policy=state.spec.policy,
        spec_id=state.spec.id,
        run=state.spec.run,
    )
    return [Ask(host, ask, state.spec.id, state.spec.run)]


def _prover(cluster: ClusterState, state: DistributionState, task: TaskState) -> str | None:
    """Whoever resolved it has the manifest, and may ask the origin."""
    if cluster.alive(state.resolver) and state.resolver not in state.unable:
        return state.resolver
    able = [h for h in sorted(task.able) if h in task.manifest_holders and h not in state.unable]
    return next((h for h in able if origin_admission.claimants(cluster, task, h, state)), None)


def proved(cluster: ClusterState, spec_id: str, answer: m.Proved, now: float) -> list[Action]:
    """A prover's answer: what the origin gave it, as far as it could not compare that itself."""
    state = cluster.specs.get(spec_id)
    if state is None or not state.proving:
        return []
    task = cluster.tasks.get(state.pending or state.task_id)
    host, state.proving = state.proving, ""
    if task is None or answer.task_id != task.task.id:
        return []
    if answer.kind == "source-changed":
        return _changed(cluster, state, task, answer.message, now, differs=answer.differs)
    if answer.kind in FINAL:
        return refuse(cluster, state, task, answer.kind, answer.message, now)
    if answer.kind:
        return _failed(cluster, state, task, host, answer.kind, answer.message, now, answer.retry_after)
    return _compare(cluster, state, task, answer.samples, now)


def prove_failed(cluster: ClusterState, spec_id: str, now: float) -> list[Action]:
    """The prover died or did not answer."""
    state = cluster.specs.get(spec_id)
    if state is None or not state.proving:
        return []
    task = cluster.tasks.get(state.pending or state.task_id)
    host, state.proving = state.proving, ""
    text = "no node could read it at its origin with these credentials"
    return [] if task is None else _failed(cluster, state, task, host, "source-unreachable", text, now)


def _failed(
    cluster: ClusterState,
    state: DistributionState,
    task: TaskState,
    host: str,
    kind: str,
    text: str,
    now: float,
    retry_after: float = 0.0,
) -> list[Action]:
    """Another node may fare better, or this one in a while."""
    state.proof_attempts += 1
    if state.phase == "resolving":
        if kind in PASSING_KINDS:
            state.patience.failing(now)
        if state.proof_attempts < PROOF_ATTEMPTS and kind != "source-busy":
            return resolution.resolve(cluster, state, now)
        if kind not in PASSING_KINDS or state.patience.spent(now, cluster.settings.origin.give_up):
            return refuse(cluster, state, task, kind, text, now)
        state.proof_attempts = 0
        return resolution.look_later(cluster, state, kind, text, now, retry_after)
    # What runs has read the origin before: it may be away no longer than for its readers.
    state.unproved_since = state.unproved_since or now
    if now - state.unproved_since > cluster.settings.origin.give_up:
        return refuse(cluster, state, task, kind, text, now)
    state.unable.add(host)
    return _ask(cluster, state, task, now)


def _changed(
    cluster: ClusterState, state: DistributionState, task: TaskState, text: str, now: float, *, differs: bool
) -> list[Action]:
    """Another version, or other bytes, than what is held: once, it is looked at again. `differs`: under one version.
    What is held is not for whoever asks so; they get what the origin gives them."""
    if state.phase != "resolving" or state.changes:
        return refuse(cluster, state, task, "source-changed", text, now)
    state.changes = 1
    if differs:
        cluster.generations.next(state.spec.source.id, state.opener)
    return resolution.resolve(cluster, state, now)


def origin_refused(cluster: ClusterState, message: m.OriginFailed, now: float) -> list[Action]:
    """The origin does not let the credentials of one distribution read it (any more); others go on."""
    task = cluster.tasks.get(message.task_id)
    if task is None:
        return []
    task.leases.release(message.host_id, message.pieces)
    state = task.specs.get(message.spec_id)
    if state is None and message.spec_id:
        return []  # that distribution has ended meanwhile
    if state is None:
        return completion.fail_task(cluster, task, message.kind, message.message, now)
    return refuse(cluster, state, task, message.kind, message.message, now)


def refuse(
    cluster: ClusterState, state: DistributionState, task: TaskState, kind: str, text: str, now: float
) -> list[Action]:
    """Whoever asks in this way gets nothing. Everybody else goes on."""
    cluster.access.forget(task.task.id, state.fingerprint)
    alike = [
        s
        for s in cluster.specs.values()
        if s.fingerprint == state.fingerprint
        and task.task.id in (s.pending, s.task_id)
        and s.phase != "ended"
    ]
    actions = [action for each in alike for action in completion.fail(cluster, each, kind, text, now)]
    return actions + admit_pending(cluster, task, now)


# --- comparing with what is held ----------------------------------------------------------------


def _compare(
    cluster: ClusterState, state: DistributionState, task: TaskState, samples: Sequence[m.Sample], now: float
) -> list[Action]:
    """Has holders compare; of what nobody holds, it must do that the origin gave it."""
    parts: dict[str, list[m.Sample]] = {}
    able = [h for h in task.holders if cluster.usable(task, h) and h not in state.compared_by]
    able.sort(key=lambda h: -task.holders[h].bit_count())
    for sample in samples:
        host = next((h for h in able if task.holders[h] >> sample.piece & 1), None)
        if host is None:
            state.partly = True
        else:
            parts.setdefault(host, []).append(sample)
    for host, part in parts.items():
        state.comparing[host] = tuple(part)
        state.compared_by.add(host)
    if not state.comparing:
        return _proven(cluster, state, task, now)
    ask = {h: m.CompareSamples(h, task.task.id, tuple(part)) for h, part in parts.items()}
    return [Ask(host, message, state.spec.id, state.spec.run) for host, message in ask.items()]


def compared(cluster: ClusterState, spec_id: str, answer: m.SamplesCompared, now: float) -> list[Action]:
    """A holder's answer. Empty-handed, another is asked."""
    state = cluster.specs.get(spec_id)
    task = cluster.tasks.get((state.pending or state.task_id) if state else "")
    if state is None or task is None or answer.task_id != task.task.id:
        return []
    asked = state.comparing.pop(answer.host, None)
    if asked is None:
        return []
    wrong = [s for s in asked if s.entry in set(answer.wrong)]
    if wrong:
        state.comparing.clear()
        text = f"{task.task.url}: these credentials read other bytes at the origin than the cached copy has"
        return _changed(cluster, state, task, text, now, differs=True)
    missing = set(answer.missing)
    return _compare(cluster, state, task, [s for s in asked if s.entry in missing], now)


def compare_failed(cluster: ClusterState, ask: m.CompareSamples, spec_id: str, now: float) -> list[Action]:
    """The holder died or did not answer."""
    missing = tuple(sample.entry for sample in ask.samples)
    return compared(cluster, spec_id, m.SamplesCompared(ask.host, ask.task_id, missing=missing), now)


def _proven(cluster: ClusterState, state: DistributionState, task: TaskState, now: float) -> list[Action]:
    for each in (state, *task.specs.values()):
        each.proved = each.proved or each.fingerprint == state.fingerprint
    if not state.partly:  # what nobody could compare counts for this distribution only
        cluster.access.prove(task.task.id, state.fingerprint, now)
    log.info("task %.12s: read access at the origin proven for distribution %s", task.task.id, state.spec.id)
    late = _opened(cluster, task, now) if state.phase == "running" else []
    return late + admit_pending(cluster, task, now)


# --- what turns out to be held by those that were not known -------------------------------------


def overdue(cluster: ClusterState, now: float) -> list[Action]:
    """Where holders are kept apart: proofs that failed are tried again, and when none is lacking they are met."""
    actions: list[Action] = []
    for task in [t for here in cluster.active.values() for t in here.values() if t.closed]:
        for state in [s for s in task.specs.values() if not s.proved]:
            if _prover(cluster, state, task) is None:
                state.unable.clear()
            actions += _ask(cluster, state, task, now)
        actions += _opened(cluster, task, now)
    return actions


def found_held(cluster: ClusterState, task: TaskState, host: str, now: float) -> list[Action]:
    """A host that was not known holds something of a task: those that read it themselves must prove now."""
    actions: list[Action] = []
    for state in list(task.specs.values()):
        if not state.proved and host not in state.fed and needs_proof(state.spec, task.task.pieces):
            task.closed = True
            actions += _ask(cluster, state, task, now)
    return actions


def refused(cluster: ClusterState, message: m.Ended, now: float) -> list[Action]:
    """A peer has something of it already, and was told of no proof."""
    state, task = cluster.specs.get(message.spec_id), cluster.tasks.get(message.task_id)
    host = message.host_id
    if state is None or task is None or host not in cluster.hosts or state.task_id != message.task_id:
        return []
    if state.phase != "running":
        return []
    record = state.nodes.get(cluster.hosts[host].host.node_id)
    state.fed.discard(host)
    if record and not record.terminal:
        state.move(record.node_id, "waiting")
        state.version += 1
    if state.proved:
        return task_join.deliver_late(cluster, state, cluster.hosts[host].host, now)
    task.closed = True
    return _ask(cluster, state, task, now)


def _opened(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """Whoever was left out until everybody had proved."""
    if any(not s.proved for s in task.specs.values()):
        return []
    task.closed = False
    aside = [h for h in task.aside if cluster.usable(task, h)]
    task_join.join(cluster, task, {}, now)
    actions = neighbourhood.news_of_joined(cluster, task, aside)
    for state in list(task.specs.values()):
        for node, record in state.nodes.items():
            host = cluster.by_node.get(node, "")
            if record.state == "waiting" and cluster.alive(host):
                actions += task_join.deliver_late(cluster, state, cluster.hosts[host].host, now)
    return actions
