"""All cases: how many hosts each needs, how long it may take, what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks import bulk
from tests.benchmarks.measures import Report, Rounds
from tests.benchmarks.rig import Rig


@dataclass(frozen=True)
class Case:
    """`bound`: seconds, after which no further round begins. `full_rounds`: in the run of all cases."""

    name: str
    hosts: int
    bound: float
    run: Callable[[Rig, Report, Rounds], None]
    full_rounds: int = 5


CASES = {
    case.name: case
    for case in (
        Case("A4", 4, 200, bulk.a4),
        Case("A8", 8, 200, bulk.a8),
        Case("B1", 8, 200, bulk.b1),
        Case("B2", 8, 150, bulk.b2),
        Case("A16", 16, 240, bulk.a16),
    )
}
SHORT = ("A4", "A8", "B1", "B2")
