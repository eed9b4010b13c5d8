"""How many holders each piece has, kept for all pieces at once.

Vertical counters: bit p of slice k is bit k of the count of piece p. Counting a whole bitmap in is
a ripple of a few operations on big integers, however many pieces it has, and so is finding the
rarest of a set.
"""

from __future__ import annotations


class Rarity:
    """Counts from zero up. What is taken out must have been put in."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: list[int] = []

    def add(self, pieces: int, weight: int = 0) -> None:
        """2**`weight` holders more for each of `pieces`."""
        slices = self._slices
        if not pieces:
            return
        for k in range(weight, len(slices)):
            ones = slices[k]
            slices[k] = ones ^ pieces
            pieces &= ones
            if not pieces:
                return
        slices += [0] * (weight - len(slices))
        slices.append(pieces)

    def remove(self, pieces: int) -> None:
        """One holder less for each of `pieces`."""
        slices = self._slices
        for k, ones in enumerate(slices):
            # x ^ (x & y) is x & ~y; an inverted big integer costs several times as much.
            slices[k] = ones ^ pieces
            pieces ^= pieces & ones
            if not pieces:
                break
        while slices and not slices[-1]:
            slices.pop()

    def count(self, piece: int) -> int:
        """Holders of one piece."""
        return sum((ones >> piece & 1) << k for k, ones in enumerate(self._slices))

    def held(self) -> int:
        """The pieces that somebody has."""
        found = 0
        for ones in self._slices:
            found |= ones
        return found

    def several(self) -> int:
        """The pieces that two or more have."""
        found = 0
        for ones in self._slices[1:]:
            found |= ones
        return found

    def rarest(self, among: int) -> int:
        """Those of `among` that have the fewest holders; empty only if `among` is."""
        for ones in reversed(self._slices):
            among = among ^ (among & ones) or among
        return among
