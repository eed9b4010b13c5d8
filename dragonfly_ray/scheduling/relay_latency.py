"""How quickly those who read the origin pass on what they read.

A piece that a slow host reads is late for everybody else: it comes through that host's thin links
twice. So a slow host gets little to read while others read too, and nothing towards the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

FIRST = 4
"""So many pieces at a time for a slow host; for a quick one as many more as it has passed on."""
ALIKE = 1.5
"""Who takes so many times as long as the quick ones, or less, is as good as they are: equal hosts
differ, too."""
LEAST = 0.1
"""Seconds; differences below are those of reports, not of hosts."""
HURRY = 4.0
"""A slow host reads some pieces at a time only if it passes them on in this part of the time that is left."""
TRIAL = 2.0
"""And one at a time in this part: it may be quicker by now."""
JUDGE_EVERY = 0.1
"""Seconds for which the judgement of the quick ones holds."""
SAMPLE = 64
"""So many hosts are looked at for it."""
OTHERS = 0.5
"""Seconds after which others that asked for nothing do not count as readers."""
SMOOTHING = 0.3


@dataclass(slots=True)
class _Reader:
    waiting: dict[int, float] = field(default_factory=dict)
    """Pieces that it was given, and that nobody has from it yet -> when that was."""
    passed: int = 0
    takes: float = 0.0
    """Seconds from the one to the other, smoothed; 0: unknown."""

    def look(self, spread: int, now: float) -> None:
        for piece in [p for p in self.waiting if spread >> p & 1]:
            self.passed += 1
            self.took(now - self.waiting.pop(piece))

    def took(self, seconds: float) -> None:
        self.takes += (SMOOTHING if self.takes else 1.0) * (seconds - self.takes)

    def delay(self, now: float) -> float:
        """Seconds that it takes, as far as that is known; no less than the oldest piece is waiting."""
        return max(self.takes, now - next(iter(self.waiting.values()), now))


class RelayLatency:
    """Of one task. Sets of pieces are bitmaps, times are seconds of the caller's clock."""

    __slots__ = ("_judged", "_last", "_other", "_quick", "_readers", "_since", "spread")

    def __init__(self) -> None:
        self.spread = 0
        """The pieces of which there are two copies or more."""
        self._readers: dict[str, _Reader] = {}
        self._since = 0.0
        self._last = self._other = ("", float("-inf"))
        """Who was given something last, and who last before that host."""
        self._judged, self._quick = float("-inf"), 0.0

    def given(self, host: str, pieces: list[int], now: float) -> None:
        """`host` reads these from the origin."""
        if not self._readers:
            self._since = now
        reader = self._readers.setdefault(host, _Reader())
        for piece in pieces:
            reader.waiting[piece] = now
        if self._last[0] != host:
            self._other = self._last
        self._last = (host, now)

    def back(self, host: str, pieces: Iterable[int], now: float) -> None:
        """It has not come to these in the time that others take: it is as slow as that at least."""
        if reader := self._readers.get(host):
            for piece in pieces:
                if (given := reader.waiting.pop(piece, None)) is not None:
                    reader.took(now - given)

    def left(self, host: str) -> None:
        """It is gone."""
        self._readers.pop(host, None)

    def room(self, host: str, unread: int, read: int, now: float) -> int:
        """How many pieces more `host` may be given, while `unread` are still to come and `read` are there."""
        reader = self._readers.get(host)
        if reader is None:
            return unread
        reader.look(self.spread, now)
        if now - self._by_another(host) > OTHERS:
            return unread
        usual = self.usual(now)
        delay = reader.delay(now)
        if not usual or (delay <= ALIKE * max(LEAST, usual) and not reader.takes):
            return unread  # nothing is known that speaks against it
        if delay <= ALIKE * max(LEAST, usual):
            return FIRST + reader.passed - len(reader.waiting)
        left = (now - self._since) * unread / max(1, read)
        if reader.takes and delay > left / HURRY:
            # One now and then, or what it was like once would be held against it for good.
            return int(delay <= left / TRIAL and not reader.waiting)
        return FIRST - len(reader.waiting)

    def _by_another(self, host: str) -> float:
        """When somebody else was given something."""
        return self._other[1] if self._last[0] == host else self._last[1]

    def usual(self, now: float) -> float:
        """Seconds that the quickest quarter takes, at most; 0: unknown."""
        if now - self._judged >= JUDGE_EVERY:
            self._judged = now
            each = sorted(r.takes for r in itertools.islice(self._readers.values(), SAMPLE) if r.takes)
            self._quick = each[len(each) // 4] if each else 0.0
        return self._quick
