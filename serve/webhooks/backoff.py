"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits grow from `first` by `factor` up to `most` seconds, for `over` seconds in all: about a dozen attempts."""

    first: float = 5.0
    factor: float = 3.0
    most: float = 4 * 3600.0
    over: float = 24 * 3600.0
    jitter: float = 0.2
    """A share, up or down: many that failed together do not come back together."""
    random: random.Random = field(default_factory=random.Random)

    def give_up_at(self, at: datetime) -> datetime:
        return at + timedelta(seconds=self.over)

    def next_attempt(
        self, at: datetime, attempts: int, give_up_at: datetime, asked: float = 0.0
    ) -> datetime | None:
        """After so many attempts; None: no more. `asked`: seconds that the receiver wants to be left alone."""
        # The power of a great number is a float no longer.
        wait = min(self.most, self.first * self.factor ** min(attempts - 1, 50))
        wait = max(wait * self.random.uniform(1 - self.jitter, 1 + self.jitter), min(asked, self.most))
        found = at + timedelta(seconds=wait)
        if at >= give_up_at:
            return None
        # One last time at the end, rather than a long wait that goes beyond it.
        return min(found, max(give_up_at, at + timedelta(seconds=self.first)))
