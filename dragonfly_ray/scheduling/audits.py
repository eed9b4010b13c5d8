"""Second readings at the origin: who makes them, and what follows where they differ from the first."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.scheduling import completion, origin_admission, resolution, trust
from dragonfly_ray.scheduling.actions import Action
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.task import TaskState

log = logging.getLogger(__name__)


def grant(cluster: ClusterState, task: TaskState, host: str, now: float) -> tuple[int, ...]:
    """A piece that `host` shall read at the origin, which another has read already; none in most cases."""
    audits = task.audits
    piece = audits.waiting(host) if audits.pending else None
    if piece is None or origin_admission.claimants(cluster, task, host) < 2:
        return ()
    budget = cluster.budget(task)
    if budget.wait(now) or not budget.requests.take([task.cost(piece)], now):
        return ()
    audits.begin(host, piece)
    return (piece,)


def reported(cluster: ClusterState, task: TaskState, r: m.Report, now: float) -> list[Action]:
    """What a report says of origin readings. To be called while the leases of what was read still stand."""
    audits, actions = task.audits, list[Action]()
    leased = task.leases.held_by(r.host_id)
    read = [(p, d) for p, d in r.origin if 0 <= p < task.task.pieces and leased >> p & 1]
    if read:
        task.readers[r.host_id] = task.readers.get(r.host_id, 0) | bitset.of(p for p, _ in read)
        audits.noted(p for p, _ in read)
        if audits.chosen:
            # With nobody else who may go to the origin there is nothing to wait for.
            another = origin_admission.claimants(cluster, task, r.host_id) > 1
            audits.read(r.host_id if another else "", (p for p, _ in read), now)
    if audits.disputed:
        for piece, digest in read:
            actions += _decided(cluster, task, r.host_id, piece, digest, now)
    if r.unaudited:
        audits.gave_up(r.host_id, r.unaudited)
    for piece, digest in r.audited:
        if piece in audits.controls:
            actions += _controlled(cluster, task, r.host_id, piece, digest, now)
        elif not audits.result(r.host_id, piece, digest, task.record.get(piece)):
            actions += _differ(cluster, task, piece, now)
    return actions


def told(task: TaskState, r: m.Report) -> tuple[tuple[int, bytes], ...]:
    """The digests of a report that may enter the record: not those that are in dispute, nor a banned host's."""
    if r.host_id in task.banned and task.able:
        return ()
    if not task.audits.disputed:
        return r.origin
    return tuple((p, d) for p, d in r.origin if p not in task.audits.disputed)


def _differ(cluster: ClusterState, task: TaskState, piece: int, now: float) -> list[Action]:
    """Nobody keeps it; a third host reads it."""
    said = task.audits.disputed[piece]
    log.warning(
        "task %.12s: hosts %s read different bytes of piece %d at the origin",
        task.task.id, " and ".join(said), piece,
        extra={"task_id": task.task.id},
    )  # fmt: skip
    task.forget(piece)
    task.contested[piece] += 1
    if task.task.validator != "strong":
        task.audits.stop()  # nobody is wrong: it is all read anew
        return trust.learnt(cluster, task, [piece], [], now)
    actions = trust.learnt(cluster, task, [piece], [], now)
    if not task.audits.suspects:  # hosts that have nothing in common differ: it is the origin that does
        task.audits.stop()
        return actions + resolution.start_anew(cluster, task, now)
    return actions + unresolved(cluster, task, now)


def _decided(
    cluster: ClusterState, task: TaskState, host: str, piece: int, digest: bytes, now: float
) -> list[Action]:
    verdict = task.audits.decide(host, piece, digest)
    if verdict is None:
        return []
    wrong, agreed = verdict
    if not agreed:
        text = (
            f"{task.task.url}: the origin returned three different contents of piece {piece} to three hosts"
        )
        return completion.fail_task(cluster, task, "source-changed", text, now)
    if wrong and task.audits.control(piece, wrong, task.readers, task.recorded):
        return []
    return _expel_all(cluster, task, wrong, now)


def _controlled(
    cluster: ClusterState, task: TaskState, host: str, piece: int, digest: bytes, now: float
) -> list[Action]:
    """A piece was read again that nobody disputed. Another now than then, the origin has changed, whatever its
    versions say: whoever read it before was as right as those who read it since."""
    same = task.audits.controlled(host, piece, digest, task.record.get(piece))
    if same is None:
        return []
    if same:
        return _expel_all(cluster, task, task.audits.upheld(piece), now)
    log.warning(
        "task %.12s: content changed at the origin under one version (piece %d); restarting the task", task.task.id, piece,
        extra={"task_id": task.task.id},
    )  # fmt: skip
    task.audits.stop()
    return resolution.start_anew(cluster, task, now)


def expired(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """What nobody could compare in time."""
    task.audits.expire(now)
    if not task.audits.controls:
        return []
    return _expel_all(cluster, task, task.audits.uncontrolled(), now)


def _expel_all(cluster: ClusterState, task: TaskState, wrong: Iterable[str], now: float) -> list[Action]:
    return [action for liar in dict.fromkeys(wrong) for action in _expel(cluster, task, liar, now)]


def _expel(cluster: ClusterState, task: TaskState, host: str, now: float) -> list[Action]:
    """It has said what the origin did not give it: whatever it alone has read is read again by others."""
    doubtful = task.readers.pop(host, 0) & ~task.audits.confirmed
    task.audits.expel(host)
    pieces = list(bitset.members(doubtful))
    for piece in pieces:
        task.forget(piece)
        task.contested[piece] += 1  # whoever has passed it on believed the record
    actions = trust.ban(cluster, task, host, now)
    return actions + trust.learnt(cluster, task, pieces, [], now)


def unresolved(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """Disputes that nobody is left to decide end the task."""
    for piece, said in task.audits.disputed.items():
        thirds = (h for h in task.able if h not in said and origin_admission.claimants(cluster, task, h))
        if next(thirds, None) is None:
            names = " and ".join(_name(cluster, host) for host in said)
            text = (
                f"{task.task.url}: {names} read different bytes of piece {piece} at the origin, and no third"
                " node may read it to decide; add one, or exclude the faulty node"
            )
            return completion.fail_task(cluster, task, "integrity", text, now)
    return []


def _name(cluster: ClusterState, host: str) -> str:
    known = cluster.hosts.get(host)
    return (known.host.name or known.host.node_id) if known else host
