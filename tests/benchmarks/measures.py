"""What a case hands in: rounds, ratios, and what they are to be measured by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.sampler import Trace


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Rounds:
    """Counts to `count`, or stops earlier where one more would go beyond `bound` seconds."""

    def __init__(self, count: int, bound: float) -> None:
        self.count = count
        self._deadline = time.monotonic() + bound

    def __iter__(self) -> Iterator[int]:
        longest = 0.0
        for number in range(self.count):
            begun = time.monotonic()
            if number and begun + longest > self._deadline:
                say(f"  no time for round {number + 1} of {self.count}")
                return
            yield number
            longest = max(longest, time.monotonic() - begun)


@dataclass
class Measure:
    """One line of the table. `ratios` holds one value a round; what counts is their median."""

    case: str
    what: str
    target: float | None = None
    """None: reported only."""
    at_least: bool = False
    unit: str = "s"
    """Of `floors` and `ours`."""
    floors: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    rival: bool = False
    """`floors` are a rival's, and the ratio is its time ÷ ours."""
    trials: dict[str, float] = field(default_factory=dict)
    """Seconds of a rival's settings, with a part of the content."""
    mib: float | None = None
    """Of the content, where a case goes through sizes: the ratio is drawn over it."""
    note: str = ""
    error: str = ""

    def add(self, floor: float, ours: float, ratio: float | None = None) -> float:
        """One round; the ratio is ours ÷ floor unless it is given."""
        self.floors.append(floor)
        self.ours.append(ours)
        self.ratios.append(ours / floor if ratio is None else ratio)
        return self.ratios[-1]

    def value(self, seconds: float) -> float:
        """One round of a measure that is no ratio: itself is compared with the target."""
        self.ours.append(seconds)
        self.ratios.append(seconds)
        return seconds

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def holds(self) -> bool | None:
        """None: there is no target, or nothing was measured."""
        if self.error:
            return False
        if self.ratio is None or self.target is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {"ratio": self.ratio, "holds": self.holds}


@dataclass
class Report:
    """What one case found: its lines, and bytes over time of its last round."""

    case: str
    measures: list[Measure] = field(default_factory=list)
    traces: dict[str, Trace] = field(default_factory=dict)
    seconds: float = 0.0

    def measure(self, what: str, target: float | None = None, **more: Any) -> Measure:
        """A new line."""
        made = Measure(self.case, what, target, **more)
        self.measures.append(made)
        return made

    def failed(self, why: str) -> None:
        """The case broke off; lines that have rounds keep them."""
        for each in self.measures:
            if not each.ratios:
                each.error = why
        if not any(each.error for each in self.measures):
            self.measures.append(Measure(self.case, "broke off", error=why))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
