"""Draining hosts stop serving: what they hold is asked of others as soon as others have it.

A draining host ends what it has begun. Its neighbours go on telling it what they have, and ask it for
nothing; once it is done with a task they part. What it alone holds it still gives: nothing is lost.
"""

from __future__ import annotations

from collections.abc import Collection

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import neighbourhood
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState


def mark(
    cluster: ClusterState, cordoned: Collection[str], draining: Collection[str], now: float
) -> list[Action]:
    """The nodes that are marked now, all of them."""
    cluster.cordoned = frozenset(cordoned)
    if cluster.draining == draining:
        return []
    cluster.draining = frozenset(draining)
    return move_away(cluster, now)


def move_away(cluster: ClusterState, now: float) -> list[Action]:
    """What the neighbours of draining hosts must hear; and of those that drain no more."""
    actions: list[Action] = []
    if cluster.draining or cluster.aloof:
        for here in list(cluster.active.values()):
            for task in here.values():
                actions += look(cluster, task, now)
    return actions


def look(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """At one task, in which somebody takes part."""
    before, task.aloof = task.aloof, judge(cluster, task)
    cluster.aloof += len(task.aloof) - len(before)
    actions: list[Action] = []
    for host in {*before, *task.aloof}:
        old, new = before.get(host), task.aloof.get(host)
        if old == new or not cluster.alive(host):
            continue
        if new != "gone" and host not in task.graph and (host in task.participants or task.holders.get(host)):
            task.aside.discard(host)
            task.graph.join(host, cluster.hosts[host].host.idc, now)
        near = [h for h in task.graph.neighbours(host) if h in task.participants and cluster.alive(h)]
        if new == "gone":
            news = m.TaskUpdate(task.task.id, left=(host,))
        else:
            news = m.TaskUpdate(task.task.id, joined=(neighbourhood.neighbour(cluster, task, host),))
        actions += [Send(other, news) for other in near]
    return actions


def judge(cluster: ClusterState, task: TaskState) -> dict[str, str]:
    """Draining hosts that need not give anything: `silent` while they still take, then `gone`."""
    nodes = [cluster.by_node.get(node, "") for node in cluster.draining]
    hosts = [h for h in nodes if h in task.holders or h in task.participants]
    if not hosts:
        return {}
    staying = 0
    for host, held in task.holders.items():
        if cluster.usable(task, host) and cluster.hosts[host].host.node_id not in cluster.draining:
            staying |= held
            if staying == task.everything:
                break
    found = {}
    for host in hosts:
        if not task.holders.get(host, 0) & ~staying:
            takes = host in task.participants and not task.is_complete(host)
            found[host] = "silent" if takes else "gone"
    return found
