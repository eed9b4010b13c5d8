"""One request budget per origin, for the whole cluster."""

from __future__ import annotations

from collections.abc import Sequence


class OriginBudget:
    """How many connections an origin gets, and when it wants to be left alone.

    Halves at each complaint, and grows back by one connection for each `recovery` seconds of peace.
    """

    def __init__(self, connections: int, *, requests: float | None = None, recovery: float = 1.0) -> None:
        self.most = connections
        self.requests = RequestBudget(requests)
        self.recovery = recovery
        self.blocked_until = 0.0
        self._allowed = float(connections)
        self._since = 0.0

    def change(self, connections: int, requests: float | None) -> None:
        """Other limits from now on; what the origin complained about still counts."""
        if connections > self.most and self._allowed >= self.most:
            self._allowed = float(connections)
        self.most = connections
        self.requests.change(requests)

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

    def share(self, claimants: int, most: int, taken: int, now: float) -> int:
        """The connections of one of `claimants`, up to `most`, where others hold `taken`; 0: none is left."""
        allowed = self.allowed(now)
        return max(0, min(most, max(1, allowed // max(1, claimants)), allowed - taken))

    def at_rest(self, now: float) -> bool:
        """As a new one: nothing of what was asked or complained about counts any more."""
        peace = (
            self.blocked_until <= now
            and self._allowed + max(0.0, now - self._since) / self.recovery >= self.most
        )
        return peace and self.requests.at_rest(now)

    def wait(self, now: float) -> float:
        """Seconds until the origin may be asked again."""
        return max(0.0, self.blocked_until - now)


class RequestBudget:
    """Requests a second to one origin, as a token bucket of one second's worth; None: as many as wanted.

    What is taken at once may cost more than is left: the next waits for so much longer.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._burst = max(1.0, rate or 0.0)
        self._level = self._burst
        self._at = 0.0

    def change(self, rate: float | None) -> None:
        """Another rate from now on."""
        if rate != self.rate:
            self.rate, self._burst = rate, max(1.0, rate or 0.0)
            self._level = min(self._level, self._burst)

    def at_rest(self, now: float) -> bool:
        return self.rate is None or self._level + max(0.0, now - self._at) * self.rate >= self._burst

    def take(self, costs: Sequence[int], now: float, *, whole: bool = False) -> int:
        """How many of these, from the first on, may be asked for now; they are paid. `whole`: all or none."""
        if self.rate is None:
            return len(costs)
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
        taken = 0
        while taken < len(costs) and (self._level > 0 or (whole and taken)):
            self._level -= costs[taken]
            taken += 1
        return taken
