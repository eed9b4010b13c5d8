"""What a simulation found out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dragonfly_ray.scheduling.simulation.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class Report:
    """Times are in virtual seconds, unless they say `wall`. Peers that were lost are left out of them."""

    scenario: Scenario
    bound: float
    seconds: float
    """When the last peer had everything."""
    p50: float
    p99: float
    complete: int
    """Peers that have everything, and that the scheduler's record agrees with."""
    lost: int
    late: int
    """Peers that joined later; `late_seconds`: the most that one of them took, from its start."""
    late_seconds: float
    origin_share: float
    """Bytes that left the origin ÷ size."""
    cross_share: float
    """The share of all received bytes that came from another zone."""
    into_zone: float
    """The most bytes that came into a zone from others ÷ size."""
    into_region: float
    origin_failures: int
    """Requests to the origin that failed."""
    false_pieces: int
    """Pieces that came and were not what the origin has."""
    decisions: int
    """Requests that engines chose, leases granted and reports absorbed."""
    core_seconds: float
    """Processor time inside of the scheduler's methods."""
    cpu_seconds: float
    """Processor time of the whole simulation."""
    memory_per_peer: float
    """Bytes of scheduler memory for a peer and task."""
    wall_seconds: float
    curve: tuple[tuple[float, float, float], ...]
    """(seconds, share of all bytes that are there, share of the peers that have everything)."""

    @property
    def ratio(self) -> float:
        """Time ÷ bound."""
        return self.seconds / self.bound

    @property
    def decisions_per_second(self) -> float:
        """By one processor core, which also models links and time."""
        return self.decisions / self.cpu_seconds if self.cpu_seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = asdict(self)
        return found | {"ratio": self.ratio, "decisions_per_second": self.decisions_per_second}
