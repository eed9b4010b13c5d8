"""A simulated peer: the engine that runs in a cluster, on a modelled link, with a modelled disk behind."""

from __future__ import annotations

import functools
from array import array
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from itertools import compress
from operator import is_not, itemgetter
from typing import Literal, Protocol

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.model import DIGEST_SIZE, Host, root_digest
from dragonfly_ray.scheduling.download.effects import Cancel, Close, Complain, Effects, Report, Tell, Wake
from dragonfly_ray.scheduling.download.parent_state import REFRESH_S, NeighbourInfo
from dragonfly_ray.scheduling.download.parts import Claims
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.simulation.network import Line, Zone
from dragonfly_ray.scheduling.simulation.reader import Origin, Reader
from dragonfly_ray.scheduling.simulation.scenario import Link
from dragonfly_ray.scheduling.simulation.scheduler import digest_of


class World(Origin, Protocol):
    """What peers share; `Simulation` says what each is."""

    requests: int
    peers: dict[str, Peer]
    hungry: dict[Peer, None]
    listening: dict[Peer, None]
    talkative: dict[Peer, None]
    told: list[int]
    room: array[int]
    turn: int

    def completed(self, peer: Peer, now: float) -> None: ...


ANY = 1 << 30
"""Requests: more than there can be."""
FALSE = b"\xff" * DIGEST_SIZE
"""Of what liars have."""
_info = functools.cache(NeighbourInfo)
"""Millions of neighbours, of a few kinds."""


class Senders:
    """What a peer looks at of those that it is connected to, with one call for all of them: it does so for every piece."""

    def __init__(self, parents: Collection[Peer]) -> None:
        self._hosts = tuple(parent.id for parent in parents)
        numbers = [parent.number for parent in parents]
        # Of one number it would give a value alone.
        self._of = itemgetter(*numbers, *numbers[-1:]) if numbers else lambda each: ()
        self._heard: tuple[int, ...] = (0,) * (len(numbers) + bool(numbers))
        self._turn = 0

    def with_room(self, room: array[int]) -> list[str]:
        return list(compress(self._hosts, self._of(room)))

    def news(self, told: list[int], turn: int) -> dict[str, int]:
        """All that those have told who have told anything since the last time."""
        if turn == self._turn:
            return {}
        self._turn, before, self._heard = turn, self._heard, self._of(told)
        return dict(compress(zip(self._hosts, self._heard, strict=False), map(is_not, self._heard, before)))


class Peer:
    """One host. Events of its links are told to the engine, and what that wants is done. It sends to so many others at
    a time. A connection has the name of the host that it leads to: there is one, and it does not come back.
    """

    def __init__(
        self, world: World, host: Host, link: Link, zone: Zone, state: DownloadState, *, target: bool = True
    ) -> None:
        self.world = world
        self.host = host
        self.id = host.id
        self.zone = zone
        self.state = state
        self.target = target
        self.fault: Literal["", "lies", "damages"] = ""
        """Whether it has false bytes in all pieces and says so, or sends other bytes than it promises."""
        self.false_pieces = 0
        self._false: dict[int, bytes] = {}
        """Pieces that are here and not what the origin has -> their digests."""
        self.alive = True
        self.joined_at = 0.0
        self.complete_at: float | None = None
        self.up, self.down = Line(link.up), Line(link.down)
        self.parents: dict[str, Peer] = {}
        """Neighbours that this peer is connected to."""
        self.children: dict[str, Peer] = {}
        """Neighbours that are connected to this peer."""
        self.reader: Reader | None = None
        self.bytes_origin = self.bytes_peers = self.bytes_far = 0
        """All that came, also what was here by then."""
        self.number = len(world.room)
        s = world.scenario
        world.room.append(s.uploads + s.queue if s.admission == "late" else ANY)
        world.told.append(0)
        self._sending = 0
        self._queue: dict[Peer, deque[int]] = {}
        """What waits to be sent, by child."""
        self._interval = 0.1
        self._report_wanted = False
        self._quiet_since = 0.0
        self._senders = Senders(())

    # --- from the scheduler -----------------------------------------------------------------

    def delivered(self, message: m.Deliver, now: float) -> None:
        self._interval = message.interval
        if message.may_claim:
            self.reader = Reader(self, self.state, message.not_before, message.connections, now)
            self.reader.leased(message.lease, now)
        self.state.met(self.id, _info(importer=message.importer))
        for neighbour in message.neighbours:
            self.meet(neighbour, now)
        self.world.clock.at(now + self._interval, self._report_due)
        self.world.hungry[self] = None
        self.world.listening[self] = None

    def news(self, message: m.TaskUpdate, now: float) -> None:
        for host in message.left:
            self.carry_out(self.state.left(host), now)
        for host in message.banned:
            self.carry_out(self.state.ban(host), now)
        for neighbour in message.joined:
            self.meet(neighbour, now)
        if message.discard:
            self.state.forgotten(message.discard)
            self._drop(tuple(p for p in message.discard if self.state.picker.have >> p & 1), now)
        if message.record:
            self.settle(message.record, now)
        if self.reader and message.revoked:
            self.reader.revoked(message.revoked, now)
        if not self.state.done:
            self.world.hungry[self] = None

    def meet(self, neighbour: m.Neighbour, now: float) -> None:
        """Connects to a neighbour, which says what it has."""
        host = neighbour.host
        other = self.world.peers[host.id]
        importer = neighbour.importer and other.alive
        said = (host.idc, neighbour.sole, importer, neighbour.complete, neighbour.silent, host.location)
        self.state.met(host.id, _info(*said))
        if host.id in self.parents or host.id == self.id or not other.alive or self.state.done:
            return
        self.parents[host.id] = other
        self._senders = Senders(self.parents.values())
        other.children[self.id] = self
        self._connect(other, now)

    def _connect(self, parent: Peer, now: float) -> None:
        held = parent.state.shown(self.id)
        if parent.fault == "lies":
            held = bitset.full(self.world.scenario.pieces)
        self.carry_out(self.state.connected(parent.id, parent.id, held, parent.claims(held), now), now)

    # --- what neighbours say ----------------------------------------------------------------

    def hear(self) -> None:
        """What neighbours have told by this turn: looked at when it matters, which is not every turn."""
        if not self.world.scenario.doubtful and (
            news := self._senders.news(self.world.told, self.world.turn)
        ):
            self.state.hears(news)

    def hear_claims(self, told: Mapping[str, int], now: float) -> None:
        """The news of all peers that have some, where each says its digests."""
        for host, parent in list(self.parents.items()):
            if pieces := told.get(host, 0):
                self.carry_out(self.state.have(host, parent.claims(pieces)), now)

    def told(self, host: str, pieces: int, now: float) -> None:
        """What a neighbour tells this peer alone."""
        if self.world.scenario.doubtful:
            self.hear_claims({host: pieces}, now)
        else:
            self.state.holds(host, pieces)
        self.ask(now)

    # --- what may be false ------------------------------------------------------------------

    def claims(self, pieces: int) -> Claims:
        """What it says of its pieces; nothing where all know that it is true."""
        if not self.world.scenario.doubtful:
            return ()
        return tuple((piece, self.digest(piece)) for piece in bitset.members(pieces))

    def digest(self, piece: int) -> bytes:
        """What it says of one that it has."""
        return FALSE if self.fault == "lies" else self._false.get(piece, digest_of(piece))

    def sends(self, piece: int) -> bytes:
        """The digest of what it sends."""
        return FALSE if self.fault else self.digest(piece)

    def root(self, right: bytes) -> bytes:
        """Of all that is here. `right`: the origin's."""
        if not self._false:
            return right
        return root_digest([self.digest(piece) for piece in range(self.world.scenario.pieces)])

    def mend(self, record: bytes, now: float) -> None:
        """What is not as the record says is fetched again."""
        said = [record[i : i + DIGEST_SIZE] for i in range(0, len(record), DIGEST_SIZE)]
        self.settle([(i, digest) for i, digest in enumerate(said) if digest != self.digest(i)], now)

    def _look_again(self, now: float) -> None:
        """Neighbours of whom nothing is to be had are asked again what they have: nobody tells of what it has lost."""
        if self.state.picker.requests or self.state.picker.available():
            self._quiet_since = now
        elif now - self._quiet_since >= REFRESH_S:
            self._quiet_since = now
            for host, parent in list(self.parents.items()):
                self.carry_out(self.state.disconnected(host, now), now)
                self._connect(parent, now)

    def settle(self, record: Iterable[tuple[int, bytes]], now: float) -> None:
        """The record's digests of some pieces."""
        have = self.state.picker.have
        wrong, effects = self.state.settled(
            tuple((i, said, self.digest(i) if have >> i & 1 else b"") for i, said in record)
        )
        if wrong:
            self._drop(wrong, now)
        self.carry_out(effects, now)

    def _drop(self, pieces: tuple[int, ...], now: float) -> None:
        for piece in pieces:
            self._false.pop(piece, None)
        self.carry_out(self.state.lost(pieces), now)
        if self.complete_at is not None:
            self.complete_at = None
            self.world.listening[self] = None
            for parent in self.parents.values():
                parent.children[self.id] = self
            self._report_due(now)

    # --- receiving --------------------------------------------------------------------------

    def ask(self, now: float) -> None:
        """Asks until the engine wants no more, or whoever it would ask has no room to send.

        That a holder answers BUSY, and the next is asked, takes no time: a message takes a small
        part of what a piece does.
        """
        state, peers, world = self.state, self.world.peers, self.world
        while state.hungry:
            able = self._senders.with_room(world.room)
            if able or self.host.idc:  # who imports looks at the progress of others
                self.hear()
            for host in state.order(now, able) if able or self.host.idc else ():
                if run := state.next_request(host, now):
                    world.requests += 1
                    for piece in run:
                        peers[host].serve(self, piece, now)
                    break
            else:
                world.hungry[self] = None
                return

    def arrived(self, sender: Peer, piece: int, now: float) -> None:
        """A piece is here."""
        nbytes = self.world.scenario.piece_bytes
        self.bytes_peers += nbytes
        if sender.zone is not self.zone:
            self.bytes_far += nbytes
        said = found = b""
        if self.world.scenario.doubtful:
            said, found = sender.digest(piece), sender.sends(piece)
            self.false_pieces += found != digest_of(piece)
        verdict, effects = self.state.answered(sender.id, piece, said, found, 0.0, now)
        if effects:
            self.carry_out(effects, now)
        if verdict == "keep":
            if found and found != digest_of(piece):
                self._false[piece] = found
            self.keep(sender.id, piece, now)
        elif not self.state.done:
            self.ask(now)

    def keep(self, parent: str, piece: int, now: float) -> None:
        """A verified piece is stored. `parent`: whom it came from; empty: the origin."""
        if self.state.picker.have >> piece & 1:
            return
        effects = self.state.stored(piece, parent, self.world.scenario.piece_bytes, now)
        self.world.talkative[self] = None
        if effects:
            self.carry_out(effects, now)
        if self.state.done:
            self._complete(now)
        else:
            self.ask(now)

    def _complete(self, now: float) -> None:
        self.complete_at = now
        self._hang_up()
        self.report(now)
        self.world.completed(self, now)

    # --- what the engine wants --------------------------------------------------------------

    def carry_out(self, effects: Effects, now: float) -> None:
        for effect in effects:
            match effect:
                case Report():
                    self.report_soon(now)
                case Wake():
                    if self.alive and not self.state.done:
                        self.world.hungry[self] = None
                case Tell(host, pieces):
                    self.world.peers[str(host)].told(self.id, pieces, now)
                case Cancel(host, piece):
                    self.world.peers[str(host)].cancelled(self, piece)
                case Close(host):
                    if parent := self.parents.pop(host, None):
                        parent.children.pop(self.id, None)
                        self._senders = Senders(self.parents.values())
                case Complain():
                    pass  # a modelled disk does not fail

    # --- sending ----------------------------------------------------------------------------

    def serve(self, receiver: Peer, piece: int, now: float) -> None:
        self.world.room[self.number] -= 1
        if self._sending < self.world.scenario.uploads:
            self._send(receiver, piece, now)
        else:
            self._queue.setdefault(receiver, deque()).append(piece)

    def cancelled(self, receiver: Peer, piece: int) -> None:
        """What is under way comes all the same; what waits is answered with BUSY."""
        waiting = self._queue.get(receiver)
        if waiting and piece in waiting:
            waiting.remove(piece)
            if not waiting:
                del self._queue[receiver]
            self.world.room[self.number] += 1
            receiver.state.busy(self.id, piece, 1)

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
        self.world.room[self.number] += 1
        while self._queue:
            receiver = next(iter(self._queue))
            waiting = self._queue.pop(receiver)
            if not receiver.alive:
                self.world.room[self.number] += len(waiting)
                continue
            piece = waiting.popleft()
            if waiting:
                self._queue[receiver] = waiting
            self._send(receiver, piece, now)
            return

    def _passed(self, now: float, receiver: Peer, piece: int) -> None:
        if self.alive and receiver.alive:
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
                child.carry_out(child.state.disconnected(self.id, now), now)
                child.carry_out(child.state.unreachable(self.id), now)

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
            if self.world.scenario.doubtful:
                self._look_again(now)
            self.world.clock.at(now + self._interval, self._report_due)

    def report_soon(self, now: float) -> None:
        if not self._report_wanted:
            self._report_wanted = True
            self.world.clock.at(now, self._report_wanted_now)

    def _report_wanted_now(self, now: float) -> None:
        if self.alive and self._report_wanted:
            self.report(now)

    def report(self, now: float) -> None:
        self._report_wanted = False
        self.hear()
        part, reader = self.state.take_report(now, 0.0, False), self.reader
        news = part.taken.pending
        reply = self.world.scheduler.report(
            m.Report(
                host_id=self.id,
                task_id=self.world.scheduler.task.id,
                got=tuple(news.got),
                origin=tuple(news.origin),
                lost=tuple(news.lost),
                bytes_origin=self.bytes_origin + (reader.partial(now) if reader else 0),
                bytes_peers=self.state.bytes.peers,
                released=tuple(news.released),
                bad=tuple(news.bad),
                misled=tuple(news.misled),
                disputed=part.disputed,
                claim=part.claim,
                rate=part.rate,
                unreachable=tuple(news.unreachable),
            ),
            now,
        )
        self._interval = reply.interval
        if reply.record:
            self.settle(reply.record, now)
        if reader:
            reader.replied(reply, now)

    def vouch(self, gaps: tuple[int, ...], now: float) -> None:
        """The record lacks these; whoever read them may be gone."""
        self.state.vouched(tuple((piece, self.digest(piece)) for piece in gaps))
        if self.reader:
            self.state.doubted()
        self.report(now)
