"""One connection to a parent: what is under way on it, how fast it gives, how much may be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dragonfly_ray.scheduling.stragglers import Pauses
from dragonfly_ray.scheduling.zones import region_of

BAD_PIECES = 2
"""From one parent, before its child is heard; so many, too, before that does not ask it any more."""
LEAST_REQUESTS = 256
"""Of which all content consists at least, so that no piece waits long behind others."""
SMOOTHING = 0.3
IN_FLIGHT_S = 0.3
"""Of what a parent gives: no more is asked of it at once, or the newest pieces wait behind the others."""

REFRESH_S = 5.0
"""Without anything to ask for, after which a neighbour is asked again what it has: nobody tells of what it has lost."""
ENDGAME_LOOK_S = 0.25
"""Until whoever waits for requests elsewhere looks whether they may be made twice."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """`pieces`: of one request. `pipeline`: requests on one connection at once. `together`: pieces that may be due at
    once from all near hosts, and as many from those that are far; 0: no limit but that of each connection."""

    pieces: int = 1
    pipeline: int = 2
    together: int = 0

    @classmethod
    def of(cls, size: int, leaf: int, request_bytes: int, pipeline: int) -> RequestLimits:
        """For content of `size` bytes in pieces of `leaf`, and requests of at most `request_bytes`."""
        return cls(max(1, min(request_bytes, size // LEAST_REQUESTS) // leaf), pipeline)

    @property
    def due(self) -> int:
        """Pieces that may be due at once on one connection."""
        return self.pieces * self.pipeline


@dataclass(frozen=True, slots=True)
class NeighbourInfo:
    """What the scheduler says of a neighbour. The fields are those of `messages.Neighbour` and its host."""

    zone: str = ""
    sole: bool = False
    importer: bool = False
    complete: bool = False
    silent: bool = False
    """It is fed and feeds nobody; what it said before counts for nothing."""
    location: str = ""

    @property
    def region(self) -> str:
        return region_of(self.location)

    @property
    def imports(self) -> bool:
        """It brings pieces into its zone, and has some to bring."""
        return self.importer and not (self.complete or self.silent)


@dataclass(slots=True, eq=False)
class OriginConcurrency:
    """How fast a host gives; it outlives a connection."""

    seconds: float = 0.0
    """For a piece, smoothed; 0: unknown."""
    rate: float = 0.0
    """Bytes a second of the last pieces, smoothed; 0: unknown."""
    pauses: Pauses = field(default_factory=Pauses)

    def piece(self, seconds: float, rate: float) -> None:
        """One came as it should, `seconds` after the one before."""
        share = SMOOTHING if self.seconds else 1.0
        self.seconds += share * (seconds - self.seconds)
        if rate:
            self.rate += share * (rate - self.rate)
        self.pauses.end()

    def too_slow(self, rate: float, now: float) -> None:
        self.rate = rate
        self.pauses.begin(now)

    def window(self, most: int) -> int:
        """Pieces that may be due at once, of at most `most`."""
        return most if self.seconds * most <= IN_FLIGHT_S else max(1, int(IN_FLIGHT_S / self.seconds))


@dataclass(slots=True)
class Window:
    """Of all connections to near hosts, or to far ones: a thin link between zones makes these late, and they keep
    nobody from asking nearby."""

    due: int = 0

    def room(self, limits: RequestLimits) -> int:
        """Pieces that may be asked for now."""
        return limits.together - self.due if limits.together else limits.due


@dataclass(slots=True, eq=False)
class ParentState:
    host: str
    window: Window
    told: int = 0
    """The pieces that it knows to be here."""
    due: int = 0
    """Pieces asked for on this connection whose answer is still to come."""
    since: float = 0.0
    """When the last answer came, or the first of what is due was asked for."""
    live_rate: float = 0.0
    """Bytes a second of the piece that is coming, once that is measured; 0: it is not."""

    def requested(self, count: int, now: float) -> None:
        if not self.due:
            self.since = now
        self.due += count
        self.window.due += count

    def released(self, count: int) -> None:
        """So many of the due pieces will not come any more."""
        self.due -= count
        self.window.due -= count

    def moves(self, window: Window) -> None:
        """It counts to another window from now on."""
        self.window.due -= self.due
        self.window = window
        window.due += self.due

    def answered(self, now: float) -> float:
        """One of the due pieces came; the seconds that it took."""
        self.released(1)
        seconds, self.since = now - self.since, now
        self.live_rate = 0.0
        return seconds
