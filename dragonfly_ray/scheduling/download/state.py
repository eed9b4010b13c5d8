"""The download engine: everything that one host decides while it fetches one task."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.download.digest_claims import DigestClaims
from dragonfly_ray.scheduling.download.effects import (
    Cancel,
    Complain,
    ConnectionId,
    Effect,
    Effects,
    Report,
    Tell,
    Wake,
)
from dragonfly_ray.scheduling.download.event_log import event
from dragonfly_ray.scheduling.download.host_events import HostEvents
from dragonfly_ray.scheduling.download.origin_events import OriginEvents
from dragonfly_ray.scheduling.download.parent_state import (
    BAD_PIECES,
    ENDGAME_LOOK_S,
    REFRESH_S,
    RequestLimits,
)
from dragonfly_ray.scheduling.download.parts import Claims
from dragonfly_ray.scheduling.download.report_buffer import ReportPart, Taken

MAX_DISPUTED = 256
"""Disputed pieces in one report."""
MAX_URGENT = 8


class DownloadState(HostEvents, OriginEvents):
    """Events in, with the time in them; effects out, as frozen values; questions are answered, and change the state
    too. No socket, clock or thread: the caller holds a lock, and the same events give the same answers.

    Keyed by connection: what is said of one that has a successor, or has ended, counts for nothing. Sets of pieces are
    bitmaps, times are seconds of the caller's clock.
    """

    # --- what is so -------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.picker.done

    def banned(self, host: str) -> bool:
        return host in self._banned

    def due(self, connection: ConnectionId) -> int:
        """Pieces whose answer is still to come on a connection."""
        parent = self.connections.get(connection)
        return parent.due if parent else 0

    @property
    def seeds(self) -> bool:
        """Whether this host tells its neighbours of fresh pieces in turn, since it alone reads the origin."""
        return self._haves.seeder is not None

    def shown(self, host: str) -> int:
        """The pieces that a child may ask for."""
        return self._haves.shown(host)

    @property
    def hungry(self) -> bool:
        """Whether more may be asked for than is due, of whomever."""
        if not self.picker.missing:
            return False
        near, far = self.connections.room(self.limits)
        return near or (far and bool(self._zone))

    def order(self, now: float, able: Collection[str] | None = None) -> Iterator[str]:
        """Hosts worth one more request, in the order in which to try them. `able`: those that can take one."""
        near, far = self.connections.room(self.limits)
        return self.picker.order(now, able, near=near, far=far)

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
        self._cache += nbytes

    # --- requests ---------------------------------------------------------------------------

    @event
    def next_request(self, connection: ConnectionId, now: float) -> Sequence[int]:
        """The pieces to ask for next on a connection, empty if nothing is to be asked of it now."""
        parent = self.connections.get(connection)
        if parent is None:
            return ()
        most = self.connections.wanted(parent, self.limits, now)
        if most <= 0:
            return ()
        run = self.picker.pick(parent.host, most, now)
        if run:
            parent.requested(len(run), now)
        return run

    def idle(self, connection: ConnectionId, now: float) -> tuple[float, bool]:
        """Nothing is to be asked on it now: seconds after which to look again; and whether it is then to be asked anew
        what it has, if nothing has turned up."""
        parent = self.connections.get(connection)
        if parent and (pause := self.connections.paused(parent.host, now)):
            return min(pause, REFRESH_S), False
        return (ENDGAME_LOOK_S, False) if self.picker.available() else (REFRESH_S, True)

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
        parent = self.connections.get(connection)
        if parent is None:
            return "drop", ()
        host = parent.host
        self.connections.answered(parent, rate, now)
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
        if parent := self.connections.get(connection):
            parent.released(1)
            self.picker.refused(parent.host, piece)

    @event
    def busy(self, connection: ConnectionId, first: int, count: int) -> bool:
        """It sends none of these now, or they were cancelled. True: some of them are still wanted."""
        parent = self.connections.get(connection)
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
        if self.connections.get(connection) is None:
            return False
        having = self.picker.having(piece)
        return self.connections.too_slow(connection, having, rate, left, waited_for, now)

    # --- pieces -----------------------------------------------------------------------------

    @event
    def cached(self, connection: ConnectionId, piece: int, nbytes: int, now: float) -> Effects:
        """What was to be asked for lay in another task of this host."""
        parent = self.connections.get(connection)
        if parent:
            parent.released(1)
        self._cache += nbytes
        return self._got(piece, parent.host if parent else "", now)

    @event
    def stored(self, piece: int, parent: str, nbytes: int, now: float) -> Effects:
        """A verified piece is in the store. `parent`: the host that it came from, empty: none."""
        if parent:
            self._peers += nbytes
            self.provenance[piece] = parent
            self.report.feeds(parent, nbytes)
        return self._got(piece, parent, now)

    @event
    def came_small(self, piece: int, found: bytes, nbytes: int, now: float) -> Effects:
        """A piece came with the delivery itself. `found`: its digest, where nobody has vouched for it yet."""
        self._small += nbytes
        effects = self._got(piece, "", now)
        if found:
            self.report.news.origin.append((piece, found))
        return effects

    def _got(self, piece: int, source: str, now: float) -> Effects:
        asked = map(self.connections.of, self.picker.got(piece, source, now))
        effects: list[Effect] = [Cancel(each, piece) for each in asked if each is not None]
        self._storing.discard(piece)
        self.report.news.got.append(piece)
        self._haves.fresh |= 1 << piece
        if self.picker.done:
            effects += (Report(), Wake())
        return tuple(effects)

    @event
    def lost(self, pieces: tuple[int, ...]) -> Effects:
        """Pieces that are not what they should be, or not there any more: they are fetched again."""
        self._haves.lost(pieces)
        for index in pieces:
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
    def hurry(self, pieces: tuple[int, ...]) -> None:
        """Somebody reads these: they come before all others."""
        self.picker.urgent = [*pieces, *(p for p in self.picker.urgent if p not in pieces)]

    @event
    def hurried(self, pieces: tuple[int, ...]) -> None:
        """Nobody waits for these any more."""
        self.picker.urgent = [p for p in self.picker.urgent if p not in pieces]

    # --- what the scheduler and the neighbours are told ---------------------------------------

    def report_due(self, now: float, answer: float, early: bool = False) -> bool:
        """Whether there is anything to report now. `early`: sooner than an interval after the last report. That is of
        use to claim more; what is here is told soon enough by the question for the record and by the outcome."""
        news = self.report.news
        if self.claims.disputed or (news.pressing if early and self._claims_no_more() else news):
            return True
        return bool(self.appetite(now, answer)) and not (early and self._claims_no_more())

    def _claims_no_more(self) -> bool:
        """All is here, or leased by somebody."""
        return self.picker.done or bool(self.leases and self.leases.all_leased)

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
        return self._haves.due(now)

    @event
    def take_news(self) -> int:
        """See `HaveOutbox.take`."""
        return self._haves.take()

    @event
    def tell_all(self, connection: ConnectionId) -> tuple[Tell, ...]:
        """All that is here and was not told on this connection."""
        return self._haves.tell(connection, self.picker.have)
