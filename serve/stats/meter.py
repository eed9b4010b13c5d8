"""Rates of the whole cluster, from the totals that peers tell."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.schemas.base import Provenance
from dragonfly_ray.serve.stats.counts import Counts

WINDOW = 5.0
"""Seconds that a rate is taken over, where there are looks enough."""
STALE = 30.0
"""Seconds after which the last look says nothing about now."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    total: Counts


class Meter:
    """Looks at any intervals, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, tuple[str, Counts]] = {}
        self._total = Counts()
        self._looks: deque[_Look] = deque()

    def look(self, at: float, views: Iterable[NodeView]) -> None:
        with self._lock:
            nodes: dict[str, tuple[str, Counts]] = {}
            for view in views:
                told = Counts.of(view)
                before = self._nodes.get(view.node_id)
                if before is not None and before[0] == view.incarnation:
                    self._total += told.since(before[1])
                nodes[view.node_id] = (view.incarnation, told)
            self._nodes = nodes
            self._looks.append(_Look(at, self._total))
            # One that is older than the window stays: without it a rare look would have nothing before it.
            while len(self._looks) > 2 and at - self._looks[1].at >= WINDOW:
                self._looks.popleft()

    def rates(self, at: float) -> Provenance:
        """Bytes a second, as of the last look."""
        with self._lock:
            if len(self._looks) < 2 or at - self._looks[-1].at > STALE:
                return Provenance()
            first, last = self._looks[0], self._looks[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return Provenance()
        gained = last.total.since(first.total)
        return Counts(*(round(v / seconds) for v in gained.as_dict().values())).provenance
