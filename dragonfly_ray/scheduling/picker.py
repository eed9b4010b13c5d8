"""The receiver's choice: which piece to ask of which holder.

Local rarest first with random ties, a run of consecutive pieces a request, and near the end the
same piece asked twice. It takes events and answers with runs; it holds no socket and no clock.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.rarity import Rarity
from dragonfly_ray.scheduling.zones import Imports, lacking

ENDGAME_PIECES = 16
"""So few missing pieces may be asked for twice."""
DUTIES = 6
"""Each peer sees to the import of one in 2**6 pieces, drawn at random: as soon as a far holder has it,
and no near one. A zone whose hosts all wait until they starve is late with every fresh piece, and one
whose hosts import at will does it many times."""
BACKLOG = 4
"""So many pieces to be imported are usual; for each so many more, twice as many are this peer's duty."""
LOOK_EVERY = 0.1
"""Seconds between two looks at which importers get on."""
ENDGAME_AFTER = 0.1
"""Seconds that a request may take before, near the end, somebody else is asked as well."""


@dataclass(slots=True, eq=False)
class _Holder:
    bits: int = 0
    usable: int = 0
    """`bits` without the pieces that it once could not give, or gave wrong."""
    far: bool = False
    zone: str = ""
    here: bool = False
    """Its bitmap came, and the connection has not been lost since."""
    asked: dict[int, float] = field(default_factory=dict)


class Picker:
    """What one peer still wants of one task, and who has it.

    While `urgent` names pieces, they come before the rarest (streaming).
    """

    def __init__(
        self, count: int, *, have: int = 0, wanted: int | None = None, seed: int | None = None
    ) -> None:
        self.count = count
        self.urgent: list[int] = []
        self.everything = bitset.full(count)
        """The set of all pieces."""
        self._have = have
        self._wanted = self.everything if wanted is None else wanted
        self._asked: dict[int, list[_Holder]] = {}
        """Pieces under way -> the holders that were asked."""
        self._own = 0
        """Pieces that this peer reads from the origin itself."""
        self._missing = self._wanted & ~have
        self._open = self._missing
        """Missing pieces that nobody has been asked for, and that are not this peer's own."""
        self._holders: dict[str, _Holder] = {}
        self._far: dict[str, _Holder] = {}
        self.imports: Imports | None = None
        """Set before anybody is met, where hosts are in zones. Without a known importer it does nothing."""
        self._looked = float("-inf")
        self._tally = Rarity()
        """Of what near holders can be asked for."""
        self._random = random.Random(seed)
        self._duties = [self.everything]
        for _ in range(DUTIES):
            self._duties.insert(0, self._duties[0] & self._random.getrandbits(max(1, count)))

    @property
    def have(self) -> int:
        """The set of pieces that are here."""
        return self._have

    @have.setter
    def have(self, pieces: int) -> None:
        self._have = pieces
        self._reopen()

    @property
    def wanted(self) -> int:
        """The want-set."""
        return self._wanted

    @property
    def missing(self) -> int:
        """The set of wanted pieces that are not here."""
        return self._missing

    @property
    def done(self) -> bool:
        return not self._missing

    @property
    def requests(self) -> int:
        """Pieces asked of holders and not yet here; one that was asked for twice counts once."""
        return len(self._asked)

    def available(self) -> int:
        """The missing pieces that some holder has."""
        found = self._tally.held()
        for holder in self._far.values():
            found |= holder.usable
        return self.missing & found

    def offered(self) -> int:
        """How many pieces near holders have that nobody was asked for yet."""
        return (self._open & self._tally.held()).bit_count()

    def holders(self) -> list[str]:
        return list(self._holders)

    def holder_bits(self, host: str) -> int:
        holder = self._holders.get(host)
        return holder.bits if holder else 0

    def having(self, piece: int) -> set[str]:
        """The holders that can be asked for it now."""
        return {host for host, holder in self._holders.items() if holder.here and holder.usable >> piece & 1}

    # --- events -----------------------------------------------------------------------------

    def joined(self, host: str, held: int, *, far: bool = False, zone: str = "", region: str = "") -> None:
        """A holder's bitmap arrived. It adds to what is known of it.

        `far`: its bytes cross a thin link. Fallback when no same-zone holder has anything
        useful; and for this peer's small share of the pieces that no near holder has.
        """
        self.meets(host, far=far, zone=zone, region=region)
        holder = self._holders[host]
        holder.here = True
        self._add(holder, held & self.everything)

    def meets(self, host: str, *, far: bool, zone: str = "", region: str = "") -> None:
        """A neighbour is known, and where it is; its news may come before its bitmap does."""
        holder = self._holder(host)
        if self.imports and (far, zone) != (holder.far, holder.zone):
            if holder.far:
                self.imports.zone_left(holder.zone)
            if far:
                self.imports.zone_joined(zone, region)
        holder.zone = zone
        if far != holder.far:
            self._uncount(holder, holder.usable)
            holder.far = far
            if far:
                self._far[host] = holder
            else:
                del self._far[host]
                self._tally.add(holder.usable)

    def names(self, host: str, *, importer: bool) -> None:
        """The scheduler says whether a host of this zone, maybe this one, brings pieces in from other zones."""
        if self.imports:
            self.imports.importer(host, importer)

    def has(self, host: str, pieces: int | Collection[int]) -> None:
        """News of a holder: a set as a bitmap, or piece numbers."""
        pieces = pieces & self.everything if isinstance(pieces, int) else bitset.among(pieces, self.count)
        self._add(self._holders.get(host) or self._holder(host), pieces)
        if self.imports:
            self.imports.moved(host)

    def hears(self, told: Mapping[str, int]) -> None:
        """All that some hosts have told by now, as bitmaps that only grow; of those that are known here.

        The bitmaps that are given are kept: where thousands of pickers hear the same, they share them.
        """
        get, imports = self._holders.get, self.imports
        ones = twos = fours = 0
        """Numbers of near holders to be counted in, as the tally has them: one by one would cost more."""
        for host, said in told.items():
            holder = get(host)
            if holder is None:
                continue
            bits = holder.bits
            news = said ^ (said & bits)
            if not news:
                continue
            whole = said if said ^ bits == news else bits | news
            holder.usable = whole if holder.usable is bits else holder.usable | news
            holder.bits = whole
            if holder.far:
                continue
            if carry := ones & news:
                if more := twos & carry:
                    if most := fours & more:
                        self._tally.add(most, 3)
                    fours ^= more
                twos ^= carry
            ones ^= news
            if imports:
                imports.moved(host)
        self._tally.add(ones)
        self._tally.add(twos, 1)
        self._tally.add(fours, 2)

    def left(self, host: str) -> None:
        """The holder is gone: what it was asked for is free again."""
        self.reset(host)
        holder = self._holders.pop(host, None)
        if holder:
            if self.imports:
                self.imports.importer(host, False)
                if holder.far:
                    self.imports.zone_left(holder.zone)
            self._far.pop(host, None)
            self._uncount(holder, holder.usable)

    def reset(self, host: str) -> None:
        """The connection is gone, the holder may come back: its requests are free again."""
        holder = self._holders.get(host)
        if holder:
            holder.here = False
            for piece in list(holder.asked):
                self._unask(holder, piece)

    def refused(self, host: str, piece: int, *, forget: bool = True) -> None:
        """The holder could not give `piece`, or gave it wrong: do not ask it again for this one.

        With `forget` that ends when it says once more that it has it.
        """
        holder = self._holders.get(host)
        if holder is None:
            return
        self._unask(holder, piece)
        bit = 1 << piece
        if holder.usable & bit:
            holder.usable ^= bit
            self._uncount(holder, bit)
        if forget:
            holder.bits &= ~bit

    def unasked(self, host: str, piece: int) -> None:
        """The request came back unserved (busy): free again, for this holder too."""
        holder = self._holders.get(host)
        if holder:
            self._unask(holder, piece)

    def got(self, piece: int, source: str = "", now: float | None = None) -> list[str]:
        """Verified and stored; `source`: the holder that it came from, if any. Returns those still asked."""
        if self.imports:
            self.imports.ended(piece, now)
        bit = 1 << piece
        self._have |= bit
        if self._missing & bit:
            self._missing ^= bit
        asked = self._asked.pop(piece, ())
        for holder in asked:
            del holder.asked[piece]
        self._own &= ~bit
        if self._open & bit:
            self._open ^= bit
        if len(asked) < 2 and source:
            return []
        return [host for host, holder in self._holders.items() if holder in asked and host != source]

    def lost(self, piece: int) -> None:
        """What was here turned out bad."""
        self._have &= ~(1 << piece)
        self._reopen()

    def claimed(self, pieces: Iterable[int]) -> None:
        """This peer reads them from the origin; do not ask others for them."""
        self._own |= bitset.of(pieces)
        self._reopen()

    def unclaimed(self, pieces: Iterable[int]) -> None:
        self._own &= ~bitset.of(pieces)
        self._reopen()

    def want(self, pieces: int) -> None:
        """Extends the want-set."""
        self._wanted |= pieces
        self._reopen()

    # --- the choice -------------------------------------------------------------------------

    def outstanding(self, host: str) -> int:
        """Pieces asked of a holder and not yet here."""
        holder = self._holders.get(host)
        return len(holder.asked) if holder else 0

    @property
    def importing(self) -> int:
        """Pieces that are on their way from another zone, as this peer's share."""
        return self.imports.under_way if self.imports else 0

    def is_far(self, host: str) -> bool:
        return host in self._far

    def _zoned(self) -> Imports | None:
        return self.imports if self.imports and self.imports.known else None

    def _due_far(self, imports: Imports, now: float) -> dict[str, int]:
        """Zone -> what this peer is to ask of it now."""
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            imports.look(self._lacking(self.missing), now)
        if not (imports.nobody or imports.share(imports.host)):
            return {}
        return imports.wanted(self._lacking(self._open), now)

    def _lacking(self, pieces: int) -> dict[str, int]:
        return lacking([(h.zone, h.usable) for h in self._far.values() if h.here], self._tally.held(), pieces)

    def order(
        self, now: float = 0.0, able: Collection[str] | None = None, *, near: bool = True, far: bool = True
    ) -> Iterator[str]:
        """Holders worth one more request, in the order in which to try them; `pick` tells for what. `able`: those that
        can take one; None: all.

        Who has one of the rarest open pieces comes before who has others, idle ones before those
        that were asked already, and near ones keep far ones out; ties at random. Near the end come
        the holders of what somebody else was asked for. `near`, `far`: which of them can be asked now.
        """
        free = self._open
        nearby = free & self._tally.held()
        zoned = self._zoned()
        far = far and bool(self._far)
        if able is None:
            able = self._holders
        if far and free:
            yield from self._to_import(able, free ^ nearby, now)
        if nearby:
            if near:
                yield from self._by_rarity(able, nearby, far=False)
            if far and not zoned and not self._useful_nearby():
                # Whoever is near and has something cannot be reached now.
                yield from [host for host in self._far_of(able) if self._far[host].usable & free]
        elif far and free and not zoned:
            yield from self._by_rarity(able, free, far=True)
        else:
            yield from self._late(able, near=near, far=far and not zoned)

    def _far_of(self, able: Collection[str]) -> Collection[str]:
        return [host for host in self._far if host in able]

    def _to_import(self, able: Collection[str], unheld: int, now: float) -> list[str]:
        """Far holders of what this peer is to import. `unheld`: the open pieces that no near holder has."""
        imports, far = self._zoned(), self._far
        if imports is None:
            duty = self._duty(unheld) if unheld != self._open else 0
            return [host for host in self._far_of(able) if far[host].usable & duty] if duty else []
        due = self._due_far(imports, now)
        found = [h for h in self._far_of(able) if far[h].usable & due.get(far[h].zone, 0)] if due else []
        self._random.shuffle(found)
        return sorted(found, key=self.outstanding)

    def _by_rarity(self, able: Collection[str], among: int, *, far: bool) -> Iterator[str]:
        """Idle holders of the rarest of `among`, then other idle ones, then those that were asked."""
        free, rarest, get = self._open, self._tally.rarest(among), self._holders.get
        hosts = list(able)
        start = int(self._random.random() * len(hosts))
        second, third = [], []
        for host in hosts[start:] + hosts[:start]:
            holder = get(host)
            if holder is None or holder.far is not far:
                continue
            if not (useful := holder.usable & free):
                continue
            if holder.asked:
                third.append(host)
            elif useful & rarest:
                yield host
            else:
                second.append(host)
        yield from second
        yield from third

    def _late(self, able: Collection[str], *, near: bool, far: bool) -> list[str]:
        late = self._missing if self._asked else 0
        if not late or late.bit_count() > ENDGAME_PIECES:
            return []
        return [
            host
            for host, holder in self._holders.items()
            if holder.usable & late and (far if holder.far else near) and host in able
        ]

    def pick(self, host: str, most: int, now: float) -> Sequence[int]:
        """The pieces to ask `host` for next: a run of at most `most`, empty if it has nothing useful."""
        holder = self._holders.get(host)
        if holder is None:
            return ()
        free = holder.usable & self._open
        run: Sequence[int]
        imports = self._zoned() if holder.far else None
        if imports:
            due = free & self._due_far(imports, now).get(holder.zone, 0)
            run = (self._first(due),) if due else ()
            for piece in run:
                imports.began(piece, now, holder.zone)
        elif not free:
            run = self._again(holder, now)
        elif holder.far and self._useful_nearby():
            duty = free & self._duty(self._open & ~self._tally.held())
            run = (self._first(duty),) if duty else ()
        else:
            first = self._first(free)
            run = range(first, first + bitset.run_from(free, first, most))
        for piece in run:
            holder.asked[piece] = now
            self._asked.setdefault(piece, []).append(holder)
            self._open &= ~(1 << piece)
        return run

    def _first(self, free: int) -> int:
        for piece in self.urgent:
            if free >> piece & 1:
                return piece
        return bitset.any_of(self._tally.rarest(free), self._random)

    def _duty(self, unheld: int) -> int:
        """Which of the pieces that no near holder has this peer is to import."""
        outside = 0
        for holder in self._far.values():
            outside |= holder.usable
        outside &= unheld
        level = min(DUTIES, outside.bit_count() // BACKLOG)
        return outside & self._duties[level]

    def _useful_nearby(self) -> bool:
        free = self._open
        return any(h.usable & free for h in self._holders.values() if h.here and not h.far)

    def _again(self, holder: _Holder, now: float) -> range:
        if not self._asked:
            return range(0)
        missing = self.missing
        if missing.bit_count() > ENDGAME_PIECES:
            return range(0)
        for piece in bitset.members(holder.usable & missing & ~self._own):
            asked = self._asked.get(piece, ())
            if len(asked) != 1 or asked[0] is holder:
                continue
            if now - asked[0].asked[piece] >= ENDGAME_AFTER:
                return range(piece, piece + 1)
        return range(0)

    # --- bookkeeping ------------------------------------------------------------------------

    def _holder(self, host: str) -> _Holder:
        return self._holders.setdefault(host, _Holder())

    def _add(self, holder: _Holder, pieces: int) -> None:
        news = pieces ^ (pieces & holder.bits)
        if news:
            holder.bits |= news
            holder.usable |= news
            if not holder.far:
                self._tally.add(news)

    def _uncount(self, holder: _Holder, pieces: int) -> None:
        if not holder.far:
            self._tally.remove(pieces)

    def _unask(self, holder: _Holder, piece: int) -> None:
        if holder.asked.pop(piece, None) is None:
            return
        if self.imports and holder.far:
            self.imports.ended(piece)
        asked = self._asked[piece]
        asked.remove(holder)
        if not asked:
            del self._asked[piece]
            bit = 1 << piece
            if self._wanted & bit and not (self._have | self._own) & bit:
                self._open |= bit

    def _reopen(self) -> None:
        self._missing = self._wanted & ~self._have
        self._open = self._missing & ~self._own & ~bitset.of(self._asked)
