"""Who knows whom in a task: everybody while there are few, then a static, balanced random graph.

Zones first: most edges stay in the zone of their host, a few lead outside. Edges are drawn when a
host joins and repaired when one leaves, never shuffled.
"""

from __future__ import annotations

import random


class Graph:
    """Symmetric. `everybody`: up to so many hosts all know all; `degree`: how many beyond that."""

    def __init__(self, *, everybody: int, degree: int, outside: int = 5, seed: int | None = None) -> None:
        self.everybody = everybody
        self.degree = degree
        self.outside = outside
        self._edges: dict[str, set[str]] = {}
        self._zones: dict[str, str] = {}
        self._random = random.Random(seed)

    def __contains__(self, host: str) -> bool:
        return host in self._edges

    def __len__(self) -> int:
        return len(self._edges)

    def neighbours(self, host: str) -> set[str]:
        return self._edges.get(host, set())

    def join(self, host: str, zone: str = "") -> set[str]:
        """Adds a host; the neighbours that it got."""
        if host in self._edges:
            return self._edges[host]
        others = list(self._edges)
        self._edges[host] = set()
        self._zones[host] = zone
        chosen = others if len(others) < self.everybody else self._draw(host, others, self.degree // 2)
        for other in chosen:
            self._link(host, other)
        return self._edges[host]

    def leave(self, host: str) -> dict[str, set[str]]:
        """Removes a host; the new neighbours of those that lost too many by it."""
        gained: dict[str, set[str]] = {}
        for other in self._edges.pop(host, set()):
            self._edges[other].discard(host)
            floor = min(self.degree // 2, len(self._edges) - 1)
            if len(self._edges[other]) < floor:
                strangers = [h for h in self._edges if h != other and h not in self._edges[other]]
                for new in self._draw(other, strangers, 1):
                    self._link(other, new)
                    gained.setdefault(other, set()).add(new)
                    gained.setdefault(new, set()).add(other)
        self._zones.pop(host, None)
        return gained

    def _link(self, a: str, b: str) -> None:
        self._edges[a].add(b)
        self._edges[b].add(a)

    def _draw(self, host: str, others: list[str], count: int) -> list[str]:
        """The least connected of a random sample, mostly from the host's own zone."""
        zone = self._zones[host]
        near = [o for o in others if self._zones[o] == zone]
        far = [o for o in others if self._zones[o] != zone]
        abroad = min(len(far), max(self.outside // 2, count - len(near)) if near else count)
        return self._least(near, count - abroad) + self._least(far, abroad)

    def _least(self, among: list[str], count: int) -> list[str]:
        sample = self._random.sample(among, min(len(among), 4 * count)) if count > 0 else []
        return sorted(sample, key=lambda o: len(self._edges[o]))[:count]
