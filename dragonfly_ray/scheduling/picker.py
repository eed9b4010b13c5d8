"""The receiver's choice: which piece to ask of which holder.

Local rarest first with random ties, a run of consecutive pieces a request, and near the end the
same piece asked twice. It takes events and answers with runs; it holds no socket and no clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dragonfly_ray.scheduling import bits as bitset

ENDGAME_PIECES = 16
"""So few missing pieces may be asked for twice."""
ENDGAME_AFTER = 0.3
"""Seconds that a request may take before, near the end, somebody else is asked as well."""


@dataclass(slots=True)
class _Holder:
    bits: int = 0
    avoid: int = 0
    """Pieces that it once could not give, or gave wrong."""
    asked: dict[int, float] = field(default_factory=dict)


class Picker:
    """What one peer still wants of one task, and who has it.

    `order` makes it prefer pieces in that order (streaming), instead of the rarest.
    """

    def __init__(
        self, count: int, *, have: int = 0, wanted: int | None = None, seed: int | None = None
    ) -> None:
        self.count = count
        self.have = have
        self.wanted = bitset.full(count) if wanted is None else wanted
        self.urgent: list[int] = []
        self._asked: dict[int, int] = {}
        """Pieces under way -> at how many holders."""
        self._asked_bits = 0
        self._own = 0
        """Pieces that this peer reads from the origin itself."""
        self._holders: dict[str, _Holder] = {}
        self._rarity: list[int] = [bitset.full(count)]
        """rarity[n]: the pieces that n holders have."""
        self._counts = [0] * count
        self._random = random.Random(seed)

    @property
    def missing(self) -> int:
        """The set of wanted pieces that are not here."""
        return self.wanted & ~self.have

    @property
    def done(self) -> bool:
        return not self.missing

    def available(self) -> int:
        """The missing pieces that some holder has."""
        return self.missing & ~self._rarity[0]

    def holders(self) -> list[str]:
        return list(self._holders)

    def holder_bits(self, host: str) -> int:
        holder = self._holders.get(host)
        return holder.bits if holder else 0

    # --- events -----------------------------------------------------------------------------

    def joined(self, host: str, held: int) -> None:
        """A holder's bitmap arrived. It adds to what is known of it."""
        holder = self._holders.setdefault(host, _Holder())
        self._add(holder, held & ~holder.bits)

    def has(self, host: str, pieces: Iterable[int]) -> None:
        """News of a holder."""
        holder = self._holders.setdefault(host, _Holder())
        self._add(holder, bitset.of(p for p in pieces if 0 <= p < self.count) & ~holder.bits)

    def left(self, host: str) -> None:
        """The holder is gone: what it was asked for is free again."""
        self.reset(host)
        holder = self._holders.pop(host, None)
        if holder:
            for piece in bitset.members(holder.bits):
                self._move(piece, -1)

    def reset(self, host: str) -> None:
        """The connection is gone, the holder may come back: its requests are free again."""
        holder = self._holders.get(host)
        if holder:
            for piece in list(holder.asked):
                self._unask(holder, piece)

    def refused(self, host: str, piece: int, *, forget: bool = True) -> None:
        """The holder could not give `piece`, or gave it wrong: do not ask it again for this one."""
        holder = self._holders.get(host)
        if holder is None:
            return
        self._unask(holder, piece)
        if forget and holder.bits >> piece & 1:
            holder.bits &= ~(1 << piece)
            self._move(piece, -1)
        holder.avoid |= 1 << piece

    def unasked(self, host: str, piece: int) -> None:
        """The request came back unserved (busy): free again, for this holder too."""
        holder = self._holders.get(host)
        if holder:
            self._unask(holder, piece)

    def got(self, piece: int) -> None:
        """Verified and stored, wherever it came from."""
        self.have |= 1 << piece
        if piece in self._asked:
            for holder in self._holders.values():
                self._unask(holder, piece)
        self._own &= ~(1 << piece)

    def lost(self, piece: int) -> None:
        """What was here turned out bad."""
        self.have &= ~(1 << piece)

    def claimed(self, pieces: Iterable[int]) -> None:
        """This peer reads them from the origin; do not ask others for them."""
        self._own |= bitset.of(pieces)

    def unclaimed(self, pieces: Iterable[int]) -> None:
        self._own &= ~bitset.of(pieces)

    def want(self, pieces: int) -> None:
        """Extends the want-set."""
        self.wanted |= pieces

    # --- the choice -------------------------------------------------------------------------

    def outstanding(self, host: str) -> int:
        """Pieces asked of a holder and not yet here."""
        holder = self._holders.get(host)
        return len(holder.asked) if holder else 0

    def pick(self, host: str, most: int, now: float) -> Sequence[int]:
        """The pieces to ask `host` for next: a run of at most `most`, empty if it has nothing useful."""
        holder = self._holders.get(host)
        if holder is None:
            return ()
        useful = holder.bits & self.missing & ~holder.avoid & ~self._own
        free = useful & ~self._asked_bits
        if free:
            first = self._first(free)
            run = range(first, first + bitset.run_from(free, first, most))
        else:
            run = self._again(holder, useful, now)
        for piece in run:
            holder.asked[piece] = now
            self._asked[piece] = self._asked.get(piece, 0) + 1
            self._asked_bits |= 1 << piece
        return run

    def _first(self, free: int) -> int:
        for piece in self.urgent:
            if free >> piece & 1:
                return piece
        for rarity in self._rarity:
            among = free & rarity
            if among:
                return bitset.any_of(among, self._random)
        raise AssertionError("a piece that a holder has is in some rarity")

    def _again(self, holder: _Holder, useful: int, now: float) -> range:
        if not useful or self.missing.bit_count() > ENDGAME_PIECES:
            return range(0)
        for piece in bitset.members(useful):
            if piece in holder.asked or self._asked.get(piece, 0) > 1:
                continue
            since = min((h.asked[piece] for h in self._holders.values() if piece in h.asked), default=now)
            if now - since >= ENDGAME_AFTER:
                return range(piece, piece + 1)
        return range(0)

    # --- bookkeeping ------------------------------------------------------------------------

    def _add(self, holder: _Holder, news: int) -> None:
        holder.bits |= news
        holder.avoid &= ~news
        for piece in bitset.members(news):
            self._move(piece, 1)

    def _move(self, piece: int, step: int) -> None:
        bit, old = 1 << piece, self._counts[piece]
        self._counts[piece] = new = old + step
        while len(self._rarity) <= new:
            self._rarity.append(0)
        self._rarity[old] &= ~bit
        self._rarity[new] |= bit

    def _unask(self, holder: _Holder, piece: int) -> None:
        if holder.asked.pop(piece, None) is None:
            return
        left = self._asked[piece] - 1
        if left:
            self._asked[piece] = left
        else:
            del self._asked[piece]
            self._asked_bits &= ~(1 << piece)
