"""From whom a task's manifest is fetched, and when a holder that trickles is left for another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dragonfly_ray.messages import Neighbour

FIRST_PATIENCE_S, PATIENCE_GROWTH = 10.0, 4.0
"""Seconds that the rest of a manifest may take at the rate at which it comes, while others have it, too; so many
times as long in each round."""
ROUND_PAUSE_S = 0.1


class ManifestSearch:
    """All who have it are asked in turn, round by round."""

    def __init__(self) -> None:
        self._patience = FIRST_PATIENCE_S / PATIENCE_GROWTH
        self._others = False

    def round(self, neighbours: Iterable[Neighbour]) -> Iterator[Neighbour]:
        """Whom to ask, one after the other."""
        having = [each for each in neighbours if each.manifest]
        self._patience *= PATIENCE_GROWTH
        self._others = len(having) > 1
        return iter(having)

    def too_slow(self, left: float) -> bool:
        """Whether to ask another: `left`, the seconds that the rest will take, is measured."""
        return self._others and left > self._patience
