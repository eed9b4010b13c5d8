"""Digests that disagree, hosts that send wrong bytes, and the record that decides."""

from __future__ import annotations

import logging

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import bits as bitset
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState

log = logging.getLogger(__name__)

MOST_GAPS = 4096


def learnt(cluster: ClusterState, task: TaskState, dropped: list[int], liars: list[str]) -> list[Action]:
    """Two digests for one piece: nobody keeps either."""
    actions: list[Action] = []
    if dropped:
        log.warning("task %.12s: two digests for pieces %s, both dropped", task.task.id, dropped)
        bits = bitset.of(dropped)
        for host in list(task.holders):
            if task.holders[host] & bits:
                task.holders[host] &= ~bits
                if cluster.usable(task, host):
                    actions.append(Send(host, m.News(task.task.id, discard=tuple(dropped))))
        task.leases.lost(bits)
    for liar in liars:
        actions += ban(cluster, task, liar, 0.0)
    return actions


def ban(cluster: ClusterState, task: TaskState, host: str, now: float) -> list[Action]:
    if host in task.banned:
        return []
    log.warning("task %.12s: host %s banned, its bytes do not match their digests", task.task.id, host)
    task.ban(host)
    cluster.decisions.ban(task.task.id, host, now)
    news = m.News(task.task.id, banned=(host,))
    return [Send(h, news) for h in task.participants if h != host and cluster.usable(task, h)]


def verify(cluster: ClusterState, message: m.Verify) -> m.Verified:
    """Whether a peer's digests agree with the record. `pending`: the record has gaps still."""
    task = cluster.tasks.get(message.task_id)
    if task is None:
        return m.Verified(known=False)
    root = task.root()
    if root is None:
        return m.Verified(pending=True, gaps=task.gaps(MOST_GAPS))
    if root == message.root:
        return m.Verified()
    return m.Verified(ok=False, digests=task.digests())
