"""Hosts that die, fall silent or leave: nobody waits for them, and what only they had is fetched again."""

from __future__ import annotations

from collections.abc import Iterable

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import completion, importers, resolution, task_join
from dragonfly_ray.scheduling.actions import Action, Probe, Send, Verdict
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState


def probed(
    cluster: ClusterState, host_id: str, verdict: Verdict, now: float, incarnation: str = ""
) -> list[Action]:
    """What a look at a host found out. `died`: its process, and its node lives; it will be back.

    `incarnation`: of the process that was looked at; a successor is not judged by it.
    """
    state = cluster.hosts.get(host_id)
    if state is None or (incarnation and incarnation != state.host.incarnation):
        return []
    if verdict == "alive":
        state.last_seen = now
        return []
    if verdict == "died":
        if state.alive:
            state.last_seen = now
        actions = forget(cluster, host_id, now)
        for spec in cluster.specs.values():
            record = spec.nodes.get(state.host.node_id)
            if record and record.state == "running":
                spec.move(record.node_id, "waiting")
                spec.version += 1
            if spec.phase == "resolving" and spec.resolver == host_id:
                actions += resolution.resolve_failed(cluster, spec.spec.id, now)
        return actions
    if verdict == "silent" and now - state.last_seen < cluster.settings.scheduler.silent_after:
        return forget(cluster, host_id, now) if state.alive else []
    silence = f"node unresponsive for {cluster.settings.scheduler.silent_after:g} s"
    why = "node has left the cluster" if verdict == "gone" else silence
    return _lost(cluster, host_id, f"{state.host.name or state.host.node_id}: {why}", now)


def node_gone(cluster: ClusterState, node: str, now: float) -> list[Action]:
    """Ray says that a node is dead."""
    host = cluster.by_node.get(node)
    if host:
        return probed(cluster, host, "gone", now)
    return fail_nodes(cluster, node, f"{node}: node has left the cluster", now)


def _lost(cluster: ClusterState, host_id: str, why: str, now: float) -> list[Action]:
    node = cluster.hosts[host_id].host.node_id
    return [*forget(cluster, host_id, now), *fail_nodes(cluster, node, why, now)]


def fail_nodes(cluster: ClusterState, node: str, why: str, now: float) -> list[Action]:
    actions: list[Action] = []
    for state in list(cluster.specs.values()):
        record = state.nodes.get(node)
        if record and not record.terminal:
            state.fail_node(node, "node-lost", why)
            state.version += 1
            actions += completion.maybe_end(cluster, state, now)
    return actions


def forget(cluster: ClusterState, host_id: str, now: float, *, leave: bool = True) -> list[Action]:
    """Nobody shall wait for this host any more; what only it had must be fetched again."""
    if cluster.hosts[host_id].alive:
        cluster.hosts[host_id].gone = now
    cluster.hosts[host_id].alive = False
    cluster.announcing.pop(host_id, None)
    actions: list[Action] = []
    for task in cluster.tasks.values():
        was = host_id in task.participants or host_id in task.holders
        task.drop(host_id)
        task.manifest_holders.discard(host_id)
        cluster.recount(task, host_id)
        actions += completion.settled(cluster, task, task.places.lost(host_id))
        if cluster.hosts[host_id].host.seed and was and not task.able_seeds:
            actions += task_join.take_over(cluster, task, now)
        if leave:
            actions += _part(cluster, task, host_id, now, tell=was)
        elif was:
            actions += _left(cluster, task, host_id, task.graph.neighbours(host_id))
    return actions


def _part(cluster: ClusterState, task: TaskState, host_id: str, now: float, *, tell: bool) -> list[Action]:
    """It is nobody's neighbour any more; who hears of it and of new neighbours."""
    near = task.graph.neighbours(host_id)
    actions = importers.told(cluster, task, task.graph.leave(host_id, now))
    return actions + _left(cluster, task, host_id, near) if tell else actions


def _left(cluster: ClusterState, task: TaskState, host_id: str, near: Iterable[str]) -> list[Action]:
    left = m.TaskUpdate(task.task.id, left=(host_id,))
    return [Send(h, left) for h in near if h in task.participants and cluster.alive(h)]


def expect(cluster: ClusterState, nodes: Iterable[str], now: float) -> None:
    """These nodes are about to be waited for. Where nobody waited until now, silence counts from here."""
    waited = {n for s in cluster.specs.values() if s.phase != "ended" for n in s.open_nodes}
    for node in nodes:
        host = cluster.hosts.get(cluster.by_node.get(node, ""))
        if host and node not in waited:
            host.last_seen = max(host.last_seen, now)


def watch(cluster: ClusterState, node: str, now: float) -> list[Action]:
    host_id = cluster.by_node.get(node)
    if host_id is None:
        waited = min(s.submitted for s in cluster.specs.values() if node in s.open_nodes)
        if now - waited > cluster.settings.peer.start_timeout:
            return fail_nodes(cluster, node, f"{node}: no peer was started on this node", now)
        return []
    host = cluster.hosts[host_id]
    silence = now - host.last_seen
    if silence > cluster.settings.peer.start_timeout:
        return _lost(cluster, host_id, f"{host.host.name or node}: peer was not restarted in time", now)
    return [Probe(host_id)] if silence > min(2.0, cluster.settings.scheduler.silent_after / 2) else []


def missed(cluster: ClusterState) -> list[str]:
    """The nodes whose peers were given up; they may have been too slow only."""
    return [h.host.node_id for h in cluster.hosts.values() if not h.alive]


def evicted(cluster: ClusterState, host_id: str, task_id: str, now: float) -> list[Action]:
    """A peer has dropped a task from its store."""
    cluster.told(host_id, task_id)
    task = cluster.tasks.get(task_id)
    if task is None:
        return []
    task.drop(host_id)
    task.manifest_holders.discard(host_id)
    return _part(cluster, task, host_id, now, tell=True) if host_id not in task.participants else []
