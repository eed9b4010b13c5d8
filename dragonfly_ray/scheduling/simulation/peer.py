"""A simulated peer: the real picker and announcer, with a modelled link and a modelled disk behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dragonfly_ray import messages as m
from dragonfly_ray.model import Host
from dragonfly_ray.scheduling.download.lease_queue import LeaseLimits, LeaseQueue
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.scheduling.simulation.network import Clock, Line, Zone
from dragonfly_ray.scheduling.simulation.scenario import Link, Scenario
from dragonfly_ray.scheduling.simulation.scheduler import Scheduler, digest_of
from dragonfly_ray.scheduling.zones import region_of


class World(Protocol):
    """What peers share; `Simulation` says what each is."""

    scenario: Scenario
    clock: Clock
    scheduler: Scheduler
    origin: Line | None
    home: Zone | None
    """Where the origin is; None: outside of all zones."""
    from_origin: int
    peers: dict[str, Peer]
    hungry: dict[Peer, None]
    listening: dict[Peer, None]
    talkative: dict[Peer, None]

    def completed(self, peer: Peer, now: float) -> None: ...


class Peer:
    """One host. It asks for up to so many pieces at a time, and sends to so many others at a time."""

    def __init__(
        self, world: World, host: Host, link: Link, zone: Zone, picker: Picker, *, target: bool = True
    ) -> None:
        self.world = world
        self.host = host
        self.id = host.id
        self.zone = zone
        self.picker = picker
        self.target = target
        self.alive = True
        self.joined_at = 0.0
        self.complete_at: float | None = None
        self.up, self.down = Line(link.up), Line(link.down)
        self.parents: dict[str, Peer] = {}
        self.children: dict[str, Peer] = {}
        """Neighbours that are connected to this peer."""
        self.announcer: SuperSeeder | None = None
        self.reader: Reader | None = None
        self.bytes_origin = self.bytes_peers = self.bytes_far = 0
        self._crossing: dict[int, str] = {}
        """Pieces that are on their way from another zone -> their senders."""
        self._sending = 0
        self._queue: deque[tuple[Peer, int]] = deque()
        self._capacity = world.scenario.uploads + world.scenario.queue
        self._news = 0
        self._got: list[int] = []
        self._interval = 0.1

    # --- from the scheduler -----------------------------------------------------------------

    def delivered(self, message: m.Deliver, now: float) -> None:
        self._interval = message.interval
        if message.may_claim:
            self.reader = Reader(self, now)
            self.reader.leased(message.lease, now)
        self.picker.names(self.id, importer=message.importer)
        for neighbour in message.neighbours:
            self.meet(neighbour)
        self.world.clock.at(now + self._interval, self._report_due)
        self.world.hungry[self] = None
        self.world.listening[self] = None

    def news(self, message: m.News, now: float) -> None:
        for host in (*message.left, *message.banned):
            self.picker.left(host)
            self.lost_sender(host)
            self.parents.pop(host, None)
            if self.announcer:
                self.announcer.left(host)
        for neighbour in message.joined:
            self.meet(neighbour)
        if self.reader and message.revoked:
            self.reader.revoked(message.revoked, now)
        if not self.picker.done:
            self.world.hungry[self] = None

    def meet(self, neighbour: m.Neighbour) -> None:
        """Connects to a neighbour: each learns what the other has, and tells it what is new."""
        host = neighbour.host.id
        other = self.world.peers[host]
        if other.zone is self.zone:
            self.picker.names(host, importer=neighbour.importer and other.alive)
        if host == self.id:
            return
        if host in self.parents or not other.alive or self.picker.done:
            return
        self.parents[host] = other
        other.children[self.id] = self
        # What a sole reader tells of, it tells of to this peer alone: then it is for this peer to fetch.
        far = other.zone is not self.zone and not neighbour.sole
        self.picker.joined(
            host, other.greet(self), far=far, zone=other.zone.name, region=region_of(other.host.location)
        )

    def greet(self, child: Peer) -> int:
        """What a neighbour is told on its connection."""
        if self.announcer is None:
            return self.picker.have
        self.announcer.joined(child.id, child.picker.have, far=child.zone is not self.zone)
        return 0

    def hear(self, told: Mapping[str, int]) -> None:
        """The news of all peers that have some: what neighbours tell."""
        self.picker.hears(told)
        if self.announcer:
            for host in self.parents:
                if host in told:
                    self.announcer.has(host, told[host])

    def told(self, host: str, pieces: int, now: float) -> None:
        """What a neighbour tells this peer alone."""
        self.picker.has(host, pieces)
        self.ask(now)

    # --- receiving --------------------------------------------------------------------------

    def ask(self, now: float) -> None:
        """Asks until enough is under way, or nobody has anything useful and room to send it.

        That a holder answers BUSY, and the next is asked, takes no time: a message takes a small
        part of what a piece does.
        """
        picker, peers, most = self.picker, self.world.peers, self.world.scenario.requests
        while True:
            # What comes from other zones has a window of its own: it is late with a thin link.
            far, near = len(self._crossing) < most, picker.requests - len(self._crossing) < most
            if not (far or near):
                return
            for host in picker.order(now):
                sender = peers[host]
                crosses = sender.zone is not self.zone
                if sender.busy or not (far if crosses else near):
                    continue
                run = picker.pick(host, 1, now)
                if run:
                    if crosses:
                        self._crossing[run[0]] = host
                    sender.serve(self, run[0], now)
                    break
            else:
                if not picker.done:
                    self.world.hungry[self] = None
                return

    def arrived(self, sender: Peer | None, piece: int, now: float) -> None:
        """A piece is here and verified. `sender`: None for the origin."""
        nbytes = self.world.scenario.piece_bytes
        if sender is None:
            self.bytes_origin += nbytes
        else:
            self.bytes_peers += nbytes
            if sender.zone is not self.zone:
                self.bytes_far += nbytes
        picker = self.picker
        self._crossing.pop(piece, None)
        if picker.have >> piece & 1:
            return
        picker.got(piece, now=now)
        self._got.append(piece)
        if self.announcer:
            self.announcer.fresh((piece,))
        else:
            self._news |= 1 << piece
            self.world.talkative[self] = None
        if picker.done:
            self._complete(now)
        else:
            self.ask(now)

    def take_news(self) -> int:
        """What is new here since it was told last."""
        news, self._news = self._news, 0
        return news

    def _complete(self, now: float) -> None:
        self.complete_at = now
        self._hang_up()
        self.report(now)
        self.world.completed(self, now)

    def lost_sender(self, host: str) -> None:
        """What was on its way from there does not come."""
        self._crossing = {piece: sender for piece, sender in self._crossing.items() if sender != host}

    # --- sending ----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """It answers BUSY: as many requests as it takes are under way or wait."""
        return self._sending + len(self._queue) >= self._capacity

    def serve(self, receiver: Peer, piece: int, now: float) -> None:
        if self._sending < self.world.scenario.uploads:
            self._send(receiver, piece, now)
        else:
            self._queue.append((receiver, piece))

    def _send(self, receiver: Peer, piece: int, now: float) -> None:
        self._sending += 1
        nbytes, clock = self.world.scenario.piece_bytes, self.world.clock
        begun = self.up.start(now, nbytes)
        sent = end = self.up.free
        end = max(end, self.zone.carry(receiver.zone, begun, nbytes))
        receiver.down.start(begun, nbytes)
        end = max(end, receiver.down.free)
        if end > sent:
            clock.at(sent, self._sent)
            clock.at(end, self._passed, receiver, piece)
        else:
            clock.at(end, self._sent_and_passed, receiver, piece)

    def _sent(self, now: float) -> None:
        self._sending -= 1
        while self._queue:
            receiver, piece = self._queue.popleft()
            if receiver.alive and self.alive:
                self._send(receiver, piece, now)
                return

    def _passed(self, now: float, receiver: Peer, piece: int) -> None:
        if self.alive and receiver.alive:
            if self.announcer:
                self.announcer.has(receiver.id, 1 << piece)
            receiver.arrived(self, piece, now)

    def _sent_and_passed(self, now: float, receiver: Peer, piece: int) -> None:
        self._sent(now)
        self._passed(now, receiver, piece)

    # --- the end of a host ------------------------------------------------------------------

    def die(self, now: float) -> None:
        """Without a word: all its connections break."""
        self.alive = False
        self._queue.clear()
        self.world.talkative.pop(self, None)
        self._hang_up()
        for child in list(self.children.values()):
            if child.alive:
                child.picker.reset(self.id)
                child.lost_sender(self.id)
                self.world.hungry[child] = None
                child.report(now, unreachable=(self.id,))

    def _hang_up(self) -> None:
        """Its own connections, as a child."""
        self.world.hungry.pop(self, None)
        self.world.listening.pop(self, None)
        for parent in self.parents.values():
            parent.children.pop(self.id, None)

    # --- reports ----------------------------------------------------------------------------

    def _report_due(self, now: float) -> None:
        if self.alive and self.complete_at is None:
            self.report(now)
            self.world.clock.at(now + self._interval, self._report_due)

    def report(self, now: float, unreachable: tuple[str, ...] = ()) -> None:
        got, self._got = self._got, []
        reader = self.reader
        fetched, released = reader.news() if reader else ([], [])
        reply = self.world.scheduler.report(
            m.Report(
                host_id=self.id,
                task_id=self.world.scheduler.task.id,
                got=tuple(got),
                origin=tuple((piece, digest_of(piece)) for piece in fetched),
                bytes_origin=self.bytes_origin + (reader.partial(now) if reader else 0),
                bytes_peers=self.bytes_peers,
                released=tuple(released),
                claim=reader.leases.appetite(now) if reader and self.complete_at is None else 0,
                rate=reader.leases.rate if reader else 0.0,
                unreachable=unreachable,
            ),
            now,
        )
        self._interval = reply.interval
        if reader:
            reader.replied(reply, now)


@dataclass(eq=False, slots=True)
class _Read:
    """A worker's run of pieces. `piece`: what is coming, from `begun` to `end`."""

    pieces: range
    started: float
    piece: int
    begun: float = 0.0
    end: float = 0.0


class Reader:
    """Reads leased pieces from the origin, on a few modelled connections."""

    def __init__(self, peer: Peer, now: float) -> None:
        self._peer = peer
        settings = peer.world.scheduler.core.settings.origin
        limits = LeaseLimits(settings.connections, settings.lease_seconds, peer.world.scenario.piece_bytes)
        self.leases = LeaseQueue(peer.picker, limits)
        self._reads: dict[int, _Read] = {}
        """By worker."""
        self._released: list[int] = []
        self._fetched: list[int] = []
        self._looks = False
        """It will look again."""

    def leased(self, pieces: Iterable[int], now: float) -> None:
        self.leases.leased([p for p in pieces if not self._peer.picker.have >> p & 1], now)
        self._work(now)

    def revoked(self, pieces: Iterable[int], now: float) -> None:
        self.leases.revoked(pieces)
        for worker in [w for w in self._reads if self.leases.unwanted(w)]:
            self._end(worker, now)
        self._work(now)

    def replied(self, reply: m.ReportReply, now: float) -> None:
        self._released += self.leases.replied(reply.left, reply.usual, now)
        self.leased(reply.lease, now)

    def news(self) -> tuple[list[int], list[int]]:
        """The pieces read, and those given back, since they were last told."""
        fetched, self._fetched = self._fetched, []
        released, self._released = self._released, []
        return fetched, released

    def partial(self, now: float) -> int:
        """Bytes of pieces that are on the way: an origin serves its connections side by side."""
        nbytes = self._peer.world.scenario.piece_bytes
        return sum(
            int(nbytes * (now - r.begun) / (r.end - r.begun)) for r in self._reads.values() if r.end > r.begun
        )

    def _work(self, now: float) -> None:
        """Each idle worker begins with what there is for it."""
        for worker in range(self.leases.workers):
            if worker not in self._reads and (run := self.leases.next_run(worker, now)):
                self._reads[worker] = read = _Read(run, now, run.start)
                self._begin(worker, read, now)
        if not self._looks and (pause := self.leases.pause(now)) is not None:
            self._looks = True
            self._peer.world.clock.at(now + pause, self._look)

    def _look(self, now: float) -> None:
        self._looks = False
        if self._peer.alive and self._peer.complete_at is None:
            self._work(now)

    def _begin(self, worker: int, read: _Read, now: float) -> None:
        peer, nbytes = self._peer, self._peer.world.scenario.piece_bytes
        begun = peer.down.start(now, nbytes)
        read.begun, read.end = now, peer.down.free
        if origin := peer.world.origin:
            origin.start(begun, nbytes)
            read.end = max(read.end, origin.free)
        if home := peer.world.home:
            read.end = max(read.end, home.carry(peer.zone, begun, nbytes))
        peer.world.clock.at(read.end, self._read, worker, read)

    def _end(self, worker: int, now: float) -> bool:
        read = self._reads.pop(worker)
        return self.leases.ended(worker, range(read.piece, read.pieces.stop))

    def _read(self, now: float, worker: int, read: _Read) -> None:
        peer = self._peer
        if not peer.alive or self._reads.get(worker) is not read:
            return  # or somebody else reads it now
        piece = read.piece
        read.piece += 1
        self._fetched.append(piece)
        peer.world.from_origin += 1
        self.leases.read()
        peer.arrived(None, piece, now)
        if read.piece < read.pieces.stop:
            self._begin(worker, read, now)
        else:
            seconds = now - read.started
            self.leases.measured(len(read.pieces) * peer.world.scenario.piece_bytes, seconds, seconds)
            self._end(worker, now)
            self._work(now)
        if peer.complete_at is None:
            peer.report(now)
