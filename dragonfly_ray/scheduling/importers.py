"""Which hosts import for their zones: such as fetch the task and may be asked, whatever becomes of them.

A place on a zone's roster is worth something only to a host that gets on with it; looked at now and then, so that
no way of dropping out (draining, a ban, a cancel, a full disk) needs to think of it.
"""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import neighbourhood
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState


def review(cluster: ClusterState) -> list[Action]:
    """Of all tasks under way: who can import no more is succeeded, and vacant places are filled."""
    return [
        action for here in cluster.active.values() for task in here.values() for action in look(cluster, task)
    ]


def look(cluster: ClusterState, task: TaskState) -> list[Action]:
    """At one task. Those who have all of it keep their places: they have nothing to import, nor has their zone."""
    unfit = [
        host
        for roster in task.graph.rosters.values()
        for host in roster
        if not cluster.may_import(task, host)
        and not (task.is_complete(host) and cluster.usable(task, host) and not cluster.drains(host))
    ]
    return told(cluster, task, task.graph.dismiss(unfit))


def told(cluster: ClusterState, task: TaskState, gained: dict[str, set[str]]) -> list[Action]:
    """What each host must hear of others, or of itself."""
    actions: list[Action] = []
    for other, hosts in gained.items():
        if other in task.participants and cluster.alive(other):
            news = neighbourhood.neighbours(cluster, task, other, hosts)
            if news:
                actions.append(Send(other, m.TaskUpdate(task.task.id, joined=news)))
    return actions
