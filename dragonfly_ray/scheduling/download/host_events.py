"""The hosts' side of a download: who is there, who is connected, what each says that it has."""

from __future__ import annotations

from collections.abc import Mapping

from dragonfly_ray.scheduling.download.effects import Close, ConnectionId, Effects, Report, Wake
from dragonfly_ray.scheduling.download.event_log import event
from dragonfly_ray.scheduling.download.parent_state import BAD_PIECES, NeighbourInfo
from dragonfly_ray.scheduling.download.parts import Claims, DownloadParts

UNKNOWN = NeighbourInfo()


class HostEvents(DownloadParts):
    @event
    def met(self, host: str, info: NeighbourInfo) -> None:
        """A neighbour is known, and what the scheduler says of it; or what it says of this host itself."""
        if host == self._host:
            self.picker.names(host, importer=info.importer)
            return
        if info.silent and not self._info(host).silent:  # what it said itself may have come before this
            self.picker.left(host)
            if self._haves.seeder:
                self._haves.seeder.left(host)
        self._infos[host] = info
        self._place(host)
        if not self._abroad(info):
            self.picker.names(host, importer=info.imports)

    def _info(self, host: str) -> NeighbourInfo:
        return self._infos.get(host, UNKNOWN)

    def _abroad(self, info: NeighbourInfo) -> bool:
        """It is in another zone."""
        return bool(self._zone and info.zone) and self._zone != info.zone

    def _far(self, host: str) -> bool:
        """Its bytes cross from another zone, and are for its importer to fetch. What a sole reader tells of, it tells
        of to this peer alone, until it has told everything: then it is a holder like others."""
        info = self._info(host)
        selective = info.sole and self.picker.holder_bits(host) != self.picker.everything
        return self._abroad(info) and not selective

    def _place(self, host: str) -> None:
        info, far = self._info(host), self._far(host)
        self.picker.meets(host, far=far, zone=info.zone, region=info.region)
        self.connections.moved(host, far=far)

    def _told_all(self, host: str) -> None:
        if self._info(host).sole and not self.picker.is_far(host) and self._far(host):
            self._place(host)

    @event
    def replaced(self, host: str) -> None:
        """Another process of the host takes the place of the one that was known."""
        self.connections.left(host)
        self.picker.reset(host)

    @event
    def connected(
        self, connection: ConnectionId, host: str, held: int, claims: Claims, now: float
    ) -> Effects:
        """`held`: what it has, as it says itself."""
        if self.connections.of(host) is not None:  # what it was asked for on another connection is free
            self.connections.closed(host)
            self.picker.reset(host)
        info = self._info(host)
        silent = info.silent
        far = self._far(host)
        self.connections.opened(connection, host, far=far)
        self.picker.joined(host, 0 if silent else held, far=far, zone=info.zone, region=info.region)
        self._told_all(host)
        effects = () if silent or not claims else self._claimed(host, claims)
        if self._haves.seeder:
            if not silent:  # it would pass nothing on
                self._haves.seeder.joined(host, self.picker.holder_bits(host), far=self._abroad(info))
            return effects
        return (*effects, *self._haves.tell(connection, self.picker.have))

    @event
    def disconnected(self, connection: ConnectionId, now: float) -> Effects:
        """It may come again."""
        parent = self.connections.get(connection)
        if parent is None:
            return ()
        self.connections.closed(parent.host)
        self.picker.reset(parent.host)
        if self._haves.seeder:
            self._haves.seeder.left(parent.host)
        return (Wake(),)

    @event
    def left(self, host: str) -> Effects:
        """It is gone."""
        return self._left(host)

    def _left(self, host: str) -> Effects:
        self.connections.left(host)
        self.picker.left(host)
        if self._haves.seeder:
            self._haves.seeder.left(host)
        return Close(host), Wake()

    @event
    def ban(self, host: str) -> Effects:
        return self._ban(host)

    def _ban(self, host: str) -> Effects:
        self._banned.add(host)
        return self._left(host)

    @event
    def broke_protocol(self, host: str) -> Effects:
        """It said what nobody who keeps to the protocol says: it is as good as many bad pieces."""
        self.report.news.bad += [host] * BAD_PIECES
        return Report(), *self._ban(host)

    @event
    def unreachable(self, host: str) -> Effects:
        self.report.unreachable(host)
        return (Report(),)

    # --- what they have -------------------------------------------------------------------

    @event
    def have(self, host: str, claims: Claims) -> Effects:
        """What a neighbour says that it has."""
        info = self._infos.get(host, UNKNOWN)
        if info.silent or host in self._banned:
            return ()
        self.picker.has(host, [index for index, _ in claims])
        if info.sole:
            self._told_all(host)
        if self._haves.seeder:
            self._haves.seeder.has(host, self.picker.holder_bits(host))
        return self._claimed(host, claims)

    @event
    def holds(self, host: str, pieces: int) -> None:
        """The same without digests."""
        self.picker.has(host, pieces)
        self._told_all(host)

    def hears(self, told: Mapping[str, int]) -> None:
        """The same of many hosts at once: all that each of them has told by now. Not recorded."""
        self.picker.hears(told)
        if self._haves.seeder:
            for host in self.connections.hosts():
                if host in told:
                    self._haves.seeder.has(host, told[host])

    def _claimed(self, host: str, claims: Claims) -> Effects:
        disputed = len(self.claims.disputed)
        misled = False
        for index, said in claims:
            if 0 <= index < self.picker.count:
                misled |= not self._claim(host, index, said)
        return (Report(),) if misled or len(self.claims.disputed) > disputed else ()

    def _claim(self, host: str, index: int, said: bytes) -> bool:
        """False: the record says otherwise, and nobody should ask it for that."""
        if self.claims.say(host, index, said):
            return True
        self._misled(host, index)
        return False

    def _misled(self, host: str, index: int) -> None:
        self.picker.refused(host, index)
        self.report.news.misled.append((host, index))
