"""How long whoever holds leases may wait for the origin's answers to begin, next to what others wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dragonfly_ray import bitset

TIMES = 4.0
"""So many times what the quick hosts wait is no failure yet."""
HEARD_S = 2.0
"""Whoever has not reported for so long is not known to wait any more."""
SLOW_S = 1.0
"""Answers that begin after longer than this are worth to be asked for much at once."""


@dataclass(slots=True)
class _Waiting:
    seconds: float
    """That its oldest request had waited, when it said so."""
    usual: float
    """Seconds that its answers take to begin; 0: unknown."""
    heard: float


class LeaseTimeouts:
    """Of one task. Sets of pieces are bitmaps, times are seconds of the caller's clock.

    Where nobody knows how long answers take, all have the whole time-out. Where others are quicker, a wait is as
    suspicious as a stall; but what has been waited for in vain is waited for twice as long the next time: it may
    be the piece that is slow, and not the host.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        """Seconds: no wait is longer."""
        self._of: dict[str, _Waiting] = {}
        self._in_vain: Counter[int] = Counter()
        """Piece -> how often it was waited for in vain."""

    def told(self, host: str, seconds: float, usual: float, now: float) -> None:
        """What a host says. `seconds`: 0 where no request of it waits."""
        self._of[host] = _Waiting(seconds, usual, now)

    def left(self, host: str) -> None:
        self._of.pop(host, None)

    @property
    def usual(self) -> float:
        """Seconds that the quickest quarter waits, at most; 0: unknown."""
        known = sorted(each.usual for each in self._of.values() if each.usual)
        return known[len(known) // 4] if known else 0.0

    @property
    def slow(self) -> bool:
        """Whether all answers begin late."""
        return self.usual > SLOW_S

    def bears(self, host: str, pieces: int, least: float, now: float) -> bool:
        """Whether a host that has had no byte for `least` seconds may wait on: it says that it waits for an answer,
        and not for longer than is usual."""
        found = self._of.get(host)
        if found is None or not found.seconds or now - found.heard > HEARD_S:
            return False
        return found.seconds + now - found.heard <= self._limit(pieces, least)

    def tried(self, piece: int, seconds: float, least: float) -> bool:
        """Whether one that was waited for in vain gets another wait, longer than `seconds`."""
        often = self._often(piece)
        return often > 0 and seconds <= min(self.most, least * 2.0**often)

    def in_vain(self, pieces: int) -> None:
        """The wait for these was ended."""
        self._in_vain.update(bitset.members(pieces))

    def done(self, pieces: int) -> None:
        """Somebody has them."""
        for piece in bitset.members(pieces):
            self._in_vain.pop(piece, None)

    def _limit(self, pieces: int, least: float) -> float:
        usual = self.usual
        if not usual:
            return self.most
        return min(self.most, max(least * 2.0 ** self._often(pieces), TIMES * usual))

    def _often(self, pieces: int) -> int:
        return min(30, max((n for p, n in self._in_vain.items() if pieces >> p & 1), default=0))
