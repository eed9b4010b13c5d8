"""Names for content whose origin tells no version, or one version for different contents."""

from __future__ import annotations

import secrets
from collections.abc import Callable

MAX_GENERATIONS = 10_000
"""Sources that are remembered; the oldest goes first."""


class VersionTtl:
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


class Generations:
    """Of sources of which different bytes were read under one version: what is read from then on is another task."""

    def __init__(self, *, make: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._make = make
        self._known: dict[tuple[str, str], str] = {}

    def of(self, source_id: str, opener: str = "") -> str:
        """For whoever opens it so. Empty where nothing of the kind is known."""
        return self._known.get((source_id, opener)) or self._known.get((source_id, ""), "")

    def next(self, source_id: str, opener: str = "") -> None:
        """For everybody, or for those alone who open it so: the origin gives them other bytes than others have read."""
        self._known.pop((source_id, opener), None)
        self._known[source_id, opener] = self._make()
        if not opener:
            for each in [key for key in self._known if key[0] == source_id and key[1]]:
                del self._known[each]
        while len(self._known) > MAX_GENERATIONS:
            del self._known[next(iter(self._known))]
