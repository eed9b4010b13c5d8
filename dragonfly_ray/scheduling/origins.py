"""Who may go to the origin, for which pieces, and how many at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling.actions import Action, Send, Tell
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.spec import SpecState
from dragonfly_ray.scheduling.task import TaskState

log = logging.getLogger(__name__)


def claimants(cluster: ClusterState, task: TaskState, state: SpecState | None = None) -> list[str]:
    """The hosts that may go to the origin for this task."""
    specs = [state] if state else cluster.specs_of(task)
    owner = next((s.spec.source.node for s in specs if s.spec.source.node), "")
    live = [h for h in task.participants if cluster.usable(task, h)]
    if owner:
        return [h for h in live if cluster.hosts[h].host.node_id == owner]
    seeds = [h for h in live if cluster.hosts[h].host.seed]
    if any(cluster.seeds_only(s) for s in specs):
        if not seeds and len(live) > 0:
            log.warning("task %.12s: no seed left, two targets take over at the origin", task.task.id)
        return seeds or sorted(live)[:2]
    if cluster.settings.origin.policy == "targets":
        return [h for h in live if not task.participants[h]]
    return live


def grant(
    cluster: ClusterState,
    task: TaskState,
    host: str,
    most: int,
    claimants: int,
    now: float,
    urgent: Iterable[int] = (),
) -> list[int]:
    if most <= 0 or not task.leases.free:
        return []
    active = {h for h in task.participants if task.leases.held_by(h)}
    room = cluster.budget(task).allowed(now) // cluster.settings.origin.connections
    if host not in active and len(active) >= max(1, room):
        return []
    pieces = task.leases.claim(host, most, claimants, now, urgent)
    if pieces:
        cluster.decisions.lease(task.task.id, host, pieces, now)
    return pieces


def throttled(cluster: ClusterState, message: m.Throttled, now: float) -> list[Action]:
    task = cluster.tasks.get(message.task_id)
    if task is None:
        return []
    return [Tell(task.origin, message.retry_after), *patience(cluster, task.origin, message.retry_after, now)]


def patience(cluster: ClusterState, key: str, seconds: float, now: float) -> list[Action]:
    """Nobody asks this origin for a while."""
    actions: list[Action] = []
    for task in cluster.tasks.values():
        if task.origin != key:
            continue
        cluster.budget(task).complained(seconds, now)
        task.leases.postpone(now + seconds)
        news = m.News(task.task.id, not_before=seconds)
        actions += [Send(h, news) for h in task.participants if cluster.usable(task, h)]
    return actions
