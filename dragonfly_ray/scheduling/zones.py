"""Each piece has one importer a zone, and one zone that it is imported from: each byte enters a zone once.

All hosts of a zone compute the same from the same roster, so nobody has to ask who imports what. The
importer of a piece is the first of the zone's roster in rendezvous order; the next in order succeeds it.
The zones of a task form a ring, another one for each piece: a zone imports from its predecessor, so
that no zone's link carries a piece out twice, wherever it entered.

Zones may be in regions, whose links are thinner still. Then the ring of zones is one of the zones of a
region, the regions form a ring of their own, and each piece has one zone a region, its *gate*, that
imports it from the region before. What is in the region already comes from there. Events in, with the
time in the questions; no clock, no socket.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection

from dragonfly_ray import bitset

STALLED_AFTER = 5.0
"""Seconds without progress, at least, after which an importer with something to import is passed over."""
STALLED_IMPORTS = 4.0
"""And so many times what an import usually takes: a thin link is slow for everybody."""
FIRST_PATIENCE = 1.0
"""Seconds that the predecessor is waited for before another zone is asked, while no import was measured."""
PATIENT_IMPORTS = 4.0
"""After that, so many times what an import usually takes."""
SMOOTHING = 0.3
HOSTS_A_PIECE_TIME = 25
"""Where links between zones are as wide as those of hosts, importers make a task late by a piece's time for each so many
hosts, since a piece has to reach the few of them first. Simulated with four such zones and 128 pieces: 200, 400 and 600
hosts took 8, 14 and 25 piece-times longer."""
MOST_LOSS = 0.03
"""Of a task's time may be lost so. What importers gain where links are thinner is a multiple of it."""
ALWAYS_UP_TO = 96
"""Hosts. So few lose nothing: 60 took 1.11 of the bound with importers and 1.19 without."""
LEFT_TO_SLOW = 4
"""Pieces that are left to a slow importer: those that it has asked for."""


def region_of(location: str) -> str:
    """The first part of a location (`region|zone|rack`); empty: none."""
    return location.partition("|")[0].strip().casefold()


def worth_importing(pieces: int) -> int:
    """Hosts of a task up to which importers cost hardly anything, if it turns out that they gain nothing either."""
    return max(ALWAYS_UP_TO, int(MOST_LOSS * HOSTS_A_PIECE_TIME * pieces))


def weights(name: str, count: int) -> array[int]:
    """A number for each piece, the same wherever it is computed."""
    found = array("Q")
    found.frombytes(random.Random(name).getrandbits(64 * count).to_bytes(8 * count, "little"))
    return found


class Imports:
    """What one host is to import of one task, of which zone."""

    def __init__(self, host: str, zone: str, count: int, region: str = "") -> None:
        """`region`: that the zone is in; empty: not known, and then no zone is in another one."""
        self.host = host
        self.zone = zone
        self.region = region
        self._count = count
        self._weights: dict[str, array[int]] = {}
        self._roster: set[str] = set()
        self._named = False
        self._zones: dict[str, int] = {}
        """Other zone -> how many of its hosts are known."""
        self._regions: dict[str, str] = {}
        """Other zone -> the region that it is in, where that is known."""
        self._stalled: set[str] = set()
        self._moved: set[str] = set()
        """Importers that have told of something since `look`."""
        self._since: dict[str, float] = {}
        """Importer -> since when it has had something to import, without progress."""
        self._shares: dict[str, int] | None = None
        self._spare: dict[str, int] = {}
        """A slow importer -> what of all pieces this host would import in its place."""
        self._sources: dict[str, int] | None = None
        self._usual = 0.0
        self._begun: dict[int, float] = {}
        """Imports of this host that are under way -> when they began."""
        self._idle: float | None = None
        """Since when it imports nothing, although zones other than the predecessor could give something."""
        self.used: dict[str, int] = {}
        """Zone -> imports from it out of its turn."""

    # --- who is there -----------------------------------------------------------------------

    def importer(self, host: str, does: bool) -> None:
        """A host of the own zone, maybe this one, imports or does not any more."""
        self._named = self._named or does
        if does != (host in self._roster):
            (self._roster.add if does else self._roster.discard)(host)
            self._stalled.discard(host)
            self._since.pop(host, None)
            self._shares = None

    def zone_joined(self, zone: str, region: str = "") -> None:
        """A host of another zone is known."""
        self._zones[zone] = self._zones.get(zone, 0) + 1
        if region and self._regions.get(zone) != region:
            self._regions[zone] = region
            self._sources = None
        if self._zones[zone] == 1:
            self._sources = None

    def zone_left(self, zone: str) -> None:
        self._zones[zone] -= 1
        if not self._zones[zone]:
            del self._zones[zone]
            self._regions.pop(zone, None)
            self._sources = None

    def _abroad(self, zone: str) -> bool:
        """It is in another region."""
        region = self._regions.get(zone, "")
        return bool(self.region and region) and region != self.region

    # --- what belongs to whom ---------------------------------------------------------------

    def share(self, host: str) -> int:
        """The pieces of which `host` is the importer now."""
        if self._shares is None:
            self._shares = self._divide(self._roster - self._stalled)
            self._spare.clear()
        return self._shares.get(host, 0)

    def _divide(self, importers: Collection[str]) -> dict[str, int]:
        active = sorted(importers)
        if len(active) < 2:
            return dict.fromkeys(active, bitset.full(self._count))
        rows = [self._weigh(host) for host in active]
        owned: list[list[int]] = [[] for _ in active]
        for piece, column in enumerate(zip(*rows, strict=True)):
            owned[column.index(max(column))].append(piece)
        return {host: bitset.of(pieces) for host, pieces in zip(active, owned, strict=True)}

    def source(self, zone: str) -> int:
        """The pieces that `zone` exports to this one."""
        if self._sources is None:
            self._sources = self._ring()
        return self._sources.get(zone, 0)

    def _ring(self) -> dict[str, int]:
        here = sorted(zone for zone in self._zones if not self._abroad(zone))
        found = self._before(f"zone {self.zone}", {zone: f"zone {zone}" for zone in here})
        regions = sorted({self._regions[zone] for zone in self._zones if self._abroad(zone)})
        if regions:
            gate = self._gate(here)
            before = self._before(f"region {self.region}", {each: f"region {each}" for each in regions})
            for zone in self._zones:
                if self._abroad(zone):
                    found[zone] = gate & before[self._regions[zone]]
        return found

    def _before(self, me: str, others: dict[str, str]) -> dict[str, int]:
        """Each of the others -> the pieces of which it is before me in the ring of all."""
        if len(others) < 2:
            return dict.fromkeys(others, bitset.full(self._count))
        mine = self._weigh(me)
        rows = [self._weigh(name) for name in others.values()]
        found: list[list[int]] = [[] for _ in others]
        for piece, column in enumerate(zip(*rows, strict=True)):
            before = max((w for w in column if w < mine[piece]), default=0) or max(column)
            found[column.index(before)].append(piece)
        return {other: bitset.of(pieces) for other, pieces in zip(others, found, strict=True)}

    def _gate(self, here: list[str]) -> int:
        """The pieces that this zone is to import into its region."""
        mine = self._weigh(f"zone {self.zone}")
        rows = [self._weigh(f"zone {zone}") for zone in here]
        if not rows:
            return bitset.full(self._count)
        return bitset.of(n for n, column in enumerate(zip(*rows, strict=True)) if mine[n] > max(column))

    def _weigh(self, name: str) -> array[int]:
        found = self._weights.get(name)
        if found is None:
            found = self._weights[name] = weights(name, self._count)
        return found

    # --- progress ---------------------------------------------------------------------------

    def moved(self, host: str) -> None:
        """A host of the zone has told of pieces that are new there."""
        if host in self._roster:
            self._moved.add(host)

    def began(self, piece: int, now: float, zone: str = "") -> None:
        """This host imports a piece. It stays impatient until its predecessors give something again."""
        self._begun[piece] = now
        if zone and not self.source(zone) >> piece & 1:
            self.out_of_turn(zone)

    def out_of_turn(self, zone: str) -> None:
        """Something is asked of a zone that is not the predecessor."""
        self.used[zone] = self.used.get(zone, 0) + 1

    def ended(self, piece: int, now: float | None = None) -> None:
        """An import is over; `now`: when the piece arrived, if it did."""
        begun = self._begun.pop(piece, None)
        if begun is not None and now is not None:
            took = now - begun
            self._usual += (SMOOTHING if self._usual else 1.0) * (took - self._usual)

    def look(self, lacking: dict[str, int], now: float) -> None:
        """Who has stopped, who goes on. `lacking`: zone -> what its hosts have and nobody has here."""
        due = 0
        for zone, pieces in self._of_regions(lacking).items():
            due |= pieces & self.source(zone)
        before = set(self._stalled)
        self._stalled -= self._moved
        oldest = now - min(self._begun.values()) if self._begun else 0.0
        limit = max(STALLED_AFTER, STALLED_IMPORTS * max(self._usual, oldest))
        for host in self._roster:
            if host == self.host or host in self._moved or not due & self.share(host):
                self._since[host] = now
            elif now - self._since.setdefault(host, now) >= limit and host not in self._stalled:
                self._stalled.add(host)
        self._moved.clear()
        if before != self._stalled:
            self._shares = None

    # --- the choice -------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        return len(self._begun)

    @property
    def known(self) -> bool:
        """Whether the scheduler has named an importer of this zone."""
        return self._named

    @property
    def nobody(self) -> bool:
        """No host of the zone imports, as far as is known: whoever needs something asks."""
        return not self._roster - self._stalled

    def wanted(self, lacking: dict[str, int], now: float) -> dict[str, int]:
        """Zone -> the pieces that this host is to ask of it now. `lacking`: as in `look`, without what
        was asked for."""
        lacking = self._of_regions(lacking)
        if self.nobody:
            return {zone: pieces & self.source(zone) or pieces for zone, pieces in lacking.items()}
        mine = self.share(self.host)
        if not mine:
            return {}
        found = {zone: due for zone, pieces in lacking.items() if (due := pieces & mine & self.source(zone))}
        if found:
            self._idle = None
            return found
        others = {zone: due for zone, pieces in lacking.items() if (due := pieces & mine)}
        late = others or self._of_the_slowest(lacking)
        if not late or self._begun:
            return {}
        if self._idle is None:
            self._idle = now
        if now - self._idle < max(PATIENT_IMPORTS * self._usual, 0.0 if self._usual else FIRST_PATIENCE):
            return {}
        zone = min(late, key=lambda each: (self._abroad(each), self.used.get(each, 0), each))
        return {zone: late[zone]}

    def _of_the_slowest(self, lacking: dict[str, int]) -> dict[str, int]:
        """For who is through with its own share: its part of what is left of the slowest importer's, as if that one
        had gone."""
        slowest, most = "", LEFT_TO_SLOW
        for host in sorted(self._roster - self._stalled - {self.host}):
            share = self.share(host)
            left = sum((pieces & share & self.source(zone)).bit_count() for zone, pieces in lacking.items())
            if left > most:
                slowest, most = host, left
        if not slowest:
            return {}
        part = self.share(slowest) & self._without(slowest)
        return {zone: due for zone, pieces in lacking.items() if (due := pieces & part & self.source(zone))}

    def _without(self, slow: str) -> int:
        """This host's share if `slow` imported nothing."""
        if slow not in self._spare:
            self._spare[slow] = self._divide(self._roster - self._stalled - {slow}).get(self.host, 0)
        return self._spare[slow]

    def _of_regions(self, lacking: dict[str, int]) -> dict[str, int]:
        """What the own region has already is not for other regions to give."""
        abroad = [zone for zone in lacking if self._abroad(zone)]
        if not abroad:
            return lacking
        here = 0
        for zone, pieces in lacking.items():
            here |= 0 if zone in abroad else pieces
        found = {zone: pieces & ~here if zone in abroad else pieces for zone, pieces in lacking.items()}
        return {zone: pieces for zone, pieces in found.items() if pieces}


def lacking(zones: Collection[tuple[str, int]], near: int, missing: int) -> dict[str, int]:
    """Zone -> what its hosts, given as (zone, pieces), have of `missing` that no `near` host has."""
    found: dict[str, int] = {}
    open_here = missing & ~near
    for zone, pieces in zones:
        here = pieces & open_here
        if here:
            found[zone] = found.get(zone, 0) | here
    return found
