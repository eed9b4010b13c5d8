"""Piece digests claimed by neighbours; conflicts go to the scheduler's record.

No claim counts more than another, whichever came first: where two differ, that is a dispute
and no proof of anything, and the record settles it.
"""

from __future__ import annotations

from collections.abc import Mapping


class DigestClaims:
    """Of one task, changed under its lock. `known`: the digests of what is here already."""

    def __init__(self, known: Mapping[int, bytes] | None = None) -> None:
        self._first: dict[int, bytes] = dict(known or {})
        self._spoke: dict[str, int] = {}
        """host -> the pieces that it said something of."""
        self._other: dict[int, dict[str, bytes]] = {}
        """What was said that differs from the first word, or from the record once that is known."""
        self.settled: dict[int, bytes] = {}
        """What the record says."""
        self.disputed: set[int] = set()
        """Pieces of which different things are said, and the record has not been heard."""

    def say(self, host: str, index: int, digest: bytes) -> bool:
        """`host` says so, once more or anew. False: the record says otherwise."""
        first = self._first.setdefault(index, digest)
        if first == digest and index not in self._other and index not in self.settled:
            # As all have said so far: this happens for each piece and neighbour.
            self._spoke[host] = self._spoke.get(host, 0) | 1 << index
            return True
        if index not in self.settled and self.of(host, index) not in (None, digest):
            self.disputed.add(index)
        self._spoke[host] = self._spoke.get(host, 0) | 1 << index
        if digest != first:
            self._other.setdefault(index, {})[host] = digest
            if index not in self.settled:
                self.disputed.add(index)
        elif index in self._other:
            self._other[index].pop(host, None)
        return self.settled.get(index, digest) == digest

    def mine(self, index: int, digest: bytes) -> None:
        """What was read from the origin here."""
        first = self._first.setdefault(index, digest)
        if first != digest and index not in self.settled:
            self.disputed.add(index)

    def of(self, host: str, index: int) -> bytes | None:
        """What `host` said last of a piece."""
        if not self._spoke.get(host, 0) >> index & 1:
            return None
        return self._other.get(index, {}).get(host) or self._first.get(index)

    def keeps(self, host: str, index: int, digest: bytes) -> bool:
        """Whether `host` may say so now. Another word than before may be a better one: it was misled itself,
        and has mended that. It lies only if it turns away from what the record says.
        """
        return self.of(host, index) in (None, digest) or self.settled.get(index) in (None, digest)

    def likely(self, index: int) -> bytes | None:
        """The digest, as far as nobody denies it."""
        return None if index in self.disputed else self._first.get(index)

    def settle(self, index: int, digest: bytes) -> list[str]:
        """The record says so; those who said otherwise."""
        first, others = self._first.get(index), self._other.pop(index, {})
        said = {host: others.get(host, first) for host, pieces in self._spoke.items() if pieces >> index & 1}
        wrong = {host: word for host, word in said.items() if word is not None and word != digest}
        if wrong:
            self._other[index] = wrong
        self._first[index] = self.settled[index] = digest
        self.disputed.discard(index)
        return list(wrong)

    def forget(self, index: int) -> None:
        """Nothing that was said of this piece holds any more."""
        self._first.pop(index, None)
        self._other.pop(index, None)
        self.settled.pop(index, None)
        self.disputed.discard(index)
        for host in self._spoke:
            self._spoke[host] &= ~(1 << index)
