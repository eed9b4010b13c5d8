"""What tells that a distribution is stuck."""

from __future__ import annotations

from dragonfly_ray.messages import DistributionSpec
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.staleness import Staleness, StalenessClock


def _state(name: str, submitted: float) -> DistributionState:
    spec = DistributionSpec(id=f"{name}.0", source=Source("https://host/f"), targets=("n",))
    return DistributionState(spec, Credentials(), {}, submitted=submitted)


def test_nothing_under_way() -> None:
    assert StalenessClock().look([], 5.0) == Staleness(0, 0.0, 0.0)


def test_the_oldest_and_the_longest_silence_are_told_apart() -> None:
    ages = StalenessClock()
    old, new = _state("old", 0.0), _state("new", 8.0)
    ages.look([old, new], 10.0)
    old.version += 1
    assert ages.look([old, new], 20.0) == Staleness(2, 20.0, 10.0)
    new.version += 1
    assert ages.look([old, new], 25.0) == Staleness(2, 25.0, 5.0)


def test_what_has_ended_is_not_under_way() -> None:
    ages = StalenessClock()
    state = _state("a", 0.0)
    ages.look([state], 1.0)
    state.phase = "ended"
    assert ages.look([state], 100.0) == Staleness(0, 0.0, 0.0)
    state.phase = "running"
    assert ages.look([state], 101.0).silent == 0.0
