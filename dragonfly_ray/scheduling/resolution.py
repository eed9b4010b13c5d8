"""One host looks at the origin for everybody; another if it fails, and again if the content changes."""

from __future__ import annotations

import logging

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.backoff import DEFAULT_RETRY_AFTER_S, PASSING_KINDS
from dragonfly_ray.logs import about_spec
from dragonfly_ray.scheduling import completion, origin_admission
from dragonfly_ray.scheduling.actions import Action, Ask, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.task import TaskState
from dragonfly_ray.urls import origin, redacted

log = logging.getLogger(__name__)

RESOLVE_ATTEMPTS = 3
MOST_LOOKERS = 32
"""Peers that help a resolver; more would wait for it to hand out work."""


def resolve(cluster: ClusterState, state: DistributionState, now: float) -> list[Action]:
    """Asks a host to look, unless the origin is to be left alone: then `due` tells when to come back."""
    shown = redacted(state.spec.source.url)
    if blocked := cluster.budget_of(origin(state.spec.source.url)).wait(now):
        state.patience.hold(
            now + blocked, state.patience.why or f"{shown}: origin backoff after HTTP 429 or 503"
        )
    host = _resolver(cluster, state) if state.patience.due(now) else None
    if host is None:
        state.resolver = ""
        return []
    state.resolver = host
    state.tried.add(host)
    state.attempts += 1
    state.unresolve()
    small = state.spec.small and cluster.settings.transport.carrier != "socket"
    # What has no version of its own may be another for whoever opens it otherwise.
    nonce = cluster.nonces.of(state.spec.source.id, now, state.opener)
    state.lookers, connections = lookers(cluster, state, now)
    rate = (cluster.most_requests or 0.0) / (len(state.lookers) + 1)
    ask = m.Resolve(
        state.spec.source,
        state.credentials,
        small,
        nonce,
        state.lookers,
        connections,
        rate,
        state.spec.policy,
        state.spec.id,
        state.spec.run,
        cluster.generations.of(state.spec.source.id, state.opener),
    )
    return [Ask(host, ask, state.spec.id, state.spec.run)]


def due(state: DistributionState, now: float) -> bool:
    """Whether nobody looks for it, and somebody may."""
    return state.phase == "resolving" and not state.resolver and state.patience.due(now)


def lookers(cluster: ClusterState, state: DistributionState, now: float) -> tuple[tuple[str, ...], int]:
    """Who helps the resolver where it must look at many files, and how many connections each may have.

    As with leases: whoever may go to the origin.
    """
    live = [h.host for h in cluster.hosts.values() if h.alive]
    if cluster.seeds_only(state):
        allowed = cluster.seeds() or sorted(h.id for h in live if h.node_id in state.nodes)[:2]
    else:
        open_nodes = set(state.open_nodes)
        allowed = [h.id for h in live if h.node_id in open_nodes]
    key = origin(state.spec.source.url)
    room = max(1, cluster.budget_of(key).allowed(now) - sum(t.taken() for t in cluster.at(key)))
    helpers = [h for h in allowed if h != state.resolver and not state.spec.source.node]
    helpers = helpers[: min(MOST_LOOKERS, room - 1)]
    most = cluster.settings.origin.small_connections
    return tuple(helpers), max(1, min(most, room // (len(helpers) + 1)))


def may_look(cluster: ClusterState, message: m.Stat) -> bool:
    """Whether the host was chosen to help with this source, and lives."""
    return cluster.alive(message.host) and any(
        message.host in s.lookers and s.phase == "resolving" and s.spec.source.id == message.source.id
        for s in cluster.specs.values()
    )


def _resolver(cluster: ClusterState, state: DistributionState) -> str | None:
    """Who looks at the origin for everybody: the owner of a local file, a seed, a target."""
    pool = _able(cluster, state)
    fresh = [h for h in pool if h not in state.tried] or pool
    return fresh[next(cluster.spread) % len(fresh)] if fresh else None


def _able(cluster: ClusterState, state: DistributionState) -> list[str]:
    owner = state.spec.source.node
    if owner:
        host = cluster.by_node.get(owner)
        return [host] if host and cluster.hosts[host].alive else []
    alive = {h.host.node_id: h.host for h in cluster.hosts.values() if h.alive}
    seeds = cluster.seeds()
    targets = [alive[n].id for n in state.open_nodes if n in alive]
    targets = [h for h in targets if not cluster.drains(h)] or targets
    policy = cluster.settings.origin.policy
    return (seeds or targets) if policy != "targets" else targets


def resolved(cluster: ClusterState, spec_id: str, answer: m.Resolved, now: float) -> list[Action]:
    """A resolver's answer. What it leaves `pending` is for `proving` to start."""
    state = cluster.specs.get(spec_id)
    if state is None or state.phase != "resolving" or state.pending:
        return []
    if answer.task is None:
        return _not_resolved(cluster, state, answer, now)
    if state.spec.digest and answer.task.directory:
        text = f"{answer.task.url}: is a directory; a digest is for one file"
        return completion.fail(cluster, state, "invalid-request", text, now)
    task = cluster.task(answer.task, state.spec.source.url, answer.units)
    task.requests = answer.requests or (1,) * answer.task.pieces
    task.audits.cover(bitset.from_bytes(answer.covered, answer.task.pieces))
    state.content, state.digests = answer.content, answer.digests
    state.manifest, state.beside = answer.manifest, answer.beside
    task.manifest_holders.add(state.resolver)
    if answer.content or answer.beside or answer.whole:
        cluster.access.prove(task.task.id, state.fingerprint, now)
    state.pending = task.task.id
    return []


def _not_resolved(
    cluster: ClusterState, state: DistributionState, answer: m.Resolved, now: float
) -> list[Action]:
    """Another host may fare better, and all of them in a while."""
    kind, text = answer.kind or "source", answer.message or "could not resolve"
    passing = kind in PASSING_KINDS and not answer.final
    if passing:
        state.patience.failing(now - answer.failing)
    fresh = not passing or any(host not in state.tried for host in _able(cluster, state))
    if _may_differ_elsewhere(kind) and kind != "source-busy" and fresh and state.attempts < RESOLVE_ATTEMPTS:
        return resolve(cluster, state, now)
    if passing:
        return look_later(cluster, state, kind, text, now, answer.retry_after)
    return completion.fail(cluster, state, kind, text, now)


def look_later(
    cluster: ClusterState,
    state: DistributionState,
    kind: str,
    text: str,
    now: float,
    retry_after: float = 0.0,
) -> list[Action]:
    """The origin fails for all: it is looked at again in a while, or given up. `retry_after`: as it said itself."""
    if kind == "source-busy":
        retry_after = retry_after or DEFAULT_RETRY_AFTER_S
    if not state.patience.failed(text, now, cluster.settings.origin.give_up, retry_after=retry_after):
        return completion.fail(cluster, state, kind, text, now)
    log.info(
        "distribution %s: %s; resolving it again", state.spec.id, text, extra=about_spec(state.spec.id, "")
    )
    state.resolver, state.attempts = "", 0
    state.unresolve()
    state.tried.clear()
    state.version += 1
    return (
        origin_admission.busy(cluster, origin(state.spec.source.url), retry_after, now)
        if kind == "source-busy"
        else []
    )


def looking(cluster: ClusterState, message: m.StatPending, now: float) -> list[Action]:
    """A look goes on, or waits for the origin."""
    state = cluster.specs.get(message.spec_id)
    if state is None or message.run != state.spec.run:
        return []
    state.heard_look = now
    if state.phase != "resolving":
        return []
    if state.patience.why != message.message:
        state.patience.why = message.message
        state.version += 1
    if not message.retry_after:
        return []
    return origin_admission.busy(cluster, origin(state.spec.source.url), message.retry_after, now)


def _may_differ_elsewhere(kind: str) -> bool:
    """Whether another node may fare better: its way to the origin, or its disk."""
    return kind in PASSING_KINDS or kind.startswith("storage")


def resolve_failed(cluster: ClusterState, spec_id: str, now: float) -> list[Action]:
    """The resolver died or did not answer: ask another."""
    state = cluster.specs.get(spec_id)
    if state is None or state.phase != "resolving":
        return []
    if state.attempts >= RESOLVE_ATTEMPTS:
        shown = redacted(state.spec.source.url)
        return completion.fail(
            cluster, state, "source-unreachable", f"{shown}: no node could resolve it", now
        )
    return resolve(cluster, state, now)


def origin_failed(cluster: ClusterState, message: m.OriginFailed, now: float) -> list[Action]:
    task = cluster.tasks.get(message.task_id)
    if task is None:
        return []
    task.leases.release(message.host_id, message.pieces)
    task.failures += 1
    if task.failing_since is None:
        task.failing_since = now
    if task.failure != message.message:
        task.failure = message.message
        cluster.touch(task)
    if message.kind == "source-changed":
        return _changed(cluster, task, message, now)
    if message.final or now - task.failing_since > cluster.settings.origin.give_up:
        return completion.fail_task(cluster, task, message.kind, message.message, now)
    return []


def _changed(cluster: ClusterState, task: TaskState, message: m.OriginFailed, now: float) -> list[Action]:
    """Another version at the same URL."""
    cluster.nonces.forget(task.task.source_id)
    return _anew(cluster, task, message.message, now)


def start_anew(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """Hosts have read different bytes under one version, or none: from now on it is another task. What was read
    of this one may be of either content, and is joined with nothing that is read later."""
    cluster.nonces.forget(task.task.source_id)
    cluster.generations.next(task.task.source_id)
    text = f"{task.task.url}: the origin returns different bytes under one version"
    actions = _anew(cluster, task, text, now)
    for state in list(cluster.specs.values()):
        if state.phase == "resolving" and state.pending == task.task.id:
            actions += resolve(cluster, state, now)
    return actions


def _anew(cluster: ClusterState, task: TaskState, why: str, now: float) -> list[Action]:
    """Every distribution of the task looks at the origin again, once; also for nodes that are done."""
    actions: list[Action] = []
    for state in list(task.specs.values()):
        if state.changes:
            twice = f"{why} (twice: do its replicas agree on the version?)"
            actions += completion.fail(cluster, state, "source-changed", twice, now)
            continue
        state.changes, state.attempts = 1, 0
        state.superseded.add(task.task.id)
        for host in list(task.participants):
            actions.append(
                Send(host, m.Cancel(state.spec.id, m.SUPERSEDED, "the source has changed", state.spec.run))
            )
        state.begin_again(cluster.alive_node)
        cluster.settled(state)
        state.phase = "resolving"
        state.version += 1
        actions += resolve(cluster, state, now)
    if not task.specs:
        completion.rest(cluster, task, now)
    task.places.clear()
    return actions
