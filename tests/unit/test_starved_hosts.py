"""A host to which nothing comes, although others have what it misses: it reads that at the origin itself."""

from __future__ import annotations

from dragonfly_ray.model import SHORT_LEAF, digest
from tests.unit.one_scheduler import PIECES, TASK, Cluster, started

LEASE = 30.0
"""Seconds, longer than any default."""
NEWS = tuple((p, digest(bytes([p]))) for p in range(PIECES))


def two_hosts() -> Cluster:
    """The first holds all leases."""
    cluster = started(2)
    leases = cluster.core.tasks[TASK.id].leases
    held = leases.held_by("h1")
    cluster.report(1, released=tuple(p for p in range(PIECES) if held >> p & 1))
    while leases.held_by("h0").bit_count() < PIECES:
        cluster.report(0, claim=PIECES)
    return cluster


def leased(cluster: Cluster, number: int) -> int:
    return cluster.core.tasks[TASK.id].leases.held_by(f"h{number}").bit_count()


def test_what_has_just_come_to_others_is_on_its_way() -> None:
    """The origin was slow to begin, so nothing had come to anybody for long."""
    cluster = two_hosts()
    cluster.now += 100 * LEASE
    cluster.report(0, got=tuple(range(PIECES)), origin=NEWS, bytes_origin=PIECES * SHORT_LEAF)
    cluster.report(1, claim=8)
    assert not leased(cluster, 1)


def test_whom_nobody_gives_anything_reads_at_the_origin() -> None:
    cluster = two_hosts()
    cluster.report(0, got=tuple(range(PIECES)), origin=NEWS, bytes_origin=PIECES * SHORT_LEAF)
    for _ in range(12):
        cluster.now += LEASE
        cluster.report(1, claim=8)
    assert leased(cluster, 1)
