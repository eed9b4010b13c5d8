"""Who may go to the origin, for which pieces, and how many at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling.actions import Action, Send, Tell
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.leases import Late
from dragonfly_ray.scheduling.task import TaskState, Traffic

log = logging.getLogger(__name__)

LATE = 4.0
"""So many times what the quick hosts take for the whole way of a piece, and it is late,"""
LATE_LEAST_S = 2.0
"""but not before."""
REREAD_SHARE, REREAD_LEAST = 0.01, 256 * 1024
"""Of the content, or bytes where that is more: so much at most is read in vain for it."""
STARVED = 5.0
"""So many times the time-out of a lease, a host may be without any byte before others are not relied on."""


def claimants(
    cluster: ClusterState, task: TaskState, host: str, state: DistributionState | None = None
) -> int:
    """How many hosts may go to the origin for this task, where `host` is one of them; 0: it may not."""
    specs = [state] if state else list(task.specs.values())
    owner = next((s.spec.source.node for s in specs if s.spec.source.node), "")
    if not task.able and host in task.participants and cluster.alive(host):
        return 1  # whoever is left may try, whatever it did
    if host not in task.able:
        return 0
    if owner:
        return int(cluster.hosts[host].host.node_id == owner)
    if cluster.drains(host) and _another(cluster, task, specs):
        return 0  # what it read, it would have to pass on
    if any(cluster.seeds_only(s) for s in specs):
        if task.able_seeds:
            return len(task.able_seeds) if host in task.able_seeds else 0
        if host not in task.deputies():
            return 0
        log.warning(
            "task %.12s: no seed left, two targets read the origin instead",
            task.task.id,
            extra={"task_id": task.task.id},
        )
        return len(task.deputies())
    if cluster.settings.origin.policy == "targets":
        return 0 if host in task.able_helpers else len(task.able) - len(task.able_helpers)
    return len(task.able)


def _another(cluster: ClusterState, task: TaskState, specs: Iterable[DistributionState]) -> bool:
    """Whether somebody that does not drain may go to the origin."""
    only_seeds = any(cluster.seeds_only(s) for s in specs) and task.able_seeds
    return any(not cluster.drains(h) for h in (task.able_seeds if only_seeds else task.able))


def back_to_source(cluster: ClusterState, task: TaskState, host: str, traffic: Traffic, now: float) -> None:
    """Where nothing has come to a host for long, others have what it misses, but not for it: to the origin.

    Twice in a row, a lease's time apart: what has just come to the others is on its way."""
    timeout = cluster.settings.origin.lease_timeout
    if not traffic.moved or now - traffic.moved < (STARVED - 1) * timeout or task.leases.held_by(host):
        return
    missing = task.everything & ~task.holders.get(host, 0)
    starved = missing & ~task.leases.leased & ~task.leases.free
    still = starved & traffic.starved
    traffic.starved = starved
    traffic.moved = now - (STARVED - 2) * timeout
    if still:
        log.warning(
            "task %.12s: host %s has no parent for %d missing pieces; falling back to the origin",
            task.task.id, host, still.bit_count(),
            extra={"task_id": task.task.id},
        )  # fmt: skip
        task.leases.lost(still)
        traffic.moved = now


def grant(
    cluster: ClusterState,
    task: TaskState,
    host: str,
    most: int,
    claimants: int,
    now: float,
    urgent: Iterable[int] = (),
    *,
    rate: float = 0.0,
    least: int = 1,
) -> list[int]:
    """Pieces that `host` shall fetch from the origin now, as far as the origin's budget allows; `least`: see
    `LeaseTable.claim`."""
    leases = task.leases
    if most <= 0 or not leases.free or cluster.untold(host, task.task.id):
        return []
    if not connections(cluster, task, host, now):
        return []
    if claimants > 1:
        most = min(most, task.room(host, now))
    left = leases.left
    has = task.holders.get(host, 0) if host in task.banned else 0
    has |= task.audits.barred(host)
    requests = cluster.budget(task).requests
    pieces = leases.claim(
        host,
        most,
        claimants,
        now,
        urgent,
        has=has,
        read=task.read(host),
        least=least,
        afford=lambda wanted, whole: requests.take([task.cost(p) for p in wanted], now, whole=whole),
    )
    if pieces:
        task.passing.given(host, pieces, now)
        cluster.decisions.lease(
            task.task.id,
            host,
            pieces,
            now,
            arm=task.arm,
            rate=rate,
            asked=most,
            claimants=claimants,
            left=left,
        )
    return pieces


def take_over(
    cluster: ClusterState, task: TaskState, host: str, claimants: int, now: float, *, rate: float = 0.0
) -> tuple[list[int], list[Action]]:
    """Near the end, when everything is leased: an idle host reads what is late with another, whose lease ends.

    Late is who has held a lease for long next to what quick hosts take, and will not come to its end for as long
    again at the rate that it reads. It loses what it comes to last; what it has read of that in vain counts
    against a small share of the content.
    """
    usual = task.passing.usual(now)
    if task.leases.free or claimants < 2 or not usual:
        return [], []
    limit = max(LATE_LEAST_S, LATE * usual)
    held_up = [each for each in task.leases.late(host, limit, now) if not _in_time(task, each, limit, now)]
    waits = task.leases.waits
    held_up = [each for each in held_up if not _waits(task, each, limit, now)]
    if not held_up or not task.room(host, now):
        return [], []
    last = task.leases.newest(held_up[0].holder)
    since = max(0, task.read(last.holder) - last.read) / task.leases.held_by(last.holder).bit_count()
    vain = min(since, task.task.size / task.task.pieces)
    if task.reread + vain > max(REREAD_LEAST, REREAD_SHARE * task.task.size):
        return [], []
    task.leases.release(last.holder, [last.piece])
    waits.in_vain(1 << last.piece)
    task.passing.back(last.holder, [last.piece], now)
    pieces = grant(cluster, task, host, 1, claimants, now, rate=rate)
    task.reread += vain
    log.info(
        "task %.12s: lease of piece %d at host %s is late, reassigned to %s", task.task.id, last.piece, last.holder, host,
        extra={"task_id": task.task.id},
    )  # fmt: skip
    if not cluster.alive(last.holder):
        return pieces, []
    return pieces, [Send(last.holder, m.TaskUpdate(task.task.id, revoked=(last.piece,)))]


def _waits(task: TaskState, late: Late, limit: float, now: float) -> bool:
    """Whether the holder of a late lease has had nothing since, and may wait on for an answer; or another has waited
    for this piece in vain before, and not much less long."""
    waits, piece = task.leases.waits, 1 << late.piece
    silent = task.read(late.holder) == late.read
    return (silent and waits.bears(late.holder, piece, limit, now)) or waits.tried(
        piece, now - late.since, limit
    )


def _in_time(task: TaskState, late: Late, limit: float, now: float) -> bool:
    """Whether the holder of a late lease reads at a rate that brings all that it has leased within `limit` seconds:
    it was given much at once, and comes to it."""
    left = task.leases.held_by(late.holder).bit_count() * task.task.size / task.task.pieces
    return (task.read(late.holder) - late.read) * limit >= left * (now - late.since)


def connections(cluster: ClusterState, task: TaskState, host: str, now: float) -> int:
    """How many connections to the origin the host is to have at most; 0: none is left for it."""
    taken = sum(t.taken(but=host if t is task else "") for t in cluster.at(task.origin))
    number = _share(cluster, task, taken, now)
    if not number and task.leases.held_by(host):
        number = 1
    if number:
        task.connections[host] = number
    return number


def _share(cluster: ClusterState, task: TaskState, taken: int, now: float) -> int:
    """The connections of one host of the task, where others hold `taken`; 0: none is left."""
    s = cluster.settings.origin
    most = max(s.connections, s.small_connections) if task.task.directory else s.connections
    claimants = sum(t.claimants for t in cluster.at(task.origin))
    return cluster.budget(task).share(claimants, most, taken, now)


def throttled(cluster: ClusterState, message: m.Throttled, now: float) -> list[Action]:
    task = cluster.tasks.get(message.task_id)
    if task is None:
        return []
    return busy(cluster, task.origin, message.retry_after, now)


def busy(cluster: ClusterState, key: str, seconds: float, now: float) -> list[Action]:
    """It asked for so much patience, of whoever it was."""
    cluster.complaints += 1
    return [Tell(key, seconds), *patience(cluster, key, seconds, now)]


def patience(cluster: ClusterState, key: str, seconds: float, now: float) -> list[Action]:
    """Nobody asks this origin for a while."""
    cluster.budget_of(key).complained(seconds, now)
    actions: list[Action] = []
    for task in cluster.at(key):
        task.leases.postpone(now + seconds)
        # Not less what others hold: they are told as well.
        number = _share(cluster, task, 0, now)
        news = m.TaskUpdate(task.task.id, not_before=seconds, connections=number)
        for host in task.participants:
            if cluster.alive(host):
                task.connections[host] = number
                actions.append(Send(host, news))
    return actions
