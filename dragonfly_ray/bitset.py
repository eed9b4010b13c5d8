"""Sets of piece numbers as Python integers: bit i is piece i.

A union or an intersection of thousands of pieces is one operation of a few hundred nanoseconds.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator


def full(count: int) -> int:
    """The set {0 … count-1}."""
    return (1 << count) - 1


def of(pieces: Iterable[int]) -> int:
    found = 0
    for piece in pieces:
        found |= 1 << piece
    return found


def among(pieces: Collection[int], count: int) -> int:
    """Those of `pieces` that are in {0 … count-1}: somebody else names them, and may name anything."""
    if len(pieces) == 1:
        (piece,) = pieces
        return 1 << piece if 0 <= piece < count else 0
    if pieces and not 0 <= min(pieces) <= max(pieces) < count:
        pieces = [piece for piece in pieces if 0 <= piece < count]
    return of(pieces)


def members(bits: int) -> Iterator[int]:
    """Ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def lowest(bits: int) -> int:
    """The smallest member; -1 of the empty set."""
    return (bits & -bits).bit_length() - 1


def any_of(bits: int, rng: random.Random) -> int:
    """A member, each with the same probability; -1 of the empty set."""
    rank = int(rng.random() * bits.bit_count())
    width, base = bits.bit_length(), 0
    while width > 64:  # halve it, and go on in the half that holds the member of this rank
        width >>= 1
        low = bits & ((1 << width) - 1)
        below = low.bit_count()
        if rank < below:
            bits = low
        else:
            rank -= below
            base += width
            bits >>= width
        width = bits.bit_length()
    for _ in range(rank):
        bits &= bits - 1
    return base + lowest(bits) if bits else -1


def run_from(bits: int, first: int, most: int) -> int:
    """How many consecutive members start at `first`, `most` at the most."""
    window = (bits >> first) & ((1 << most) - 1)
    return lowest(~window) if window != (1 << most) - 1 else most


def ranges(bits: int) -> str:
    """For people: `0-63,70`."""
    found, base = [], 0
    while bits:
        skipped = lowest(bits)
        base, bits = base + skipped, bits >> skipped
        length = lowest(~bits)
        found.append(f"{base}-{base + length - 1}" if length > 1 else f"{base}")
        base, bits = base + length, bits >> length
    return ",".join(found)


def to_bytes(bits: int, count: int) -> bytes:
    """A bitmap, piece 0 in the lowest bit of the first byte."""
    return bits.to_bytes((count + 7) // 8, "little")


def from_bytes(data: bytes, count: int) -> int:
    return int.from_bytes(data, "little") & full(count)
