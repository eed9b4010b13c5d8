"""Permissions to read a task: who gets one, and when it is renewed."""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState

RENEWED_AFTER = 1 / 3
"""Of its time: with the next report."""
PUSHED_AFTER = 1 / 2
"""Of its time, to whoever has not reported since."""
LOOKS = 10
"""Looks for those, in the time of one grant."""


def grant(cluster: ClusterState, task: TaskState, host: str, now: float) -> bytes:
    """A new one; empty for who is banned from the task."""
    if host in task.expelled():
        return b""
    task.granted[host] = now
    return cluster.sign(task.task, cluster.hosts[host].host)


def renewed(cluster: ClusterState, task: TaskState, host: str, now: float, *, refused: bool) -> bytes:
    """For a host that reports: another one if its last is no longer new, or not this scheduler's; else empty."""
    since = task.granted.get(host)
    age = cluster.settings.scheduler.grant_ttl * RENEWED_AFTER
    return grant(cluster, task, host, now) if refused or since is None or now - since >= age else b""


def renew(cluster: ClusterState, now: float) -> list[Action]:
    """What is due by time alone."""
    ttl = cluster.settings.scheduler.grant_ttl
    if now < cluster.renewal_due:
        return []
    cluster.renewal_due = now + ttl / LOOKS
    actions: list[Action] = []
    for task in cluster.tasks.values():
        for host in task.participants:
            since = task.granted.get(host)
            if since is not None and now - since >= ttl * PUSHED_AFTER and cluster.alive(host):
                found = grant(cluster, task, host, now)
                actions += [Send(host, m.TaskUpdate(task.task.id, grant=found))] if found else []
    return actions
