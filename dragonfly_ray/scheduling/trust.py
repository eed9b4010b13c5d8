"""Digests that disagree, hosts that send wrong bytes, and the record that decides."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import completion, resolution
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.download.parent_state import BAD_PIECES
from dragonfly_ray.scheduling.task import Suspicion, TaskState

log = logging.getLogger(__name__)

MOST_GAPS = 4096
BAN_AFTER = 2
"""Hosts that complain of another, without which nobody is banned."""
MOST_DISPUTES = 4
"""Disputes about one piece, after which the origin is taken to be the cause."""
MOST_DISPUTED = 4
"""Pieces that were disputed; if there are more, the content has changed whatever its version says."""


def learnt(
    cluster: ClusterState, task: TaskState, dropped: list[int], others: list[str], now: float
) -> list[Action]:
    """Two digests for one piece: nobody keeps either.

    Nobody is banned for it: whoever read the origin first may have read what has been replaced since. Where no
    strong version says that it has not been, or many pieces say that it has, other pieces may be of either content,
    and all of it is read anew.
    """
    if others:
        log.warning(
            "task %.12s: the origin returned other bytes to %s before; did it change under one version?",
            task.task.id, ", ".join(sorted(set(others))),
            extra={"task_id": task.task.id},
        )  # fmt: skip
    if not dropped:
        return []
    log.warning(
        "task %.12s: conflicting digests for pieces %s, all dropped",
        task.task.id,
        dropped,
        extra={"task_id": task.task.id},
    )
    news = m.TaskUpdate(task.task.id, discard=tuple(dropped))
    actions: list[Action] = [Send(h, news) for h in task.discard(bitset.of(dropped)) if cluster.alive(h)]
    if task.task.validator != "strong" or task.differing.bit_count() > MOST_DISPUTED:
        return actions + resolution.start_anew(cluster, task, now)
    if max(task.contested[piece] for piece in dropped) >= MOST_DISPUTES:
        text = f"{task.task.url}: the origin repeatedly returns different bytes under one version"
        actions += completion.fail_task(cluster, task, "source-changed", text, now)
    return actions


def complain(
    cluster: ClusterState, task: TaskState, about: str, by: str, now: float, pieces: int = 1
) -> list[Action]:
    """`by` got bytes from `about` that were not what it promised.

    There is no proof of that: whoever complains may be the one who lies. So only the scheduler's own
    neighbours of a host are heard about it, and it is banned when more than half of those have turned away
    from it that have anything to say. One bad piece is no reason: the host hears of it, and mends it.
    """
    if about == by or about in task.banned or by not in _neighbours(cluster, task, about):
        return []
    said = task.complaints.setdefault(about, Counter())
    if by not in said:
        cluster.hosts[about].complained(now)
    said[by] += pieces
    known = _neighbours(cluster, task, about)
    agreed = sum(said[h] >= BAD_PIECES for h in known)
    judges = sum(said[h] >= BAD_PIECES or _can_tell(task, about, h) for h in known)
    if agreed < BAN_AFTER or 2 * agreed <= judges:
        return []
    return ban(cluster, task, about, now)


def _neighbours(cluster: ClusterState, task: TaskState, host: str) -> set[str]:
    """Those that were sent to it, take part, and live."""
    if host not in cluster.hosts:
        return set()
    known = task.graph.neighbours(host)
    return {h for h in known if h in task.participants and cluster.usable(task, h)}


def _can_tell(task: TaskState, about: str, judge: str) -> bool:
    """It has had good bytes of the host, or may still get some: its silence counts, too."""
    return not task.is_complete(judge) or task.flows.carried(about, judge)


def misled(
    cluster: ClusterState, task: TaskState, by: str, said: Iterable[tuple[str, int]], now: float
) -> list[Action]:
    """`by` heard of hosts what the record denies. They are told, and may have been misled themselves."""
    actions: list[Action] = []
    for about, piece in said:
        digest = task.record.get(piece)
        if digest is None or about == by:
            continue
        task.misled.setdefault(piece, set()).add(by)
        if not cluster.usable(task, about):
            continue
        found = task.suspects.get((about, piece))
        if found is None:
            found = task.suspects[about, piece] = Suspicion(now)
            actions.append(Send(about, m.TaskUpdate(task.task.id, record=((piece, digest),))))
        found.by.add(by)
    return actions


def judge(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """Whoever spread what the record denies, and names nobody that it had it from, made it up; unless it may have
    read it at an origin that gives different bytes under one version, or none.

    It has as long to say so as it may be silent without being given up: a slow host is no liar."""
    actions: list[Action] = []
    grace = cluster.settings.scheduler.silent_after
    for (about, piece), suspicion in list(task.suspects.items()):
        if now - suspicion.since < grace:
            continue
        del task.suspects[about, piece]
        disputed = task.contested[piece] or task.task.validator != "strong"
        if about not in task.misled.get(piece, ()) and not disputed:
            for by in suspicion.by:
                actions += complain(cluster, task, about, by, now, BAD_PIECES)
    return actions


def ban(cluster: ClusterState, task: TaskState, host: str, now: float) -> list[Action]:
    if host in task.banned and host not in task.shunned:
        return []
    log.warning(
        "task %.12s: host %s banned, its bytes do not match their digests",
        task.task.id,
        host,
        extra={"task_id": task.task.id},
    )
    task.shunned.discard(host)
    task.ban(host)
    cluster.recount(task, host)
    if host in cluster.hosts:
        cluster.hosts[host].banned(now)
    cluster.decisions.ban(task.task.id, host, now, arm=task.arm)
    news = m.TaskUpdate(task.task.id, banned=(host,))
    told = {*task.participants, *task.holders} - {host}
    actions: list[Action] = [Send(h, news) for h in sorted(told) if cluster.alive(h)]
    return actions + completion.expel(cluster, task, host, now)


def verify(cluster: ClusterState, message: m.Verify) -> m.Verified:
    """Whether a peer's digests agree with the record. `pending`: the record has gaps still."""
    task = cluster.tasks.get(message.task_id)
    if task is None:
        return m.Verified(known=False)
    root = task.root()
    if root is None:
        return m.Verified(pending=True, gaps=task.gaps(MOST_GAPS))
    if root == message.root:
        return _placed(cluster, task, message)
    if not task.record and task.task.pieces:
        return m.Verified(pending=True)  # the digests themselves have been asked for
    return m.Verified(ok=False, digests=task.digests())


def _placed(cluster: ClusterState, task: TaskState, message: m.Verify) -> m.Verified:
    """Its copy is right; is it to write its outputs, or does another host?"""
    if not message.places:
        return m.Verified()
    host = cluster.hosts.get(message.host_id)
    if host is None:
        return m.Verified(known=False)
    elsewhere = []
    for spec_id, place in message.places:
        other = task.places.claim(place, message.host_id, host.host.node_id, spec_id)
        if other:
            elsewhere.append(m.WrittenElsewhere(spec_id, other.node, other.stamp, other.merged))
    return m.Verified(elsewhere=tuple(elsewhere))
