"""Names for content whose origin tells no version."""

from __future__ import annotations

import secrets
from collections.abc import Callable


class Nonces:
    """One for each source and whoever opens it, the same for `ttl` seconds: for so long, what was found
    counts as unchanged."""

    def __init__(self, ttl: float, *, make: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self.ttl = ttl
        self._make = make
        self._known: dict[tuple[str, str], tuple[str, float]] = {}
        """In order of their times."""

    def of(self, source_id: str, now: float, opener: str = "") -> str:
        while self._known:
            oldest = next(iter(self._known))
            if now - self._known[oldest][1] < self.ttl:
                break
            del self._known[oldest]
        return self._known.setdefault((source_id, opener), (self._make(), now))[0]

    def forget(self, source_id: str) -> None:
        """The content has changed: the next one is new."""
        for each in [key for key in self._known if key[0] == source_id]:
            del self._known[each]
