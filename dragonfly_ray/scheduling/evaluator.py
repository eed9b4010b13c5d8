"""Who is a good parent for whom: the judgement behind the edges of a task's graph.

An evaluator filters hosts, says how many neighbours come from outside a host's zone, and ranks
candidates when an edge is drawn. It never ranks holders for a piece: that is the receiver's choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dragonfly_ray.model import Host

FORGIVEN_AFTER = 600.0
"""Seconds in which half of what a host did wrong is forgotten."""
COMPLAINT, BAN = 0.25, 2.0
MOST_BY_COMPLAINTS = 0.75
"""Complaints alone never bar a host: whoever complains may be the one who lies."""
BARRED = 1.0
LOCATION_PARTS = 5
"""So many leading parts of a location count."""


@dataclass(slots=True)
class Facts:
    """What is known of a host when it is judged."""

    host: Host
    uploads: int = 0
    """Children that it was sending to when it last reported."""
    slots: int = 0
    """How many it can send to at a time; 0: it has not said."""
    blame: float = 0.0
    blamed: float = 0.0
    """When `blame` was last true; it halves with time."""

    def guilt(self, now: float) -> float:
        """How much it did wrong lately: complaints and bans, in whatever task."""
        if not self.blame:
            return 0.0
        return float(self.blame * 0.5 ** (max(0.0, now - self.blamed) / FORGIVEN_AFTER))

    def complained(self, now: float) -> None:
        guilt = self.guilt(now)
        self.blame, self.blamed = max(guilt, min(MOST_BY_COMPLAINTS, guilt + COMPLAINT)), now

    def banned(self, now: float) -> None:
        self.blame, self.blamed = self.guilt(now) + BAN, now


class Features(NamedTuple):
    """Of one candidate for one child, each from 0 to 1; all but `guilt` speak for it."""

    seed: float
    zone: float
    """In the child's own zone."""
    location: float
    """The share of the location's parts that it has in common with the child, from the left."""
    room: float
    """1: it has no neighbours yet in this task; 0: as many as it can bear."""
    slots: float
    """The share of its upload slots that is free."""
    guilt: float


class Evaluator(Protocol):
    """A policy. `policy`: its name and version, for the decision log."""

    policy: str

    def bars(self, host: Facts, now: float) -> bool:
        """Whether nobody shall be fed by this host."""
        ...

    def quota(self, count: int, near: int, far: int) -> tuple[int, int]:
        """How many of `count` new neighbours to draw from the `near` hosts of a zone and the `far` others."""
        ...

    def features(self, child: Facts, parent: Facts, edges: int, now: float) -> Features: ...

    def rank(
        self, child: Facts, parents: Sequence[Facts], edges: Sequence[int], count: int, now: float
    ) -> list[int]:
        """The positions of the best `count` of `parents`, best first, or of fewer.

        `edges`: how many neighbours each has in the task.
        """
        ...


class BalancedEvaluator:
    """The default: level numbers of neighbours first, then nearness, free slots, seeds and a clean record.

    `bears`: neighbours in one task beyond which a host is given to nobody any more.
    """

    policy = "balanced/1"
    ROOM, SLOTS, SEED, ZONE, LOCATION, GUILT = 0.5, 0.15, 0.05, 0.15, 0.15, 1.0
    ABROAD = 0.1
    """The share of neighbours drawn from other zones."""

    def __init__(self, *, bears: int = 80) -> None:
        self.bears = bears
        self._common: dict[tuple[str, str], float] = {}

    def bars(self, host: Facts, now: float) -> bool:
        return bool(host.blame) and host.guilt(now) >= BARRED

    def quota(self, count: int, near: int, far: int) -> tuple[int, int]:
        abroad = min(far, max(math.ceil(count * self.ABROAD), count - near))
        return min(near, count - abroad), abroad

    def features(self, child: Facts, parent: Facts, edges: int, now: float) -> Features:
        return Features(
            seed=float(parent.host.seed),
            zone=float(parent.host.idc == child.host.idc),
            location=self._location(child.host.location, parent.host.location),
            room=1.0 - min(1.0, edges / self.bears),
            slots=_free(parent),
            guilt=min(1.0, parent.guilt(now)),
        )

    def score(self, f: Features) -> float:
        return (
            self.ROOM * f.room + self.SLOTS * f.slots + self.SEED * f.seed + self.ZONE * f.zone
            + self.LOCATION * f.location - self.GUILT * f.guilt
        )  # fmt: skip

    def rank(
        self, child: Facts, parents: Sequence[Facts], edges: Sequence[int], count: int, now: float
    ) -> list[int]:
        # `score(features(…))` of all of them at once: it is on the path of every edge drawn.
        zone, location, step = child.host.idc, child.host.location, self.ROOM / self.bears
        found = []
        for place, parent in enumerate(parents):
            host, loaded = parent.host, edges[place]
            value = self.ROOM - step * loaded if loaded < self.bears else 0.0
            value += self.SLOTS * _free(parent) if parent.uploads else self.SLOTS
            if host.seed:
                value += self.SEED
            if host.idc == zone:
                value += self.ZONE
            if location:
                value += self.LOCATION * self._location(location, host.location)
            if parent.blame:
                value -= self.GUILT * min(1.0, parent.guilt(now))
            found.append((-value, place))
        found.sort()
        return [place for _, place in found if edges[place] < self.bears][:count]

    def _location(self, child: str, parent: str) -> float:
        if not child or not parent:
            return 0.0
        known = self._common.get((child, parent))
        if known is None:
            if len(self._common) > 100_000:
                self._common.clear()
            known = self._common[child, parent] = common(child, parent) / LOCATION_PARTS
        return known


def common(a: str, b: str) -> int:
    """How many leading parts of two locations (`a|b|c`) agree, `LOCATION_PARTS` at the most; the same: all."""
    if a == b:
        return LOCATION_PARTS
    count = 0
    for mine, other in zip(a.split("|"), b.split("|"), strict=False):
        if mine.casefold() != other.casefold() or count == LOCATION_PARTS:
            break
        count += 1
    return count


def _free(host: Facts) -> float:
    return 1.0 - min(1.0, host.uploads / host.slots) if host.slots else 1.0
