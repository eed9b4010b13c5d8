"""One request budget per origin, for the whole cluster."""

from __future__ import annotations


class OriginBudget:
    """How many connections an origin gets, and when it wants to be left alone.

    Halves at each complaint, and grows back by one connection for each `recovery` seconds of peace.
    """

    def __init__(self, connections: int, *, recovery: float = 1.0) -> None:
        self.most = connections
        self.recovery = recovery
        self.blocked_until = 0.0
        self._allowed = float(connections)
        self._since = 0.0

    def complained(self, retry_after: float, now: float) -> None:
        """A 429 or 503, or an error that a moment's patience may cure."""
        if now >= self.blocked_until:
            self._allowed = max(1.0, self.allowed(now) / 2)
        self.blocked_until = max(self.blocked_until, now + retry_after)
        self._since = self.blocked_until

    def allowed(self, now: float) -> int:
        """Connections that the cluster may hold open now."""
        peace = max(0.0, now - self._since)
        return int(min(self.most, self._allowed + peace / self.recovery))

    def wait(self, now: float) -> float:
        """Seconds until the origin may be asked again."""
        return max(0.0, self.blocked_until - now)
