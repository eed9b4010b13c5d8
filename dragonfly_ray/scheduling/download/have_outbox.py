"""What is here and the neighbours have not been told yet."""

from __future__ import annotations

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.download.connections import Connections
from dragonfly_ray.scheduling.download.effects import ConnectionId, Tell
from dragonfly_ray.scheduling.download.parent_state import ParentState
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker


class HaveOutbox:
    """`seeder` says whom to tell of what, while this host alone reads the origin; without it all are told everything."""

    def __init__(self, picker: Picker, connections: Connections, seeder: SuperSeeder | None) -> None:
        self._picker = picker
        self._connections = connections
        self.seeder = seeder
        self.fresh = 0
        """Here, and not told of yet."""

    def shown(self, host: str) -> int:
        """The pieces that a child may ask for."""
        seeder = self.seeder
        if seeder and not seeder.over and not self._picker.done:
            return seeder.may_ask(host)
        return self._picker.have

    def lost(self, pieces: tuple[int, ...]) -> None:
        gone = bitset.of(pieces)
        self.fresh &= ~gone
        for parent in self._connections.parents():
            parent.told &= ~gone
        if self.seeder:
            for index in pieces:
                self.seeder.lost(index)

    def take(self) -> int:
        """What is new, for a caller that tells all of them the same. What is for some of them alone is left to `due`."""
        if self.seeder:
            return 0
        fresh, self.fresh = self.fresh, 0
        return fresh

    def due(self, now: float) -> tuple[Tell, ...]:
        """What they are to be told now."""
        fresh, self.fresh = self.fresh, 0
        found: list[Tell] = []
        if self.seeder:
            self.seeder.fresh(bitset.members(fresh))
            for host, pieces in self.seeder.due(now).items():
                if (connection := self._connections.of(host)) is not None:
                    found += self.tell(connection, pieces)
        elif fresh:
            for connection, parent in self._connections.items():
                found += self._tell(connection, parent, fresh)
        return tuple(found)

    def tell(self, connection: ConnectionId, pieces: int) -> tuple[Tell, ...]:
        """What of these was not told on it."""
        parent = self._connections.get(connection)
        return self._tell(connection, parent, pieces) if parent else ()

    def _tell(self, connection: ConnectionId, parent: ParentState, pieces: int) -> tuple[Tell, ...]:
        """What it has itself is no news to it."""
        known = parent.told | self._picker.holder_bits(parent.host)
        news = pieces & ~known
        if not news:
            return ()
        parent.told |= news
        last = not self._picker.everything & ~(known | news)
        return (Tell(connection, news, last),)
