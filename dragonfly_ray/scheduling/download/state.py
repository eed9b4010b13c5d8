"""The download engine: everything that one host decides while it fetches one task."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.download.digest_claims import DigestClaims
from dragonfly_ray.scheduling.download.effects import (
    Cancel,
    Close,
    Complain,
    ConnectionId,
    Effect,
    Effects,
    Report,
    Tell,
    Wake,
)
from dragonfly_ray.scheduling.download.event_log import Dump, EventLog, event, frozen
from dragonfly_ray.scheduling.download.lease_queue import LeaseLimits, LeaseQueue
from dragonfly_ray.scheduling.download.parent_state import (
    BAD_PIECES,
    NeighbourInfo,
    Pace,
    ParentState,
    RequestLimits,
    Window,
)
from dragonfly_ray.scheduling.download.report_buffer import ReportBuffer, Taken
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.scheduling.slowness import rate_too_slow, usual
from dragonfly_ray.scheduling.zones import Imports, region_of

MAX_DISPUTED = 256
"""Disputed pieces in one report."""
MAX_URGENT = 8
UNKNOWN = NeighbourInfo()

Claims = tuple[tuple[int, bytes], ...]
"""(piece, digest that is claimed for it)."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Of whole pieces, by where they came from."""

    peers: int = 0
    cache: int = 0
    small: int = 0


@dataclass(frozen=True, slots=True)
class ReportPart:
    """What the engine puts into a report. The fields are those of `messages.Report`."""

    taken: Taken
    disputed: tuple[int, ...]
    urgent: tuple[int, ...]
    claim: int
    rate: float


class DownloadState:
    """Events in, with the time in them; effects out, as frozen values; questions are answered, and change the state
    too. No socket, clock or thread: the caller holds a lock, and the same events give the same answers.

    Keyed by connection: what is said of one that has a successor, or has ended, counts for nothing. Sets of pieces are
    bitmaps, times are seconds of the caller's clock.
    """

    checked = False
    """Whether `validate` runs after every event: in tests."""

    def __init__(
        self,
        picker: Picker,
        limits: RequestLimits,
        *,
        host: str = "",
        zone: str = "",
        location: str = "",
        seeder: SuperSeeder | None = None,
        now: float = 0.0,
        recorded: bool = False,
    ) -> None:
        """`zone`: the one that this host is in; empty: zones are not known, and no host is in another one. `location`:
        of which the first part is the region that the zone is in."""
        self.picker = picker
        self.limits = limits
        self._host = host
        self._zone = zone
        if zone:
            picker.imports = Imports(host, zone, picker.count, region_of(location))
        self.seeder = seeder
        """Whom to tell of what, while this host alone reads the origin."""
        self.claims = DigestClaims()
        self.report = ReportBuffer(now)
        self.leases: LeaseQueue | None = None
        self.provenance: dict[int, str] = {}
        """Piece -> the parent that it came from."""
        self.bytes = Bytes()
        self._parents: dict[ConnectionId, ParentState] = {}
        self._current: dict[str, ConnectionId] = {}
        self._windows = Window(), Window()
        """Of near hosts, and of those that are far."""
        self._paces: dict[str, Pace] = {}
        self._infos: dict[str, NeighbourInfo] = {}
        self._banned: set[str] = set()
        self._bad: dict[str, int] = {}
        self._storing: set[int] = set()
        """Verified, and to be stored now."""
        self._fresh = 0
        """Here, and not told of yet."""
        self.log: EventLog | None = None
        if recorded:
            self.log = EventLog(frozen(self))

    def dump(self) -> Dump:
        """The last events, to be replayed. Raises `ValueError` where none are recorded."""
        if self.log is None:
            raise ValueError("this download is not recorded")
        return self.log.dump()

    # --- what is so -------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.picker.done

    def banned(self, host: str) -> bool:
        return host in self._banned

    def due(self, connection: ConnectionId) -> int:
        """Pieces whose answer is still to come on a connection."""
        parent = self._parents.get(connection)
        return parent.due if parent else 0

    def shown(self, host: str) -> int:
        """The pieces that a child may ask for."""
        seeder = self.seeder
        if seeder and not seeder.over and not self.picker.done:
            return seeder.may_ask(host)
        return self.picker.have

    @property
    def hungry(self) -> bool:
        """Whether more may be asked for than is due, of whomever."""
        if self.picker.done:
            return False
        near, far = self._windows
        return near.room(self.limits) > 0 or (bool(self._zone) and far.room(self.limits) > 0)

    def order(self, now: float) -> Iterator[str]:
        """Hosts worth one more request, in the order in which to try them."""
        near, far = self._windows
        return self.picker.order(now, near=near.room(self.limits) > 0, far=far.room(self.limits) > 0)

    # --- the beginning ----------------------------------------------------------------------

    @event
    def opened(
        self, limits: RequestLimits, have: int, digests: Claims, edited: tuple[int, ...], nbytes: int
    ) -> None:
        """What the store has. `edited`: what it has dropped just now."""
        self.limits = limits
        self.picker.have = have
        self.claims = DigestClaims(dict(digests))
        self.report.news.lost = list(edited)
        self.report.news.got = list(bitset.members(have))
        self._count(cache=nbytes)

    @event
    def may_read(self, limits: LeaseLimits, may_claim: bool, not_before: float, connections: int) -> None:
        """From now on the origin can be read; see `LeaseQueue`."""
        self.leases = LeaseQueue(
            self.picker, limits, may_claim=may_claim, not_before=not_before, connections=connections
        )

    # --- hosts and connections --------------------------------------------------------------

    @event
    def met(self, host: str, info: NeighbourInfo) -> None:
        """A neighbour is known, and what the scheduler says of it; or what it says of this host itself."""
        if host == self._host:
            self.picker.names(host, importer=info.importer)
            return
        if info.silent and not self._info(host).silent:  # what it said itself may have come before this
            self.picker.left(host)
            if self.seeder:
                self.seeder.left(host)
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
        if host in self._current:
            self._parents[self._current[host]].moves(self._windows[far])

    def _told_all(self, host: str) -> None:
        if self._info(host).sole and not self.picker.is_far(host) and self._far(host):
            self._place(host)

    @event
    def replaced(self, host: str) -> None:
        """Another process of the host takes the place of the one that was known."""
        self._forget(host)
        self._paces.pop(host, None)
        self.picker.reset(host)

    @event
    def connected(
        self, connection: ConnectionId, host: str, held: int, claims: Claims, now: float
    ) -> Effects:
        """`held`: what it has, as it says itself."""
        if host in self._current:  # what it was asked for on another connection is free
            self._forget(host)
            self.picker.reset(host)
        info = self._info(host)
        silent = info.silent
        far = self._far(host)
        self._parents[connection] = parent = ParentState(host, self._windows[far])
        self._current[host] = connection
        self.picker.joined(host, 0 if silent else held, far=far, zone=info.zone, region=info.region)
        self._told_all(host)
        effects = () if silent or not claims else self._claimed(host, claims)
        if self.seeder:
            if not silent:  # it would pass nothing on
                self.seeder.joined(host, self.picker.holder_bits(host), far=self._abroad(info))
            return effects
        return (*effects, *self._tell(connection, parent, self.picker.have))

    def _forget(self, host: str) -> None:
        connection = self._current.pop(host, None)
        if connection is not None:
            parent = self._parents.pop(connection)
            parent.released(parent.due)

    @event
    def disconnected(self, connection: ConnectionId, now: float) -> Effects:
        """It may come again."""
        parent = self._parents.get(connection)
        if parent is None:
            return ()
        self._forget(parent.host)
        self.picker.reset(parent.host)
        if self.seeder:
            self.seeder.left(parent.host)
        return (Wake(),)

    @event
    def left(self, host: str) -> Effects:
        """It is gone."""
        return self._left(host)

    def _left(self, host: str) -> Effects:
        self._forget(host)
        self._paces.pop(host, None)
        self.picker.left(host)
        if self.seeder:
            self.seeder.left(host)
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

    # --- what others have -------------------------------------------------------------------

    @event
    def have(self, host: str, claims: Claims) -> Effects:
        """What a neighbour says that it has."""
        if host in self._banned or self._info(host).silent:
            return ()
        self.picker.has(host, [index for index, _ in claims])
        self._told_all(host)
        if self.seeder:
            self.seeder.has(host, self.picker.holder_bits(host))
        return self._claimed(host, claims)

    @event
    def holds(self, host: str, pieces: int) -> None:
        """The same without digests."""
        self.picker.has(host, pieces)
        self._told_all(host)

    def hears(self, told: Mapping[str, int]) -> None:
        """The same of many hosts at once; not recorded."""
        self.picker.hears(told)
        if self.seeder:
            for host in self._current:
                if host in told:
                    self.seeder.has(host, told[host])

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

    # --- requests ---------------------------------------------------------------------------

    @event
    def next_request(self, connection: ConnectionId, now: float) -> Sequence[int]:
        """The pieces to ask for next on a connection, empty if nothing is to be asked of it now."""
        parent = self._parents.get(connection)
        if parent is None:
            return ()
        limits, room = self.limits, self.limits.due
        if (pace := self._paces.get(parent.host)) is not None:
            if not parent.due and pace.pauses.left(now):
                return ()
            room = pace.window(room)
        room = min(room - parent.due, parent.window.room(limits))
        if room <= 0:
            return ()
        run = self.picker.pick(parent.host, min(limits.pieces, room), now)
        if run:
            parent.requested(len(run), now)
        return run

    def paused(self, connection: ConnectionId, now: float) -> float:
        """Seconds for which nothing is asked of it: it was too slow."""
        parent = self._parents.get(connection)
        pace = self._paces.get(parent.host) if parent else None
        return pace.pauses.left(now) if pace else 0.0

    @event
    def answered(
        self,
        connection: ConnectionId,
        piece: int,
        said: bytes,
        found: bytes,
        rate: float,
        now: float,
    ) -> tuple[Literal["keep", "drop", "corrupt"], Effects]:
        """A piece came, with the digest that its sender promised and the one that it has; both empty where nobody
        looked, since it is here already or is known to be right. `rate`: bytes a second, 0: unknown.

        A parent is accused for what it said itself only, never for what others say.
        """
        parent = self._parents.get(connection)
        if parent is None:
            return "drop", ()
        host = parent.host
        pace = self._paces.get(host)
        if pace is None:
            pace = self._paces[host] = Pace()
        pace.piece(parent.answered(now), rate)
        if self.picker.have >> piece & 1:
            return "drop", ()
        if said != found or (said and not self.claims.keeps(host, piece, said)):
            return "corrupt", (Complain(connection, piece), *self._accuse(host, piece))
        if said and not self._claim(host, piece, said):
            return "drop", (Report(),)
        self._storing.add(piece)
        return "keep", ()

    def _accuse(self, host: str, piece: int) -> Effects:
        """It sent a piece that is not what it said itself."""
        self.picker.refused(host, piece)
        self.report.news.bad.append(host)
        self._bad[host] = self._bad.get(host, 0) + 1
        if self._bad[host] >= BAD_PIECES:
            return Report(), *self._ban(host)
        return (Report(),)

    @event
    def missing(self, connection: ConnectionId, piece: int) -> None:
        """It does not have the piece, whatever it said."""
        if parent := self._parents.get(connection):
            parent.released(1)
            self.picker.refused(parent.host, piece)

    @event
    def busy(self, connection: ConnectionId, first: int, count: int) -> bool:
        """It sends none of these now, or they were cancelled. True: some of them are still wanted."""
        parent = self._parents.get(connection)
        if parent is None:
            return False
        parent.released(count)
        pieces = range(first, first + count)
        for index in pieces:
            self.picker.unasked(parent.host, index)
        return any(not self.picker.have >> index & 1 for index in pieces)

    @event
    def too_slow(
        self, connection: ConnectionId, piece: int, rate: float, left: float, waited_for: bool, now: float
    ) -> bool:
        """Whether to give up what is coming, at `rate` bytes a second with `left` seconds to go; it is measured.
        `waited_for`: others wait for the buffer that it keeps. True: its host is asked for nothing for a while."""
        parent = self._parents.get(connection)
        if parent is None:
            return False
        parent.live_rate = rate
        having = self.picker.having(piece)
        others = [each for key, each in self._parents.items() if key != connection]
        elsewhere = any(p.host in having and not self._host_paused(p.host, now) for p in others)
        usually = usual(p.live_rate or self._rate(p.host) for p in others)
        if not rate_too_slow(rate, left, usually, elsewhere=elsewhere, waited_for=waited_for):
            return False
        self._paces.setdefault(parent.host, Pace()).too_slow(rate, now)
        return True

    def _rate(self, host: str) -> float:
        pace = self._paces.get(host)
        return pace.rate if pace else 0.0

    def _host_paused(self, host: str, now: float) -> bool:
        pace = self._paces.get(host)
        return pace is not None and pace.pauses.left(now) > 0

    # --- pieces -----------------------------------------------------------------------------

    @event
    def cached(self, connection: ConnectionId, piece: int, nbytes: int, now: float) -> Effects:
        """What was to be asked for lay in another task of this host."""
        parent = self._parents.get(connection)
        if parent:
            parent.released(1)
        self._count(cache=nbytes)
        return self._got(piece, parent.host if parent else "", now)

    @event
    def stored(self, piece: int, parent: str, nbytes: int, now: float) -> Effects:
        """A verified piece is in the store. `parent`: the host that it came from, empty: none."""
        if parent:
            self._count(peers=nbytes)
            self.provenance[piece] = parent
            self.report.feeds(parent, nbytes)
        return self._got(piece, parent, now)

    @event
    def came_small(self, piece: int, found: bytes, nbytes: int, now: float) -> Effects:
        """A piece came with the delivery itself. `found`: its digest, where nobody has vouched for it yet."""
        self._count(small=nbytes)
        effects = self._got(piece, "", now)
        if found:
            self.report.news.origin.append((piece, found))
        return effects

    def _got(self, piece: int, source: str, now: float) -> Effects:
        current = self._current
        effects: list[Effect] = [
            Cancel(current[host], piece) for host in self.picker.got(piece, source, now) if host in current
        ]
        self._storing.discard(piece)
        self.report.news.got.append(piece)
        self._fresh |= 1 << piece
        if self.picker.done:
            effects += (Report(), Wake())
        return tuple(effects)

    def _count(self, *, peers: int = 0, cache: int = 0, small: int = 0) -> None:
        old = self.bytes
        self.bytes = Bytes(old.peers + peers, old.cache + cache, old.small + small)

    @event
    def lost(self, pieces: tuple[int, ...]) -> Effects:
        """Pieces that are not what they should be, or not there any more: they are fetched again."""
        gone = bitset.of(pieces)
        self._fresh &= ~gone
        for parent in self._parents.values():
            parent.told &= ~gone
        for index in pieces:
            if self.seeder:
                self.seeder.lost(index)
            self.picker.lost(index)
            self.provenance.pop(index, None)
        self.report.news.lost.extend(pieces)
        return Report(), Wake()

    @event
    def settled(self, record: tuple[tuple[int, bytes, bytes], ...]) -> tuple[tuple[int, ...], Effects]:
        """The record's digests: (piece, the record's, what is here; empty: nothing). Those that are wrong here."""
        wrong = []
        for index, said, mine in record:
            if not 0 <= index < self.picker.count:
                continue
            misled = set(self.claims.settle(index, said))
            if mine and mine != said:
                wrong.append(index)
                misled.update(filter(None, [self.provenance.get(index)]))
            for host in sorted(misled):
                self._misled(host, index)
        return tuple(wrong), (Report(),)

    @event
    def forgotten(self, pieces: tuple[int, ...]) -> None:
        """Two digests are known of these: nothing that was said of them holds any more."""
        for index in pieces:
            self.claims.forget(index)

    @event
    def vouched(self, digests: Claims) -> None:
        """The scheduler's record lacks these."""
        self.report.news.origin += digests

    @event
    def audited(self, piece: int, found: bytes | None) -> None:
        """A piece was read at the origin once more; None: it could not be."""
        if found is None:
            self.report.news.unaudited.append(piece)
        else:
            self.report.news.audited.append((piece, found))

    @event
    def hurry(self, pieces: tuple[int, ...]) -> None:
        """Somebody reads these: they come before all others."""
        self.picker.urgent = [*pieces, *(p for p in self.picker.urgent if p not in pieces)]

    @event
    def hurried(self, pieces: tuple[int, ...]) -> None:
        """Nobody waits for these any more."""
        self.picker.urgent = [p for p in self.picker.urgent if p not in pieces]

    # --- the origin -------------------------------------------------------------------------

    @property
    def _leases(self) -> LeaseQueue:
        if self.leases is None:
            raise ValueError("the origin is not open yet")
        return self.leases

    @event
    def allowed(self, may_claim: bool | None, not_before: float, connections: int) -> bool:
        """See `LeaseQueue.allow`."""
        return self._leases.allow(may_claim, not_before, connections)

    @event
    def leased(self, pieces: tuple[int, ...], here: Claims, now: float) -> None:
        """`here`: those of them that are here already, with their digests."""
        # What came from a neighbour and is leased all the same, nobody has vouched for: it is read.
        have = self.picker.have
        news = [p for p in pieces if not have >> p & 1 or p in self.provenance]
        # What is here from before needs no reading: the scheduler lacks only its digest.
        self.report.news.origin += [each for each in here if each[0] not in self.provenance]
        self._leases.leased(news, now)

    @event
    def revoked(self, pieces: tuple[int, ...]) -> None:
        self._leases.revoked(pieces)

    @event
    def replied(self, left: int, usual: float, now: float) -> None:
        """The scheduler's answer to a report; its lease comes as `leased`."""
        self.report.news.released += self._leases.replied(left, usual, now)

    @event
    def next_origin_run(self, worker: int, now: float, answer: float) -> tuple[range | None, bool]:
        """What an idle worker reads next; and whether to report now, for more to be claimed."""
        run = self._leases.next_run(worker, now, answer)
        return run, run is not None and self._leases.low(answer)

    @event
    def origin_read(self, piece: int, found: bytes) -> None:
        """A piece came from the origin; `stored` follows, unless it is here."""
        self.report.news.origin.append((piece, found))
        self.claims.mine(piece, found)
        self._leases.read()

    @event
    def origin_measured(self, nbytes: int, seconds: float, flowing: float) -> None:
        self._leases.measured(nbytes, seconds, flowing)

    @event
    def origin_ended(self, worker: int, unread: tuple[int, ...]) -> bool:
        """A worker has no run any more. True: report now."""
        return self._leases.ended(worker, unread)

    @event
    def origin_failed(self, now: float, retry_after: float | None) -> None:
        self._leases.failed(now, retry_after)

    @event
    def origin_stopped(self) -> None:
        if self.leases:
            self.leases.stop()

    @event
    def doubted(self) -> None:
        self._leases.doubted()

    def appetite(self, now: float, answer: float) -> int:
        """How many more pieces to claim."""
        return self.leases.appetite(now, answer) if self.leases else 0

    # --- what the scheduler and the neighbours are told ---------------------------------------

    def report_due(self, now: float, answer: float) -> bool:
        """Whether there is anything to report now."""
        return bool(self.report.news or self.claims.disputed or self.appetite(now, answer))

    @event
    def take_report(self, now: float, answer: float, last: bool) -> ReportPart:
        """What to report now. `last`: all of it, and nothing is claimed."""
        taken = self.report.take(now, last=last)
        return ReportPart(
            taken,
            tuple(itertools.islice(self.claims.disputed, MAX_DISPUTED)),
            tuple(self.picker.urgent[:MAX_URGENT]),
            0 if last else self.appetite(now, answer),
            self.leases.rate if self.leases else 0.0,
        )

    @event
    def untold(self, taken: Taken, everything: bool) -> None:
        """A report did not reach the scheduler; or (`everything`) it has forgotten all of the task."""
        if everything:
            taken.pending.got = list(bitset.members(self.picker.have))
            taken = Taken(taken.pending)
        self.report.put_back(taken)

    @event
    def ended_well(self) -> None:
        """The outcome says that all of it is here."""
        self.report.news.got.clear()

    @event
    def take_tells(self, now: float) -> tuple[Tell, ...]:
        """What neighbours are to be told now."""
        fresh, self._fresh = self._fresh, 0
        found: list[Tell] = []
        if self.seeder:
            self.seeder.fresh(bitset.members(fresh))
            for host, pieces in self.seeder.due(now).items():
                if (connection := self._current.get(host)) is not None:
                    found += self._tell(connection, self._parents[connection], pieces)
        elif fresh:
            for connection, parent in self._parents.items():
                found += self._tell(connection, parent, fresh)
        return tuple(found)

    @event
    def take_news(self) -> int:
        """What neighbours are to be told now, for a caller that tells all of them the same. What is for some of them
        alone is left to `take_tells`."""
        if self.seeder:
            return 0
        fresh, self._fresh = self._fresh, 0
        return fresh

    @event
    def tell_all(self, connection: ConnectionId) -> tuple[Tell, ...]:
        """All that is here and was not told on this connection."""
        parent = self._parents.get(connection)
        return self._tell(connection, parent, self.picker.have) if parent else ()

    def _tell(self, connection: ConnectionId, parent: ParentState, pieces: int) -> tuple[Tell, ...]:
        """What it has itself is no news to it."""
        known = parent.told | self.picker.holder_bits(parent.host)
        news = pieces & ~known
        if not news:
            return ()
        parent.told |= news
        last = not bitset.full(self.picker.count) & ~(known | news)
        return (Tell(connection, news, last),)

    # --- tests ------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raises `AssertionError` where the state contradicts itself."""
        picker = self.picker
        everything = bitset.full(picker.count)
        assert not picker.have & ~everything, "a piece that is none"
        assert {c: p.host for c, p in self._parents.items()} == {c: h for h, c in self._current.items()}
        assert not self._banned & set(self._current), "connected to a banned host"
        assert not self._banned & set(picker.holders()), "pieces of a banned host count"
        for number, window in enumerate(self._windows):
            due = sum(p.due for p in self._parents.values() if p.window is window)
            assert window.due == due, f"{window.due} pieces are due, and {due} on all connections ({number})"
        for parent in self._parents.values():
            assert parent.due >= 0, "more answers than requests"
            assert picker.outstanding(parent.host) <= parent.due + len(self._storing), (
                "a request that nobody will answer"
            )
            assert not parent.told & ~everything
        assert bitset.of(self.provenance) & ~picker.have == 0, "where from is known of what is not here"
        assert self._fresh & ~picker.have == 0, "news of what is not here"
        if self.leases:
            self.leases.validate()
