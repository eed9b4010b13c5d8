"""When an origin that fails is looked at again, for one distribution; how long a look may be silent."""

from __future__ import annotations

from dataclasses import dataclass

from dragonfly_ray.backoff import next_pause
from dragonfly_ray.config import OriginSettings, Settings

HELPER_TIMEOUT_S = 15.0
"""For a helper to look at a chunk of files, besides the origin's answers."""


def silent_until(heard: float, settings: Settings) -> float:
    """When a look that was last heard of at `heard` counts as failed."""
    return heard + settings.scheduler.resolve_timeout + settings.origin.answer_timeout


def patience_with_helper(origins: OriginSettings) -> float:
    """Seconds for which a helper's answer is waited for."""
    return HELPER_TIMEOUT_S + origins.answer_timeout


@dataclass(slots=True)
class Retry:
    """Times are seconds of the caller's clock. `why`: what it waits for, for people; empty: nothing."""

    since: float | None = None
    """When it failed first, in a row."""
    again: float = float("-inf")
    """When to look again."""
    why: str = ""
    pause: float = 0.0

    def due(self, now: float) -> bool:
        return now >= self.again

    def failing(self, since: float) -> None:
        """It fails since then, or longer."""
        self.since = since if self.since is None else min(self.since, since)

    def spent(self, now: float, give_up: float) -> bool:
        """Whether it has failed for too long."""
        return self.since is not None and now - self.since > give_up

    def failed(self, why: str, now: float, give_up: float, *, retry_after: float = 0.0) -> bool:
        """Whether to look again, when `again` has come: it may fail for `give_up` seconds."""
        self.failing(now)
        if self.spent(now, give_up):
            return False
        self.pause = next_pause(self.pause)
        self.hold(now + max(self.pause, retry_after), why)
        return True

    def hold(self, until: float, why: str) -> None:
        """Nothing is asked before."""
        self.again = max(self.again, until)
        self.why = why
