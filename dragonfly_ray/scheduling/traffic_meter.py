"""What enters a task's cluster, zones and nodes, and how fast: the bounds of `dragonfly_ray.figures`.

Events in, with the time in them; no clock, no socket.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

from dragonfly_ray.figures import Bound, Level, Measured

MIN_WINDOW_S = 0.5
"""Over which a rate is taken, at least."""
MAX_WINDOWS = 8
"""Of one group; they grow as the time does."""
OUTLIER = 1.25
"""A zone or node is named where it needed so many times the median of its kind; else all are alike."""


class Inflow:
    """Bytes that enter one group of hosts from outside of it, counted by the time in which they came."""

    __slots__ = ("_begin", "_bins", "_end", "_width", "total")

    def __init__(self) -> None:
        self.total = 0
        self._begin = self._end = 0.0
        self._width = MIN_WINDOW_S
        self._bins = array("d")

    def add(self, nbytes: int, since: float | None, now: float) -> None:
        """So many came between the two times; None: nobody knows since when, and they count for no rate."""
        self.total += nbytes
        if since is None or now <= since:
            return
        if not self._bins:
            self._begin = since
        rate = nbytes / (now - since)
        self._end = max(self._end, now)
        while (now - self._begin) / self._width > MAX_WINDOWS:
            self._bins = array("d", (sum(self._bins[i : i + 2]) for i in range(0, len(self._bins), 2)))
            self._width *= 2
        at = max(since, self._begin)
        while at < now:
            number = int((at - self._begin) / self._width)
            until = min(now, self._begin + (number + 1) * self._width)
            if until <= at:  # rounding
                break
            self._bins.extend([0.0] * (number + 1 - len(self._bins)))
            self._bins[number] += rate * (until - at)
            at = until

    def peak(self) -> float:
        """The highest rate in any window, bytes a second; 0: not known."""
        best = 0.0
        for number, nbytes in enumerate(self._bins):
            covered = min(self._width, self._end - self._begin - number * self._width)
            if covered >= self._width / 2:
                best = max(best, nbytes / covered)
        return best

    def bound(self, size: int) -> float:
        """Seconds for what was needed: all that came in, but of a content of `size` bytes no byte twice."""
        peak = self.peak()
        return min(size, self.total) / peak if peak else 0.0


class _Told(NamedTuple):
    """By one node, and when; `fed_at`: when it last said from whom."""

    origin: int
    others: int
    at: float
    fed_at: float


class TrafficMeter:
    """What enters the cluster, the zones and the nodes of one task, as its peers tell."""

    def __init__(self) -> None:
        self.distributions: set[str] = set()
        """Spec ids of all that it has measured. Of several nobody knows whose bytes they were."""
        self._origin = Inflow()
        self._zones: dict[str, Inflow] = {}
        """Of all that nodes are in."""
        self._nodes: dict[str, Inflow] = {}
        self._told: dict[str, _Told] = {}
        self._readers: set[str] = set()
        self._peers = 0
        self._across = 0

    def told(self, node: str, zone: str, origin: int, others: int, now: float) -> None:
        """Totals of one node: bytes from the origin, and from anywhere else but its own store."""
        last = self._told.get(node)
        if last is None or origin < last.origin or others < last.others:
            # The first word, of the node or of its restarted peer.
            last, since = _Told(0, 0, now, now), None
        else:
            since = last.at
        self._told[node] = _Told(origin, others, now, last.fed_at)
        into = self._zones.setdefault(zone, Inflow()) if zone else None
        read, rest = origin - last.origin, others - last.others
        self._nodes.setdefault(node, Inflow()).add(read + rest, since, now)
        if read:
            self._readers.add(node)
            self._origin.add(read, since, now)
            if into:
                into.add(read, since, now)

    def fed(self, node: str, zone: str, parents: Iterable[tuple[str, int]], now: float) -> None:
        """Bytes that a node has from others since it last said so, each with its parent's zone; an empty name is no
        zone."""
        last = self._told.get(node)
        since = last.fed_at if last else None
        if last:
            self._told[node] = last._replace(fed_at=now)
        for parent_zone, nbytes in parents:
            self._peers += nbytes
            if zone and parent_zone and zone != parent_zone:
                self._across += nbytes
                self._zones.setdefault(zone, Inflow()).add(nbytes, since, now)

    def measured(self, size: int, whole: Iterable[str]) -> Measured:
        """`whole`: nodes that have all `size` bytes."""
        reader = next(iter(self._readers)) if len(self._readers) == 1 else ""
        bounds = [Bound("origin", self._origin.bound(size), reader)]
        if len(self._zones) > 1:
            bounds.append(_slowest("zone", size, self._zones))
        nodes = {node: self._nodes[node] for node in whole if node in self._nodes}
        bounds.append(_slowest("node", size, nodes))
        return Measured(
            bounds=tuple(bound for bound in bounds if bound.seconds > 0),
            bytes_origin=self._origin.total,
            bytes_peers=self._peers,
            bytes_across=self._across if len(self._zones) > 1 else None,
        )


def _slowest(level: Level, size: int, groups: Mapping[str, Inflow]) -> Bound:
    found = {name: inflow.bound(size) for name, inflow in groups.items()}
    at = max(found, key=lambda name: found[name], default="")
    seconds = found.get(at, 0.0)
    return Bound(level, seconds, at if found and seconds >= OUTLIER * median(found.values()) else "")
