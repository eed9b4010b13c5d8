"""All cases: how many hosts each needs, how long it may take, what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks import bulk, faults, files, handover, small, uneven, zones
from tests.benchmarks.measures import Report, Rounds
from tests.benchmarks.rig import MIB, Rig
from tests.benchmarks.rivals import Contest


@dataclass(frozen=True)
class Case:
    """`hosts`: Ray nodes; 0: none, `alone` makes its own hosts. `bound`: seconds, after which no further round
    begins. `full_rounds`: in the run of all cases."""

    name: str
    hosts: int
    bound: float
    run: Callable[[Rig, Report, Rounds], None] | None = None
    full_rounds: int = 5
    contest: Contest | None = None
    """What the rivals carry, where they take part."""
    alone: Callable[[Report, Rounds], None] | None = None


CASES = {
    case.name: case
    for case in (
        Case("A2", 4, 200, bulk.against_curl, full_rounds=3),
        Case("A4", 4, 200, bulk.against_curl, contest=Contest(256 * MIB)),
        Case("F", 4, 900, faults.f, full_rounds=3),
        Case("H", 4, 300, handover.h),
        Case("I", 4, 300, handover.i),
        Case("J", 4, 420, small.j, contest=Contest(4096, files=10_000)),
        Case("SIZE", 4, 900, bulk.size),
        Case("A8", 8, 200, bulk.against_curl, contest=Contest(128 * MIB)),
        Case("B2", 8, 150, bulk.against_curl, contest=Contest(128 * MIB)),
        Case("C", 8, 300, uneven.c),
        Case("D", 8, 300, uneven.d),
        Case("E", 8, 600, uneven.e, full_rounds=3),
        Case("K", 8, 150, small.k),
        Case("L", 8, 200, small.l),
        Case("B1", 8, 200, bulk.against_curl),
        Case("A16", 16, 240, bulk.against_curl),
        Case("G", 4, 600, faults.g, full_rounds=3),
        Case("M", 0, 300, alone=files.m, full_rounds=3),
        Case("Z2", 0, zones.BOUND, alone=zones.bench(zones.Plan(2, 64 * MIB)), full_rounds=3),
        Case("Z4", 0, zones.BOUND, alone=zones.bench(zones.Plan(4, 64 * MIB)), full_rounds=3),
    )
}
SHORT = ("A4", "A8", "B1", "B2", "H", "J", "K")
