"""What nobody can ask for any more is forgotten, so that a scheduler that runs for months does not grow."""

from __future__ import annotations

from dragonfly_ray.scheduling.cluster import ClusterState

KEEP_HOST = 600.0
"""Seconds for which a host that was given up is remembered: it may have been too slow only."""


def sweep(cluster: ClusterState, now: float) -> None:
    """Call it now and then."""
    _hosts(cluster, now)
    _tasks(cluster)
    active = cluster.active
    for key in [k for k, b in cluster.budgets.items() if k not in active and b.at_rest(now)]:
        del cluster.budgets[key]


def _hosts(cluster: ClusterState, now: float) -> None:
    gone = {
        host
        for host, state in cluster.hosts.items()
        if not state.alive and now - max(state.last_seen, state.gone) > KEEP_HOST
    }
    if gone:
        gone.difference_update(*(t.participants for here in cluster.active.values() for t in here.values()))
    for host in gone:
        node = cluster.hosts.pop(host).host.node_id
        if cluster.by_node.get(node) == host:
            del cluster.by_node[node]
    if gone:
        for task in cluster.tasks.values():
            task.forget_hosts(gone)


def _tasks(cluster: ClusterState) -> None:
    """Those that nobody holds, is at, or has asked for of late."""
    wanted = {name for s in cluster.specs.values() for name in (s.task_id, s.pending)}
    idle = [
        task_id
        for task_id, task in cluster.tasks.items()
        if not task.holders and not task.participants and task_id not in wanted
    ]
    for task_id in idle:
        del cluster.tasks[task_id]
