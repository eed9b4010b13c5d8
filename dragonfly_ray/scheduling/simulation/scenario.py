"""What is simulated: a cluster, a content, links, losses. And the least time that it can take."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dragonfly_ray.model import MIB
from dragonfly_ray.scheduling.simulation import bounds

MBIT = 1_000_000 / 8
"""Bytes a second."""
CHURN_PERIOD = 1024
"""Piece-times for which the shares of lost and joined peers are meant."""


class Link(NamedTuple):
    """A host's two directions, bytes a second."""

    up: float
    down: float


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Rates are in Mbit/s. With `policy` `seeds`, `seeds` hosts beside the peers read the origin; with
    `all`, the peers do, and there are none.

    `mix`: (share of the peers, their Mbit/s) for links that are not equal. `lost`, `joined`: shares
    of the peers in every 1,024 piece-times. `lag`: piece-times after which neighbours hear of a piece.
    `uploads`, `queue`: what a sender has under way and takes on top, before it answers BUSY; children are served in
    turn.
    """

    peers: int = 100
    pieces: int = 256
    piece_bytes: int = MIB
    mbit: float = 1000.0
    mix: tuple[tuple[float, float], ...] = ()
    origin_mbit: float | None = None
    """None: no limit but the readers' links."""
    policy: Literal["seeds", "all"] = "seeds"
    seeds: int = 1
    origin_zone: int | None = None
    """The zone that the origin is in: what peers of others read crosses its link. None: it is outside of all."""
    zones: int = 1
    cross_mbit: float | None = None
    """Of each zone, in each direction, to all others; None: no limit."""
    zone_mbit: tuple[float, ...] = ()
    """Of each zone, where they differ; instead of `cross_mbit`."""
    regions: int = 1
    """Of as many zones each, as far as that is possible; what goes to another region crosses both links."""
    region_mbit: float | None = None
    """Of each region, in each direction, to all others; None: no limit."""
    zone_policy: Literal["auto", "importers", "off"] = "auto"
    """As `scheduler.zones`."""
    lost: float = 0.0
    joined: float = 0.0
    lag: float = 0.5
    admission: Literal["late", "peers"] = "late"
    """`peers`: as hosts do it. They ask each neighbour for as much as `RequestLimits.of` says, and take all requests.
    `late`: the ideal. They ask for a piece only when somebody can begin to send it: `requests`, `uploads`, `queue`."""
    requests: int = 2
    """Pieces that a peer has asked for and waits for, each of another holder."""
    uploads: int = 1
    queue: int = 1
    liars: int = 0
    """So many of the peers have other bytes in every piece, and say so: they are not counted as complete."""
    damaged: int = 0
    """So many of the peers send other bytes than they promise."""
    origin_down: float = 0.0
    """Seconds from the beginning for which every request to the origin fails."""
    seed: int = 1

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str:
        if self.peers < 1 or self.pieces < 1 or self.piece_bytes < 1 or self.zones < 1:
            return "peers, pieces, piece_bytes and zones are at least 1"
        links = (self.origin_mbit or 1.0, self.cross_mbit or 1.0, self.region_mbit or 1.0, *self.zone_mbit)
        if min(self.mbit, *links, *(r for _, r in self.mix)) <= 0:
            return "rates are greater than 0"
        if self.zone_mbit and len(self.zone_mbit) != self.zones:
            return "zone_mbit has a rate for each zone"
        if not 1 <= self.regions <= self.zones or not 0 <= (self.origin_zone or 0) < self.zones:
            return "there are as many regions as zones at the most, and the origin is in one of the zones"
        if not (0 <= self.lost < 1 and 0 <= self.joined < 1 and self.lag > 0):
            return "lost and joined are shares, from 0 to below 1, and lag is greater than 0"
        if self.policy == "seeds" and self.seeds < 1:
            return "with the policy `seeds` there is at least one"
        if self.requests < 1 or self.uploads < 1 or self.queue < 0:
            return "requests and uploads are at least 1"
        if min(self.liars, self.damaged, self.origin_down) < 0 or self.liars + self.damaged >= self.peers:
            return "some peers are honest"
        return ""

    @property
    def size(self) -> int:
        return self.pieces * self.piece_bytes

    @property
    def piece_time(self) -> float:
        """Seconds that a piece takes on a link of `mbit`."""
        return self.piece_bytes / (self.mbit * MBIT)

    @property
    def readers(self) -> int:
        """Hosts beside the peers that read the origin."""
        return self.seeds if self.policy == "seeds" else 0

    @property
    def doubtful(self) -> bool:
        """Whether not all that is said is true: digests are compared."""
        return bool(self.liars or self.damaged)

    @property
    def equal(self) -> bool:
        return not self.mix

    def links(self) -> list[Link]:
        """Of each peer. The mixture is drawn once; its shares are exact but for rounding."""
        rates = [self.mbit] * self.peers
        if self.mix:
            total = sum(share for share, _ in self.mix)
            rates = []
            for share, rate in self.mix:
                rates += [rate] * round(self.peers * share / total)
            rates = (rates + [self.mix[-1][1]] * self.peers)[: self.peers]
            random.Random(self.seed).shuffle(rates)
        return [Link(rate * MBIT, rate * MBIT) for rate in rates]

    def zone(self, number: int) -> str:
        return f"zone{number % self.zones}"

    def region(self, zone: int) -> int:
        """Of a zone: neighbouring numbers share one."""
        return zone * self.regions // self.zones

    def zone_rate(self, zone: int) -> float | None:
        """Of its link, bytes a second."""
        mbit = self.zone_mbit[zone] if self.zone_mbit else self.cross_mbit
        return mbit * MBIT if mbit else None

    def bound(self) -> float:
        """Seconds below which nothing can be: the greatest of all bounds that hold here (see `bounds`)."""
        links, size = self.links(), float(self.size)
        up = sum(link.up for link in links)
        limit = self.origin_mbit * MBIT if self.origin_mbit else math.inf
        seeds = self.readers * self.mbit * MBIT
        first = min(limit, seeds or up)
        found = [
            bounds.origin(size, first),
            bounds.receiver(size, min(link.down for link in links)),
            bounds.copies(size, self.peers, (seeds or first) + up),
        ]
        if self.equal and self.readers == 1:
            found.append(bounds.pipeline(self.pieces, self.peers, self.piece_time))
        # Seeds read an origin outside of the zones and are in them; or the peers do.
        outside = 0.0 if seeds or self.origin_zone is not None else limit
        found.append(bounds.groups(size, self._zones(links), outside))
        found.append(bounds.groups(size, self._regions(links), outside))
        return max(found)

    def _zones(self, links: list[Link]) -> list[bounds.Group]:
        return [self._group(links, {zone}, self.zone_rate(zone)) for zone in range(self.zones)]

    def _regions(self, links: list[Link]) -> list[bounds.Group]:
        rate = self.region_mbit * MBIT if self.region_mbit else None
        members: list[set[int]] = [set() for _ in range(self.regions)]
        for zone in range(self.zones):
            members[self.region(zone)].add(zone)
        return [self._group(links, zones, rate) for zones in members]

    def _group(self, links: list[Link], zones: set[int], rate: float | None) -> bounds.Group:
        inside = [link.up for number, link in enumerate(links) if number % self.zones in zones]
        seeds = sum(number % self.zones in zones for number in range(self.readers))
        readers = seeds * self.mbit * MBIT
        source = seeds > 0 if self.readers else self.origin_zone in zones
        if source and not seeds:
            readers = self.origin_mbit * MBIT if self.origin_mbit else math.inf
        width = rate or math.inf
        return bounds.Group(len(inside), sum(inside), width, width, readers, source)
