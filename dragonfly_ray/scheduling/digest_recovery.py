"""Digests that holders have and the record lacks: asked for when they are needed, of as few hosts as have them all.

A peer that announces a whole task gives one digest over all of its pieces' digests, its root. While the record is
empty and all roots agree, that root stands for the record; no piece's digest need travel.
"""

from __future__ import annotations

from collections.abc import Iterable

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import trust
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState

ASK_TIMEOUT = 10.0
"""Seconds after which another host is asked; the first may have dropped the task, or be gone."""


def claim(task: TaskState, host: str, root: bytes) -> None:
    """`host` has announced all of the task."""
    known = next(iter(task.roots.values()), b"")
    task.roots[host] = known if known == root else root  # one object for all that agree
    task.claimed = None


def ask(
    cluster: ClusterState, task: TaskState, now: float, among: Iterable[str] | None = None
) -> list[Action]:
    """Whom to ask for digests now: nobody, as a rule. `among`: the holders of a part that may be new."""
    if not task.roots and not task.vouched & ~task.recorded:
        return []
    for host in [h for h, since in task.asked.items() if now - since > ASK_TIMEOUT]:
        del task.asked[host]
    hosts = [h for h in _of_roots(task) if cluster.usable(task, h)]
    if not task.roots and task.participants:
        hosts += _of_parts(cluster, task, task.holders if among is None else among)
    task.asked.update(dict.fromkeys(hosts, now))
    return [Send(h, m.TellDigests(task.task.id)) for h in hosts]


def _of_roots(task: TaskState) -> list[str]:
    """One host for each root that is not settled by the record."""
    if len(task.record) == task.task.pieces:
        known = task.root()
        for host in [h for h, root in task.roots.items() if root == known]:
            del task.roots[host]
            task.claimed = None
    hosts: dict[bytes, str] = {}
    for host, root in task.roots.items():
        if host not in task.banned and (root not in hosts or host in task.asked):
            hosts[root] = host
    if len(hosts) < 2 and not task.participants and not task.record:
        return []
    return [host for host in hosts.values() if host not in task.asked]


def _of_parts(cluster: ClusterState, task: TaskState, among: Iterable[str]) -> list[str]:
    """Hosts that have, together, what the record lacks."""
    lacking = task.vouched & ~task.recorded
    for host in task.asked:
        lacking &= ~task.holders.get(host, 0)
    found = []
    for host in among:
        if not lacking:
            break
        held = task.holders.get(host, 0)
        if held & lacking and host not in task.asked and cluster.usable(task, host):
            found.append(host)
            lacking &= ~held
    return found


def told(cluster: ClusterState, message: m.Digests, now: float) -> list[Action]:
    """A holder's digests. What it does not have any more, it was too late to tell."""
    task = cluster.tasks.get(message.task_id)
    if task is None or task.asked.pop(message.host_id, None) is None:
        return []
    held = bitset.from_bytes(message.have, task.task.pieces)
    gone = task.holders.get(message.host_id, 0) & ~held
    if gone and message.host_id not in task.participants:  # those report what they lose
        task.drop(message.host_id, gone)
    task.roots.pop(message.host_id, None)
    task.claimed = None
    learnt = task.learn_all(message.host_id, message.digests, held)
    unsaid = task.holders.get(message.host_id, 0) & task.vouched & ~task.recorded
    if unsaid:  # or it would be asked for them for ever
        task.vouched &= ~unsaid
        task.leases.lost(unsaid)
    return [*trust.learnt(cluster, task, *learnt, now), *ask(cluster, task, now)]


def overdue(cluster: ClusterState, now: float) -> list[Action]:
    """Where whoever was asked has not answered."""
    return [
        action
        for here in cluster.active.values()
        for task in here.values()
        if task.asked
        for action in ask(cluster, task, now)
    ]
