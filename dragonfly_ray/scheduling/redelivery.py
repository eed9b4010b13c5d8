"""Peers name the distributions that they carry; what one should carry and does not is delivered again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from dragonfly_ray import messages as m
from dragonfly_ray.logs import about_spec
from dragonfly_ray.scheduling import task_join
from dragonfly_ray.scheduling.actions import Action, Compare, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.task import TaskState

log = logging.getLogger(__name__)

CONFIRM_AFTER = 5.0
"""Seconds for which a host may have named too little before it is asked what it carries."""
REPORTS = 3.0
"""Intervals between reports that this is at least: they name it, too."""


def expected(cluster: ClusterState, task: TaskState, host: str) -> Iterator[DistributionState]:
    """The distributions of a task that have been delivered to a participant and are open there."""
    node = cluster.hosts[host].host.node_id
    helper = task.participants.get(host, False)
    for state in task.specs.values():
        record = state.nodes.get(node)
        if helper if record is None else record.state == "running":
            yield state


def confirm(
    cluster: ClusterState, task: TaskState, host: str, carried: Collection[tuple[str, str]], now: float
) -> None:
    """A report has named what its host carries of the task."""
    ids = {spec_id for spec_id, _ in carried}
    for spec_id in ids:
        if spec_id in task.specs:
            task.specs[spec_id].fed.add(host)
    if all(state.spec.id in ids for state in expected(cluster, task, host)):
        task.confirmed[host] = now


def overdue(cluster: ClusterState, now: float) -> list[Action]:
    """Who has not named all that was delivered to it, for long."""
    age = max(CONFIRM_AFTER, REPORTS * cluster.interval())
    hosts: dict[str, None] = {}
    for here in cluster.active.values():
        for task in here.values():
            for host in task.participants:
                if now - task.confirmed.setdefault(host, now) > age and cluster.alive(host):
                    task.confirmed[host] = now
                    if any(True for _ in expected(cluster, task, host)):
                        hosts[host] = None
    return [Compare(host) for host in hosts]


def compare(cluster: ClusterState, message: m.Carrying, now: float) -> list[Action]:
    """What a host carries, while nothing was on its way to it."""
    host = cluster.hosts.get(message.host_id)
    if host is None or not host.alive or host.host.incarnation != message.incarnation:
        return []
    host.last_seen = now
    carried = dict(message.carried)
    actions = [
        a for s in missing(cluster, message.host_id, carried) for a in _again(cluster, s, message, now)
    ]
    for spec_id, run in message.carried:
        state = cluster.specs.get(spec_id)
        if state and state.phase == "ended" and run in state.runs:
            actions.append(Send(message.host_id, m.Cancel(spec_id, "done", "", run)))
    return actions


def missing(cluster: ClusterState, host: str, carried: Collection[str] = ()) -> list[DistributionState]:
    """The distributions that a host must be at and does not name."""
    return [
        state
        for here in cluster.active.values()
        for task in here.values()
        if host in task.participants
        for state in expected(cluster, task, host)
        if state.spec.id not in carried
    ]


def again(cluster: ClusterState, host: str, now: float) -> list[Action]:
    """All that a host must be at: messages for it were dropped."""
    known = [(s, cluster.tasks[s.task_id]) for s in missing(cluster, host)]
    return [Send(host, task_join.delivery(cluster, s, task, host, now)) for s, task in known]


def _again(cluster: ClusterState, state: DistributionState, message: m.Carrying, now: float) -> list[Action]:
    task = cluster.tasks[state.task_id]
    log.warning(
        "task %.12s: host %s does not know distribution %s; delivering it again",
        task.task.id, message.host_id, state.spec.id,
        extra=about_spec(state.spec.id, task.task.id),
    )  # fmt: skip
    task.confirmed[message.host_id] = now
    return [Send(message.host_id, task_join.delivery(cluster, state, task, message.host_id, now))]
