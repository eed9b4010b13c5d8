"""Who knows whom in a task: everybody while there are few, then a static, balanced random graph.

Edges are drawn when a host joins and repaired when one leaves, never shuffled. To draw costs the
same however many hosts there are: a random sample is taken, and a `Choice` picks from it. Hosts are
numbers in here, so that a host and its edges take a few hundred bytes.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

LOOKED_AT = 32
"""Hosts of a zone that are looked at, at the most, to fill a place among its importers."""
SAMPLE = 2
"""Candidates looked at for each neighbour wanted."""


class Choice(Protocol):
    """Whom a graph links when it can choose."""

    def quota(self, count: int, near: int, far: int) -> tuple[int, int]:
        """How many of `count` neighbours to take from `near` hosts of the zone, and from `far` others."""
        ...

    def best(self, host: str, candidates: list[str], edges: list[int], count: int, now: float) -> list[int]:
        """The positions of `count` of the candidates, or fewer, best first; `edges`: how many each has."""
        ...

    def drew(
        self,
        host: str,
        candidates: list[str],
        edges: list[int],
        chosen: list[str],
        now: float,
        *,
        pool: int,
        repair: bool,
    ) -> None:
        """What came of it, for the record; `pool`: how many there were to sample from."""
        ...


class LeastConnected:
    """Level numbers of edges, and a tenth of them to other zones."""

    def quota(self, count: int, near: int, far: int) -> tuple[int, int]:
        abroad = min(far, max(-(-count // 10), count - near))
        return min(near, count - abroad), abroad

    def best(self, host: str, candidates: list[str], edges: list[int], count: int, now: float) -> list[int]:
        return sorted(range(len(candidates)), key=edges.__getitem__)[:count]

    def drew(self, *what: object, **more: object) -> None:
        pass


class Graph:
    """Symmetric. `everybody`: up to so many hosts all know all; `degree`: how many beyond that.

    `importers`: so many hosts of each zone import for it, and know those of all zones; 0: nobody does. Every other
    host knows one of its zone at least: who knows none would take what it lacks from other zones.
    With `import_up_to`, that begins only while there are no more hosts than that.
    """

    def __init__(
        self,
        *,
        everybody: int,
        degree: int,
        importers: int = 0,
        import_up_to: int | None = None,
        choice: Choice | None = None,
        seed: int | str | None = None,
    ) -> None:
        self.everybody = everybody
        self.degree = degree
        self.choice = choice or LeastConnected()
        self._random = random.Random(seed)
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._edges: list[array[int]] = []
        self._drawn: list[array[int]] = []
        """Those of its edges that a host drew itself."""
        self._zone: list[str] = []
        self._place: list[int] = []
        """Where in its zone's array a host is; in that of all hosts it is by its number."""
        self._zones: dict[str, array[int]] = {}
        self._zone_names: list[str] = []
        self.importers = importers
        self.import_up_to = import_up_to
        self.rosters: dict[str, dict[str, None]] = {}
        """Zone -> its importers."""
        self.may_import: Callable[[str], bool] = lambda host: True
        """Whether a host gets on with importing, if it is given a place."""

    def __contains__(self, host: str) -> bool:
        return host in self._numbers

    def __len__(self) -> int:
        return len(self._names)

    def neighbours(self, host: str) -> set[str]:
        number = self._numbers.get(host)
        return set() if number is None else {self._names[n] for n in self._edges[number]}

    def degree_of(self, host: str) -> int:
        number = self._numbers.get(host)
        return 0 if number is None else len(self._edges[number])

    def drawer(self, a: str, b: str) -> str:
        """Which of two neighbours drew the edge; empty if it is no more."""
        one, other = self._numbers.get(a), self._numbers.get(b)
        if one is None or other is None:
            return ""
        return a if other in self._drawn[one] else b if one in self._drawn[other] else ""

    def join(self, host: str, zone: str = "", now: float = 0.0) -> set[str]:
        """Adds a host; the neighbours that it has."""
        self.join_all([(host, zone)], now)
        return self.neighbours(host)

    def join_all(self, hosts: Iterable[tuple[str, str]], now: float = 0.0) -> None:
        """Adds (host, zone) at once: each can then be a neighbour of each, which balances best."""
        new = [self._add(host, zone) for host, zone in hosts if host not in self._numbers]
        for number in new:
            self._enrol(number)
        few = len(self._names) <= self.everybody
        alone = len(new) == 1
        for number in new:
            if few:
                others = [n for n in range(len(self._names)) if n != number]
                self._link(number, [n for n in others if n not in self._edges[number]])
                names = [self._names[n] for n in others]
                self.choice.drew(self._names[number], [], [], names, now, pool=len(others), repair=False)
            else:
                # One that comes alone leaves room for those who will draw it later.
                count = self.degree // 2 if alone else self.degree - len(self._edges[number])
                self._draw(number, *self._quota(number, count), now)
                self._link_importer(number)

    def leave(self, host: str, now: float = 0.0) -> dict[str, set[str]]:
        """Removes a host; the new neighbours of those that lost too many by it.

        A new importer is told of to all its neighbours, and to itself.
        """
        number = self._numbers.get(host)
        if number is None:
            return {}
        zone = self._zone[number]
        lost = [self._names[n] for n in self._edges[number]]
        imported = self.imports(host)
        self._remove(host, number)
        gained: dict[str, set[str]] = {}
        if imported:
            del self.rosters[zone][host]
            self._succeed(zone, gained)
        floor = min(self.degree // 2, len(self._names) - 1)
        for other in lost:
            mine = self._numbers[other]
            if len(self._edges[mine]) < floor:
                # One of the same kind, so that the few ways out of a zone are kept.
                near, far = (1, 0) if self._zone[mine] == zone else (0, 1)
                found = self._draw(mine, near, far, now, repair=True)
                for new in found or self._draw(mine, far, near, now, repair=True):
                    gained.setdefault(other, set()).add(new)
                    gained.setdefault(new, set()).add(other)
        if imported:
            self._relink([self._numbers[other] for other in lost], gained)
        return gained

    # --- importers --------------------------------------------------------------------------

    def imports(self, host: str) -> bool:
        number = self._numbers.get(host)
        return number is not None and host in self.rosters.get(self._zone[number], ())

    def dismiss(self, hosts: Collection[str]) -> dict[str, set[str]]:
        """These import no more; others take their places, and any that is vacant. Who is to be told of whom."""
        gained: dict[str, set[str]] = {}
        for host in hosts:
            del self.rosters[self._zone[self._numbers[host]]][host]
            for other in self.neighbours(host) | {host}:
                gained.setdefault(other, set()).add(host)
        for zone, roster in self.rosters.items():
            while len(roster) < self.importers and self._succeed(zone, gained):
                pass
        for host in hosts:
            self._relink(self._edges[self._numbers[host]], gained)
        return gained

    def _link_importer(self, number: int) -> str:
        """Links a host that knows no importer of its zone to the one with the fewest edges, and names that."""
        roster = [self._numbers[host] for host in self.rosters.get(self._zone[number], ())]
        if not roster or number in roster or not set(roster).isdisjoint(self._edges[number]):
            return ""
        least = min(roster, key=lambda each: len(self._edges[each]))
        self._link(number, [least])
        return self._names[least]

    def _relink(self, numbers: Iterable[int], gained: dict[str, set[str]]) -> None:
        """Those of these hosts that have lost their only importer get another one."""
        for number in list(numbers):
            if new := self._link_importer(number):
                gained.setdefault(self._names[number], set()).add(new)
                gained.setdefault(new, set()).add(self._names[number])

    def _enrol(self, number: int) -> bool:
        """Makes a host an importer of its zone, if there is a place: who is of no use any more has none."""
        zone, host = self._zone[number], self._names[number]
        most = self.import_up_to
        few = most is None or bool(self.rosters) or len(self._names) <= most
        if not zone or not few or not self.importers:
            return False
        roster = self.rosters.setdefault(zone, {})
        if not self.may_import(host):
            return False
        if len(roster) >= self.importers:
            useless = next((h for h in roster if not self.may_import(h)), None)
            if useless is None:
                return False
            del roster[useless]
        roster[host] = None
        known = set(self._edges[number])
        mates = [self._numbers[h] for each in self.rosters.values() for h in each if h != host]
        self._link(number, [n for n in mates if n not in known])
        return True

    def _succeed(self, zone: str, gained: dict[str, set[str]]) -> bool:
        """Fills a vacant place, if a host can be found for it: its neighbours and it itself are told."""
        roster, members = self.rosters[zone], self._zones.get(zone, ())
        tried = self._random.sample(members, min(len(members), LOOKED_AT + len(roster)))
        for number in tried:
            if (host := self._names[number]) not in roster and self._enrol(number):
                neighbours = self.neighbours(host)
                for other in neighbours:
                    gained.setdefault(other, set()).add(host)
                gained.setdefault(host, set()).update({host}, filter(self.imports, neighbours))
                return True
        return False

    # --- drawing ----------------------------------------------------------------------------

    def _quota(self, number: int, count: int) -> tuple[int, int]:
        mates = len(self._zones[self._zone[number]])
        return self.choice.quota(count, mates - 1, len(self._names) - mates) if count > 0 else (0, 0)

    def _draw(self, number: int, near: int, far: int, now: float, *, repair: bool = False) -> list[str]:
        """Links a host to the best of a random sample: so many of its own zone, so many of others."""
        zone = self._zone[number]
        mates = self._zones[zone]
        known = {number, *self._edges[number]}
        host = self._names[number]
        shown: list[str] = []
        loads: list[int] = []
        picked: list[str] = []

        def choose(sample: list[int], count: int) -> int:
            if not sample:
                return 0
            candidates = [self._names[n] for n in sample]
            edges = [len(self._edges[n]) for n in sample]
            best = self.choice.best(host, candidates, edges, count, now)
            self._link(number, [sample[place] for place in best])
            picked.extend([candidates[place] for place in best])
            shown.extend(candidates)
            loads.extend(edges)
            return len(best)

        found = choose(self._sample_outside(zone, SAMPLE * far, known), far)
        near += far - found  # those that the few outside cannot bear
        choose(self._sample(mates, SAMPLE * near, known), near)
        if not self._edges[number] and shown:
            # All of them are full. One must do, or this host would be alone.
            least = min(range(len(shown)), key=loads.__getitem__)
            self._link(number, [self._numbers[shown[least]]])
            picked.append(shown[least])
        if picked:
            pool = len(self._names) - len(known)
            self.choice.drew(host, shown, loads, picked, now, pool=pool, repair=repair)
        return picked

    def _sample(self, among: Sequence[int], most: int, known: set[int]) -> list[int]:
        """Up to `most` of them that are not `known`, at random; all where there are few."""
        size = len(among)
        if size <= 2 * most + len(known):
            found = [n for n in among if n not in known]
            return self._random.sample(found, most) if len(found) > most else found
        draw = self._random.random
        chosen = dict.fromkeys([among[int(draw() * size)] for _ in range(most)])
        for n in known.intersection(chosen):
            del chosen[n]
        while len(chosen) < most:
            n = among[int(draw() * size)]
            if n not in known:
                chosen[n] = None
        return list(chosen)

    def _sample_outside(self, zone: str, most: int, known: set[int]) -> list[int]:
        size, inside = len(self._names), len(self._zones[zone])
        chosen: dict[int, None] = {}
        if most <= 0 or size == inside:
            return []
        draw, zones = self._random.random, self._zone
        for _ in range(4 * most):
            n = int(draw() * size)
            if zones[n] != zone and n not in known:
                chosen[n] = None
                if len(chosen) == most:
                    return list(chosen)
        # Nearly everybody is in this zone: by zones, then.
        for _ in range(2 * most):
            name = self._zone_names[int(draw() * len(self._zone_names))]
            if name != zone:
                members = self._zones[name]
                n = members[int(draw() * len(members))]
                if n not in known:
                    chosen[n] = None
        return list(chosen)

    # --- bookkeeping ------------------------------------------------------------------------

    def _link(self, number: int, others: Iterable[int]) -> None:
        mine = self._edges[number]
        for other in others:
            mine.append(other)
            self._edges[other].append(number)
            self._drawn[number].append(other)

    def _add(self, host: str, zone: str) -> int:
        number = self._numbers[host] = len(self._names)
        self._names.append(host)
        self._edges.append(array("I"))
        self._drawn.append(array("I"))
        self._zone.append(zone)
        members = self._zones.get(zone)
        if members is None:
            members = self._zones[zone] = array("I")
            self._zone_names.append(zone)
        self._place.append(len(members))
        members.append(number)
        return number

    def _remove(self, host: str, number: int) -> None:
        """The last host takes the number that is free."""
        for other in self._edges[number]:
            self._edges[other].remove(number)
            if number in self._drawn[other]:
                self._drawn[other].remove(number)
        members, place = self._zones[self._zone[number]], self._place[number]
        moved = members.pop()
        if moved != number:
            members[place] = moved
            self._place[moved] = place
        if not members:
            del self._zones[self._zone[number]]
            self._zone_names.remove(self._zone[number])
        del self._numbers[host]
        last = len(self._names) - 1
        if number != last:
            for other in self._edges[last]:
                for edges in (self._edges[other], self._drawn[other]):
                    if last in edges:
                        edges[edges.index(last)] = number
            self._zones[self._zone[last]][self._place[last]] = number
            self._numbers[self._names[last]] = number
            self._names[number] = self._names[last]
            self._edges[number] = self._edges[last]
            self._drawn[number] = self._drawn[last]
            self._zone[number] = self._zone[last]
            self._place[number] = self._place[last]
        for column in (self._names, self._edges, self._drawn, self._zone, self._place):
            del column[last]
