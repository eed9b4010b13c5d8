"""How a distribution ends: node by node, by an error for all, by being forgotten."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.figures import Measured
from dragonfly_ray.logs import about_spec
from dragonfly_ray.model import Credentials
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.task import TaskState

log = logging.getLogger(__name__)

EXPELLED = "integrity"
"""The kind of error of a banned host's outputs."""


def fail(
    cluster: ClusterState, state: DistributionState, kind: str, message: str, now: float
) -> list[Action]:
    if state.phase == "ended":
        return []
    actions: list[Action] = []
    task = cluster.tasks.get(state.task_id)
    cancel = m.Cancel(state.spec.id, kind, message, state.spec.run)
    if task:
        actions += [Send(h, cancel) for h in task.participants if cluster.hosts[h].alive]
    elif state.phase == "resolving":
        actions += [Send(h, cancel) for h in (state.resolver, *state.lookers) if cluster.alive(h)]
    for node in state.open_nodes:
        state.fail_node(node, kind, message)
    return actions + maybe_end(cluster, state, now)


def fail_task(cluster: ClusterState, task: TaskState, kind: str, message: str, now: float) -> list[Action]:
    return [a for s in list(task.specs.values()) for a in fail(cluster, s, kind, message, now)]


def expel(cluster: ClusterState, task: TaskState, host: str, now: float) -> list[Action]:
    """A banned host gets nothing more. What it was to write there fails, and what only its node can read."""
    if host not in cluster.hosts:
        return []
    node = cluster.hosts[host].host.node_id
    name = cluster.hosts[host].host.name
    actions: list[Action] = []
    for state in list(task.specs.values()):
        if state.spec.source.node == node:
            text = (
                f"{name}, which has the source, was banned: its bytes did not match their digests; check it"
            )
            actions += fail(cluster, state, EXPELLED, text, now)
            continue
        text = f"{name} was banned: its bytes did not match their digests; check its disk and memory"
        if host in task.participants and cluster.alive(host):
            actions.append(Send(host, m.Cancel(state.spec.id, EXPELLED, text, state.spec.run)))
        record = state.nodes.get(node)
        if record and not record.terminal:
            state.fail_node(node, EXPELLED, text)
            actions += maybe_end(cluster, state, now)
    return actions


def maybe_end(cluster: ClusterState, state: DistributionState, now: float) -> list[Action]:
    state.version += 1
    if state.unfinished or state.phase == "ended":
        return []
    state.phase, state.ended_at = "ended", now
    failed = sum(record.state == "failed" for record in state.nodes.values())
    log.info(
        "distribution %s: ended, %d of %d nodes failed", state.spec.id, failed, len(state.nodes),
        extra=about_spec(state.spec.id, state.task_id),
    )  # fmt: skip
    if failed < len(state.nodes) and state.task_id and not state.proved:
        # Nothing of it came from what others had read: its own credentials have read all of it.
        cluster.access.prove(state.task_id, state.fingerprint, now)
    cluster.settled(state)
    state.pending = state.proving = ""
    state.content = b""
    state.credentials = Credentials()
    task = cluster.tasks.get(state.task_id)
    if task is None:
        return []
    state.measured = _measured(state, task)
    if task.specs:
        return settled(cluster, task, task.places.over(state.spec.id))
    done = m.Cancel(state.spec.id, "done", "", state.spec.run)
    actions: list[Action] = [
        Send(h, done) for h, helper in task.participants.items() if helper and cluster.alive(h)
    ]
    rest(cluster, task, now)
    return actions


def _measured(state: DistributionState, task: TaskState) -> Measured | None:
    if state.adopted or len(task.meter.distributions) > 1:
        return None
    whole = (node for node, record in state.nodes.items() if record.state == "done")
    return task.meter.measured(task.task.size, whole)


def rest(cluster: ClusterState, task: TaskState, now: float) -> None:
    """No distribution is at it any more."""
    if task.task.validator == "none" and task.task.ranges and not any(map(task.is_complete, task.holders)):
        # Nothing would tell whether what is read later belongs to what is here.
        cluster.nonces.forget(task.task.source_id)
    task.audits.rest()
    for host in task.participants:
        task.leases.drop(host)
        if host in task.graph and not task.is_complete(host):
            task.graph.leave(host, now)
            if host in task.holders:
                task.aside.add(host)
    cluster.discharge(task, list(task.participants))
    cluster.aloof -= len(task.aloof)
    task.aloof.clear()
    task.connections.clear()
    task.traffic.clear()
    task.complaints.clear()
    task.suspects.clear()
    task.misled.clear()
    task.pardon()
    task.contested.clear()
    task.differing = 0
    task.granted.clear()
    task.places.clear()
    task.closed = False


def settled(cluster: ClusterState, task: TaskState, hosts: Iterable[str]) -> list[Action]:
    """They wait for an output that another host was at."""
    news = m.TaskUpdate(task.task.id, settled=True)
    return [Send(h, news) for h in sorted(hosts) if cluster.alive(h)]


def retire(cluster: ClusterState, state: DistributionState) -> None:
    del cluster.specs[state.spec.id]
    task = cluster.tasks.get(state.task_id)
    if task and not task.holders and not any(s.task_id == task.task.id for s in cluster.specs.values()):
        del cluster.tasks[task.task.id]


def ended(cluster: ClusterState, message: m.Ended, now: float) -> list[Action]:
    state, host = cluster.specs.get(message.spec_id), cluster.hosts.get(message.host_id)
    if state is None or host is None:
        return []
    host.last_seen = now
    record = state.nodes.get(host.host.node_id)
    task = cluster.tasks.get(message.task_id)
    actions: list[Action] = []
    if task and message.place:
        stamp = message.stamp if message.ok else ""
        done = task.places.ended(message.place, message.host_id, stamp, merged=message.merged)
        actions += settled(cluster, task, done)
    if task and message.task_id == state.task_id:
        cluster.told(message.host_id, message.task_id)
        others = message.bytes_peers + message.bytes_small
        task.meter.told(host.host.node_id, host.host.idc, message.bytes_origin, others, now)
        if message.ok:
            task.hold(message.host_id, task.everything)
        else:
            task.leases.drop(message.host_id)
        if message.dropped:
            task.drop(message.host_id, task.everything)
            for piece in bitset.members(task.everything & ~task.somewhere()):
                task.forget(piece)  # whoever reads it next says what it is
    ours = not message.run or message.run in state.runs  # or of an earlier run of the id
    if record and not record.terminal and ours and message.task_id == state.task_id:
        read = task.readers.get(message.host_id, 0) if task else 0
        state.end_node(host.host.node_id, message, bitset.ranges(read))
        state.version += 1
        actions += maybe_end(cluster, state, now)
    return actions
