"""Which connection is whose, what is due on each, and how fast each host gives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, KeysView

from dragonfly_ray.scheduling.download.effects import ConnectionId
from dragonfly_ray.scheduling.download.parent_state import (
    OriginConcurrency,
    ParentState,
    RequestLimits,
    Window,
)
from dragonfly_ray.scheduling.stragglers import too_slow, usual


class Connections:
    """One of each host counts, the newest. What a host has shown of its pace outlives them."""

    def __init__(self) -> None:
        self._parents: dict[ConnectionId, ParentState] = {}
        self._current: dict[str, ConnectionId] = {}
        self._windows = Window(), Window()
        """Of near hosts, and of those that are far."""
        self._paces: dict[str, OriginConcurrency] = {}

    def get(self, connection: ConnectionId) -> ParentState | None:
        return self._parents.get(connection)

    def of(self, host: str) -> ConnectionId | None:
        return self._current.get(host)

    def hosts(self) -> KeysView[str]:
        return self._current.keys()

    def items(self) -> Iterable[tuple[ConnectionId, ParentState]]:
        return self._parents.items()

    def parents(self) -> Iterable[ParentState]:
        return self._parents.values()

    def room(self, limits: RequestLimits) -> tuple[bool, bool]:
        """Whether more may be asked of near hosts, and of far ones."""
        if not (most := limits.together):
            return True, True
        near, far = self._windows
        return near.due < most, far.due < most

    # --- events -----------------------------------------------------------------------------

    def opened(self, connection: ConnectionId, host: str, *, far: bool) -> ParentState:
        parent = self._parents[connection] = ParentState(host, self._windows[far])
        self._current[host] = connection
        return parent

    def closed(self, host: str) -> None:
        """What was due on it will not come."""
        connection = self._current.pop(host, None)
        if connection is not None:
            parent = self._parents.pop(connection)
            parent.released(parent.due)

    def left(self, host: str) -> None:
        """With what it has shown: if it comes again, it is another process."""
        self.closed(host)
        self._paces.pop(host, None)

    def moved(self, host: str, *, far: bool) -> None:
        if (connection := self._current.get(host)) is not None:
            self._parents[connection].moves(self._windows[far])

    def answered(self, parent: ParentState, rate: float, now: float) -> None:
        """A piece came from it, at `rate` bytes a second; 0: unknown."""
        pace = self._paces.get(parent.host)
        if pace is None:
            pace = self._paces[parent.host] = OriginConcurrency()
        pace.piece(parent.answered(now), rate)

    # --- questions --------------------------------------------------------------------------

    def wanted(self, parent: ParentState, limits: RequestLimits, now: float) -> int:
        """How many pieces may be asked for on it now, in one request."""
        room = limits.due
        if (pace := self._paces.get(parent.host)) is not None:
            if not parent.due and pace.pauses.left(now):
                return 0
            room = pace.window(room)
        return min(limits.pieces, room - parent.due, parent.window.room(limits))

    def paused(self, host: str, now: float) -> float:
        """Seconds for which nothing is asked of it: it was too slow."""
        pace = self._paces.get(host)
        return pace.pauses.left(now) if pace else 0.0

    def too_slow(
        self,
        connection: ConnectionId,
        having: Collection[str],
        rate: float,
        left: float,
        waited_for: bool,
        now: float,
    ) -> bool:
        """See `DownloadState.too_slow`; `having`: the hosts that have the piece, too."""
        parent = self._parents[connection]
        parent.live_rate = rate
        others = [each for key, each in self._parents.items() if key != connection]
        elsewhere = any(p.host in having and not self.paused(p.host, now) for p in others)
        usually = usual(p.live_rate or self._rate(p.host) for p in others)
        if not too_slow(rate, left, usually, elsewhere=elsewhere, waited_for=waited_for):
            return False
        self._paces.setdefault(parent.host, OriginConcurrency()).too_slow(rate, now)
        return True

    def _rate(self, host: str) -> float:
        pace = self._paces.get(host)
        return pace.rate if pace else 0.0

    # --- tests ------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raises `AssertionError` where the state contradicts itself."""
        assert {c: p.host for c, p in self._parents.items()} == {c: h for h, c in self._current.items()}
        for number, window in enumerate(self._windows):
            due = sum(p.due for p in self._parents.values() if p.window is window)
            assert window.due == due, f"{window.due} pieces are due, and {due} on all connections ({number})"
        for parent in self._parents.values():
            assert parent.due >= 0, "more answers than requests"
