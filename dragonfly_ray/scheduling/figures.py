"""What a distribution took, beside the least time that the rates seen in it allow, and what limited it.

Every byte must enter the cluster from the origin, each zone from outside of it, and each node. So three kinds of
groups bound the time from below: bytes that a group needed, over the highest rate at which any came in. The greatest
of these bounds is the floor. It tells how well the links that were seen in use were used; what they might have
carried at best, nobody measures.

Events in, with the time in them; no clock, no socket.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

Level = Literal["origin", "zone", "node"]
LimitedBy = Literal["origin", "zone", "node", "start", "other", ""]
"""`origin`: the rate at which it was read. `zone`: what came into one zone. `node`: one node's link, disk or
processor. `start`: too short for any rate to count. `other`: time passed without any of these at its limit, such as
waits for an origin that failed. Empty: not known, or nothing had to come."""

MIN_WINDOW_S = 0.5
"""Over which a rate is taken, at least."""
MAX_WINDOWS = 8
"""Of one group; they grow as the time does."""
NEAR_GREATEST = 0.75
"""The outermost group whose bound is at least so much of the greatest one is what limited: what is behind a thin
link receives no faster than the link gives."""
EXPLAINED_TO = 2.0
"""Times the floor: a distribution that took longer was held up by something else."""
SHORT_S = 2.0


class Bound(msgspec.Struct, frozen=True):
    """Seconds that one group needed at least. `at`: the zone's name or the node's id."""

    level: Level
    seconds: float
    at: str = ""


class Measured(msgspec.Struct, frozen=True):
    """What a scheduler has seen of one source of a distribution; bytes are of all hosts, helpers included."""

    bounds: tuple[Bound, ...] = ()
    bytes_origin: int = 0
    bytes_peers: int = 0
    bytes_across: int = 0
    """Of those from peers: between two zones."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One distribution in a few numbers; None: not known."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"use_attribute_docstrings": True}
    """REST answers with this very class, and documents it with what stands below its fields."""

    seconds: float = 0.0
    """From its start to the last node's end."""
    floor: float | None = None
    """The least seconds that the rates seen in it allow: the greatest of size ÷ the rate at which the origin was read,
    and ÷ that at which bytes came into the slowest zone and node."""
    time_to_floor: float | None = None
    """Seconds ÷ floor."""
    p99_to_p50: float | None = None
    """Of the seconds of the nodes that have everything."""
    origin_ratio: float | None = None
    """Bytes read at the origin for the content, by whatever host, over its size."""
    cross_zone_share: float | None = None
    """Of the bytes from peers: between two zones. 0 where all nodes are in one."""
    limited_by: LimitedBy = ""
    """`origin`, `zone`, `node` (its link, disk or processor), `start` (too short to tell), `other` (it took more than
    twice the floor, as with an origin that failed for a while); empty: not known, or nothing had to come."""
    limited_at: str = ""
    """The zone's name, or the node's id."""


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
    """By one host, and when; `fed_at`: when it last said from whom."""

    origin: int
    others: int
    at: float
    fed_at: float


class TrafficMeter:
    """What enters the cluster, the zones and the hosts of one task, as its hosts tell."""

    def __init__(self) -> None:
        self._origin = Inflow()
        self._zones: dict[str, Inflow] = {}
        self._hosts: dict[str, Inflow] = {}
        self._told: dict[str, _Told] = {}
        self._peers = 0
        self._across = 0

    def told(self, host: str, zone: str, origin: int, others: int, now: float) -> None:
        """Totals of one host: bytes from the origin, and from anywhere else but its own store."""
        last = self._told.get(host)
        if last is None or origin < last.origin or others < last.others:
            # The first word, of the host or of its restarted peer.
            last, since = _Told(0, 0, now, now), None
        else:
            since = last.at
        self._told[host] = _Told(origin, others, now, last.fed_at)
        read, rest = origin - last.origin, others - last.others
        self._hosts.setdefault(host, Inflow()).add(read + rest, since, now)
        if read:
            self._origin.add(read, since, now)
            if zone:
                self._zones.setdefault(zone, Inflow()).add(read, since, now)

    def fed(self, host: str, zone: str, parents: Iterable[tuple[str, int]], now: float) -> None:
        """Bytes that a host has from others since it last said so, each with its parent's zone; an empty name is no
        zone."""
        last = self._told.get(host)
        since = last.fed_at if last else None
        if last:
            self._told[host] = last._replace(fed_at=now)
        for parent_zone, nbytes in parents:
            self._peers += nbytes
            if zone and parent_zone and zone != parent_zone:
                self._across += nbytes
                self._zones.setdefault(zone, Inflow()).add(nbytes, since, now)

    def measured(self, size: int, targets: Mapping[str, str]) -> Measured:
        """`targets`: host id -> node id of the nodes that shall have all `size` bytes."""
        bounds = [Bound("origin", self._origin.bound(size))]
        if len(self._zones) > 1:
            bounds += _slowest("zone", ((z, inflow.bound(size)) for z, inflow in self._zones.items()))
        known = (
            (node, self._hosts[host].bound(size)) for host, node in targets.items() if host in self._hosts
        )
        bounds += _slowest("node", known)
        return Measured(
            bounds=tuple(bound for bound in bounds if bound.seconds > 0),
            bytes_origin=self._origin.total,
            bytes_peers=self._peers,
            bytes_across=self._across,
        )


def _slowest(level: Level, found: Iterable[tuple[str, float]]) -> list[Bound]:
    at, seconds = max(found, key=lambda each: each[1], default=("", 0.0))
    return [Bound(level, seconds, at)]


def figures(
    seconds: float, size: int, node_seconds: Sequence[float], measured: Sequence[Measured | None]
) -> Figures:
    """Of a distribution of one or several sources, `size` bytes in all.

    `node_seconds`: of each source on each node that has it. Sources share their links, so the floor is the greatest
    of theirs, each at the rates that it had beside the others.
    """
    known = [each for each in measured if each is not None]
    # The outermost of equals comes first, whichever source it belongs to.
    order: dict[Level, int] = {"origin": 0, "zone": 1, "node": 2}
    bounds = sorted((b for each in known for b in each.bounds), key=lambda b: (order[b.level], -b.seconds))
    floor = max((bound.seconds for bound in bounds), default=None)
    moved = sum(each.bytes_origin + each.bytes_peers for each in known)
    limit = _limit(seconds, bounds, floor) if moved else ("", "")
    complete = bool(known) and len(known) == len(measured)
    peers = sum(each.bytes_peers for each in known)
    return Figures(
        seconds=seconds,
        floor=floor,
        time_to_floor=seconds / floor if floor else None,
        p99_to_p50=_p99_to_p50(node_seconds),
        origin_ratio=sum(each.bytes_origin for each in known) / size if complete and size else None,
        cross_zone_share=sum(each.bytes_across for each in known) / peers if peers else None,
        limited_by=limit[0],
        limited_at=limit[1],
    )


def _limit(seconds: float, bounds: Sequence[Bound], floor: float | None) -> tuple[LimitedBy, str]:
    if floor is None or seconds > EXPLAINED_TO * floor:
        short = seconds < SHORT_S if floor is None else floor < SHORT_S
        return ("start" if short else "other"), ""
    first = next(bound for bound in bounds if bound.seconds >= NEAR_GREATEST * floor)
    return first.level, first.at


def _p99_to_p50(seconds: Sequence[float]) -> float | None:
    """By nearest rank."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    p50, p99 = (ranked[max(0, -(-share * len(ranked) // 100) - 1)] for share in (50, 99))
    return p99 / p50 if p50 else None
