"""When what comes from one holder is so slow, next to what others give, that it is asked of another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

WINDOW_S = 4.0
"""A rate is measured over so long: links are shared, and everybody pauses now and then."""
TIMES_SLOWER = 32
"""Holders of one swarm differ by more than ten times; so many times less than usual is no holder."""
USUAL_MOST = 4e6
"""Bytes a second; what others give counts as no more. Pieces that lay ready in the kernel seem to come at any rate."""
WORTH_S = 10.0
"""Only a piece that would take so much longer is worth to be begun again elsewhere."""
LONGEST_PIECE_S = 900.0
"""What takes longer than this does not keep a buffer that others wait for, even if nobody is known to be quicker."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 480.0
"""A holder that was too slow is asked for nothing for so long; twice as long each time."""


class Transfer:
    """One piece of `length` bytes on its way, since `now`."""

    __slots__ = ("_length", "_marks", "_moved", "_since")

    def __init__(self, length: int, now: float) -> None:
        self._length = length
        self._since = now
        self._moved = 0
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])
        """(when, bytes by then), from the beginning of the window on."""

    def moved(self, count: int, now: float) -> None:
        self._moved += count
        self._marks.append((now, self._moved))
        while len(self._marks) > 1 and now - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()

    def measured(self, now: float) -> bool:
        """Whether it has gone on for long enough to be judged."""
        return now - self._since >= WINDOW_S

    def rate(self, now: float) -> float:
        """Bytes a second, in the window."""
        at, moved = self._marks[0]
        return (self._moved - moved) / max(1e-6, now - at)

    def average(self, now: float) -> float:
        """Bytes a second, since its beginning."""
        return self._moved / max(1e-6, now - self._since)

    def left(self, now: float) -> float:
        """Seconds that it will take at this rate."""
        return (self._length - self._moved) / max(1e-9, self.rate(now))


def usual(rates: Iterable[float]) -> float:
    """What holders give, of the rates of some; 0: unknown."""
    known = sorted(rate for rate in rates if rate)
    return known[len(known) // 2] if known else 0.0


def too_slow(rate: float, left: float, others: float, *, elsewhere: bool, waited_for: bool) -> bool:
    """Whether to give up a measured transfer of `rate` bytes a second, with `left` seconds to go. `others`: what they
    usually give, 0: unknown. `elsewhere`: somebody else has the piece, too. `waited_for`: others wait for the buffer
    that it keeps."""
    if not (elsewhere or waited_for):
        return False
    if rate * TIMES_SLOWER < min(others, USUAL_MOST) and left > WORTH_S:
        return True
    return waited_for and left > LONGEST_PIECE_S


class Pauses:
    """For how long one holder is asked for nothing."""

    __slots__ = ("_next", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._next = FIRST_PAUSE_S

    def begin(self, now: float) -> None:
        """It was too slow."""
        self._until = now + self._next
        self._next = min(LONGEST_PAUSE_S, 2 * self._next)

    def end(self) -> None:
        """A piece came from it as it should."""
        self._next = FIRST_PAUSE_S

    def left(self, now: float) -> float:
        """Seconds."""
        return max(0.0, self._until - now)
