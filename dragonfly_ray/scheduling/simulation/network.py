"""The modelled part of a simulation: links that pass a piece at a time, and the order of events.

Each direction of a link serves what passes it first come, first served, at its rate. A piece goes
through several of them at once (sender, zones, receiver) and is there when the last has passed it.
So a link that is shared is shared in turns, and one that waits for another is not held up by it.
"""

from __future__ import annotations

import heapq
from typing import Any, Protocol


class Line:
    """One direction of a link. `free`: when it has passed all that was put on it, in seconds."""

    __slots__ = ("_per_byte", "free")

    def __init__(self, rate: float) -> None:
        self._per_byte = 1.0 / rate
        self.free = 0.0

    def start(self, now: float, nbytes: int) -> float:
        """Puts bytes on it; when they begin to move."""
        begun = max(now, self.free)
        self.free = begun + nbytes * self._per_byte
        return begun


class Zone:
    """A zone's or a region's two lines to all others; None: wide enough for anything."""

    def __init__(self, name: str, rate: float | None, region: Zone | None = None) -> None:
        self.name = name
        self.region = region
        self.out = Line(rate) if rate else None
        self.into = Line(rate) if rate else None
        self.entered = 0
        """Bytes that came from others."""
        self._ways: dict[Zone, tuple[Line, ...]] = {}

    def carry(self, other: Zone, begun: float, nbytes: int) -> float:
        """Bytes go to a host of another zone, or of this one; when they have passed all lines between the two."""
        if other is self:
            return begun
        other.entered += nbytes
        if other.region and other.region is not self.region:
            other.region.entered += nbytes
        end = begun
        for line in self._way(other):
            line.start(begun, nbytes)
            end = max(end, line.free)
        return end

    def _way(self, other: Zone) -> tuple[Line, ...]:
        found = self._ways.get(other)
        if found is None:
            lines = [self.out, other.into]
            if self.region and other.region and self.region is not other.region:
                lines += [self.region.out, other.region.into]
            found = self._ways[other] = tuple(line for line in lines if line)
        return found


class Event(Protocol):
    def __call__(self, now: float, *arguments: Any) -> None: ...


class Clock:
    """Virtual time: events in the order of their time, then of their making."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Event, tuple[Any, ...]]] = []
        self._made = 0

    def at(self, when: float, event: Event, *arguments: Any) -> None:
        self._made += 1
        heapq.heappush(self._events, (when, self._made, event, arguments))

    def run_until(self, when: float) -> None:
        """All events up to `when`, those too that they make."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= when:
            self.now, _, event, arguments = pop(events)
            event(self.now, *arguments)
        self.now = when
