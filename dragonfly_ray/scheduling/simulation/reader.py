"""The origin's modelled connections of one simulated peer; what is read on them the engine decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits
from dragonfly_ray.scheduling.download.lease_queue import LeaseQueue
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.simulation.network import Clock, Line, Zone
from dragonfly_ray.scheduling.simulation.scenario import Scenario
from dragonfly_ray.scheduling.simulation.scheduler import Scheduler, digest_of


class Origin(Protocol):
    """Where all read, and what they share."""

    scenario: Scenario
    clock: Clock
    scheduler: Scheduler
    origin: Line | None
    home: Zone | None
    """Where the origin is; None: outside of all zones."""
    from_origin: int
    origin_failures: int


class Owner(Protocol):
    """The peer that reads."""

    id: str
    alive: bool
    zone: Zone
    down: Line
    bytes_origin: int

    @property
    def world(self) -> Origin: ...

    def digest(self, piece: int) -> bytes: ...

    def settle(self, record: Iterable[tuple[int, bytes]], now: float) -> None: ...

    def keep(self, parent: str, piece: int, now: float) -> None: ...

    def report_soon(self, now: float) -> None: ...


ANSWER_S = 0.005
"""Until an origin that is down has refused a request."""


@dataclass(eq=False, slots=True)
class _Read:
    """A worker's run of pieces. `piece`: what is coming, from `begun` to `end`."""

    pieces: range
    started: float
    piece: int
    begun: float = 0.0
    end: float = 0.0


class Reader:
    """Reads leased pieces from the origin, with as many workers as a peer has threads for it."""

    def __init__(
        self, peer: Owner, state: DownloadState, not_before: float, connections: int, now: float
    ) -> None:
        self._peer = peer
        self._state = state
        scheduler = peer.world.scheduler
        limits = LeaseLimits.of(
            scheduler.task, peer.world.scenario.piece_bytes, scheduler.core.settings.origin
        )
        state.may_read(limits, True, now + not_before, connections)
        self._reads: dict[int, _Read] = {}
        """By worker."""
        self._looks = False
        """It will look again."""

    @property
    def _leases(self) -> LeaseQueue:
        assert self._state.leases is not None
        return self._state.leases

    def leased(self, pieces: Iterable[int], now: float) -> None:
        have = self._state.picker.have
        leased = tuple(pieces)
        here = tuple((p, self._peer.digest(p)) for p in leased if have >> p & 1)
        self._state.leased(leased, here, now)
        self._work(now)

    def revoked(self, pieces: Iterable[int], now: float) -> None:
        self._state.revoked(tuple(pieces))
        for worker in [w for w in self._reads if self._leases.unwanted(w)]:
            self._end(worker, now)
        self._work(now)

    def replied(self, reply: m.ReportReply, now: float) -> None:
        self._state.replied(reply.left, reply.usual, now)
        if reply.not_before or reply.connections:
            self._state.allowed(None, now + reply.not_before, reply.connections)
        if reply.lease:
            self.leased(reply.lease, now)

    def partial(self, now: float) -> int:
        """Bytes of pieces that are on the way: an origin serves its connections side by side."""
        nbytes = self._peer.world.scenario.piece_bytes
        return sum(
            int(nbytes * (now - r.begun) / (r.end - r.begun)) for r in self._reads.values() if r.end > r.begun
        )

    def _work(self, now: float) -> None:
        """Each idle worker begins with what there is for it."""
        for worker in range(self._leases.workers):
            if worker in self._reads:
                continue
            run, low = self._state.next_origin_run(worker, now, 0.0)
            if run is not None:
                self._reads[worker] = read = _Read(run, now, run.start)
                self._begin(worker, read, now)
            if low:
                self._peer.report_soon(now)
        if not self._looks and (pause := self._leases.pause(now)) is not None:
            self._looks = True
            self._peer.world.clock.at(now + pause, self._look)

    def _look(self, now: float) -> None:
        self._looks = False
        if self._peer.alive:
            self._work(now)

    def _begin(self, worker: int, read: _Read, now: float) -> None:
        peer, nbytes = self._peer, self._peer.world.scenario.piece_bytes
        if now < peer.world.scenario.origin_down:
            peer.world.clock.at(now + ANSWER_S, self._fails, worker, read)
            return
        begun = peer.down.start(now, nbytes)
        read.begun, read.end = now, peer.down.free
        if origin := peer.world.origin:
            origin.start(begun, nbytes)
            read.end = max(read.end, origin.free)
        if home := peer.world.home:
            read.end = max(read.end, home.carry(peer.zone, begun, nbytes))
        peer.world.clock.at(read.end, self._read, worker, read)

    def _fails(self, now: float, worker: int, read: _Read) -> None:
        peer = self._peer
        if not peer.alive or self._reads.get(worker) is not read:
            return
        peer.world.origin_failures += 1
        self._state.origin_failed(now)
        rest = tuple(range(read.piece, read.pieces.stop))
        self._end(worker, now)
        peer.world.scheduler.origin_failed(peer.id, rest, now)
        self._work(now)

    def _end(self, worker: int, now: float) -> None:
        read = self._reads.pop(worker)
        if self._state.origin_ended(worker, tuple(range(read.piece, read.pieces.stop))):
            self._peer.report_soon(now)

    def _read(self, now: float, worker: int, read: _Read) -> None:
        peer = self._peer
        if not peer.alive or self._reads.get(worker) is not read:
            return  # or somebody else reads it now
        piece = read.piece
        read.piece += 1
        peer.bytes_origin += peer.world.scenario.piece_bytes
        peer.world.from_origin += 1
        here = self._peer.digest(piece) if self._state.picker.have >> piece & 1 else b""
        differs = self._state.origin_read(piece, digest_of(piece), here)
        over = read.piece >= read.pieces.stop
        if over:
            seconds = now - read.started
            self._state.origin_measured(len(read.pieces) * peer.world.scenario.piece_bytes, seconds, seconds)
            self._end(worker, now)
        else:
            self._begin(worker, read, now)
        if differs:
            peer.settle([(piece, digest_of(piece))], now)
        peer.keep("", piece, now)
        if over:
            self._work(now)
