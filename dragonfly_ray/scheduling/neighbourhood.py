"""What hosts are told of their neighbours in a task's graph."""

from __future__ import annotations

from collections.abc import Iterable

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import origin_admission
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState


def neighbours(
    cluster: ClusterState, task: TaskState, host: str, among: Iterable[str] | None = None
) -> tuple[m.Neighbour, ...]:
    chosen = task.graph.neighbours(host)
    if among is not None:  # it may be news that the host itself is an importer now
        chosen = (chosen | {host}) & set(among)
    return tuple(
        neighbour(cluster, task, other)
        for other in sorted(chosen)
        if _told(cluster, task, other) and task.aloof.get(other) != "gone"
    )


def _told(cluster: ClusterState, task: TaskState, host: str) -> bool:
    """Whether others connect to it: also to whom they ask for nothing, or it would not hear what they have."""
    shunned = host in task.shunned and host in task.participants
    return cluster.usable(task, host) or (shunned and cluster.alive(host))


def neighbour(cluster: ClusterState, task: TaskState, host: str) -> m.Neighbour:
    return m.Neighbour(
        cluster.hosts[host].host,
        complete=host not in task.participants,
        manifest=host not in task.shunned and (host in task.manifest_holders or bool(task.holders.get(host))),
        silent=host in task.aloof or host in task.shunned,
        importer=task.graph.imports(host),
        sole=_sole(cluster, task, host),
    )


def _sole(cluster: ClusterState, task: TaskState, host: str) -> bool:
    known = cluster.hosts[host].host
    owns = any(s.spec.source.node == known.node_id for s in task.specs.values())
    return (known.seed or owns) and origin_admission.claimants(cluster, task, host) == 1


def news_of_joined(cluster: ClusterState, task: TaskState, joined: list[str]) -> list[Action]:
    """What the others must hear of their new neighbours."""
    new = set(joined)
    gained: dict[str, list[str]] = {}
    for host in joined:
        for other in task.graph.neighbours(host):
            if other in task.participants and other not in new and cluster.alive(other):
                gained.setdefault(other, []).append(host)
    actions: list[Action] = []
    for other, hosts in gained.items():
        news = neighbours(cluster, task, other, hosts)
        if news:
            actions.append(Send(other, m.TaskUpdate(task.task.id, joined=news)))
    return actions
