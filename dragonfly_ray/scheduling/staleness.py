"""How long distributions have been under way, and how long without any news: what tells that one is stuck."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dragonfly_ray.scheduling.distribution_state import DistributionState


@dataclass(frozen=True, slots=True)
class Staleness:
    """Of all distributions that have not ended. Seconds; 0 where there is none."""

    running: int
    oldest: float
    """Since the one that was submitted first."""
    silent: float
    """Since the last news of the one that has had none for longest."""


class StalenessClock:
    """Looks again and again: a distribution whose version has not changed has had no news."""

    def __init__(self) -> None:
        self._news: dict[str, tuple[int, float]] = {}
        """Spec id -> its version, and when it was seen first."""

    def look(self, specs: Iterable[DistributionState], now: float) -> Staleness:
        open_ = [s for s in specs if s.phase != "ended"]
        before, self._news = self._news, {}
        for state in open_:
            version, since = before.get(state.spec.id, (-1, now))
            self._news[state.spec.id] = (state.version, since if version == state.version else now)
        return Staleness(
            running=len(open_),
            oldest=max((now - s.submitted for s in open_), default=0.0),
            silent=max((now - since for _, since in self._news.values()), default=0.0),
        )
