"""The origin's side of a download: what is leased to this host, and how reading it goes."""

from __future__ import annotations

from dragonfly_ray.scheduling.download.effects import Effects, Report
from dragonfly_ray.scheduling.download.event_log import event
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits
from dragonfly_ray.scheduling.download.lease_queue import LeaseQueue
from dragonfly_ray.scheduling.download.parts import Claims, DownloadParts


class OriginEvents(DownloadParts):
    @event
    def may_read(self, limits: LeaseLimits, may_claim: bool, not_before: float, connections: int) -> None:
        """From now on the origin can be read; see `LeaseQueue`."""
        self.leases = LeaseQueue(
            self.picker, limits, may_claim=may_claim, not_before=not_before, connections=connections
        )

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
    def origin_read(self, piece: int, found: bytes, here: bytes) -> bool:
        """A piece came from the origin; `stored` follows, unless it is here. `here`: the digest of what is; empty:
        nothing. True: that is to be settled by what the origin gave."""
        self.report.news.origin.append((piece, found))
        self.claims.mine(piece, found)
        self._leases.read()
        return bool(here) and here != found

    @event
    def origin_measured(self, nbytes: int, seconds: float, flowing: float) -> None:
        self._leases.measured(nbytes, seconds, flowing)

    @event
    def origin_ended(self, worker: int, unread: tuple[int, ...]) -> bool:
        """A worker has no run any more. True: report now."""
        return self._leases.ended(worker, unread)

    @event
    def origin_failed(self, now: float) -> None:
        self._leases.failed(now)

    @event
    def origin_busy(self, now: float, retry_after: float | None) -> float:
        """See `LeaseQueue.busy`."""
        return self._leases.busy(now, retry_after)

    @event
    def origin_stopped(self) -> None:
        if self.leases:
            self.leases.stop()

    @event
    def doubted(self) -> None:
        self._leases.doubted()

    # --- audits -----------------------------------------------------------------------------

    @event
    def to_audit(self, pieces: tuple[int, ...]) -> bool:
        """The scheduler wants them read once more. True: somebody is to begin with `next_audit`."""
        return self._audits.add(pieces)

    @event
    def next_audit(self, now: float) -> tuple[int | None, Effects]:
        """The piece to read next; `audited` follows. None: there is none. All are given back while nothing is to be
        asked of the origin: the scheduler waits for them."""
        late = self._audits.drain() if self.leases is None or self.leases.held_off(now) else []
        self.report.news.unaudited += late
        return self._audits.next(), (Report(),) if late else ()

    @event
    def audited(self, piece: int, found: bytes | None) -> Effects:
        """A piece was read at the origin once more; None: it could not be."""
        if found is None:
            self.report.news.unaudited.append(piece)
        else:
            self.report.news.audited.append((piece, found))
        return (Report(),)

    def appetite(self, now: float, answer: float) -> int:
        """How many more pieces to claim."""
        return self.leases.appetite(now, answer) if self.leases else 0
