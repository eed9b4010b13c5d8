"""Leases of origin pieces at one host: how many to claim, what to read next, what to give back, when to back off."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dragonfly_ray.backoff import DEFAULT_RETRY_AFTER_S
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits
from dragonfly_ray.scheduling.lease_timeouts import SLOW_S
from dragonfly_ray.scheduling.picker import Picker

SMOOTHING = 0.3
LEAST_OFFERED = 8
"""Pieces that neighbours have and nobody was asked for: fewer are on their way any moment."""
LATE_TIMES = 3.0
"""So many times what others take for the whole way of a piece, one may wait here to be read."""
LEAST_WAIT_S = 0.3
LAST_WAIT_S = 0.1
"""How long one may wait when nothing else is left to read: whoever is idle begins with it at once."""
LOOK_S = 0.05
"""Between looks whether another connection helps again."""
MAX_RUN = 64
"""Pieces of one request at the origin."""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 2.0


class LeaseQueue:
    """Events in; `appetite`, `next_run` and `pause` answer. Times are seconds of the caller's clock.

    `answer` in the questions: seconds that the origin's answers take to begin, 0: unknown. `rate`: bytes a second of one
    worker, smoothed.
    """

    def __init__(
        self,
        picker: Picker,
        limits: LeaseLimits,
        *,
        may_claim: bool = True,
        not_before: float = 0.0,
        connections: int = 0,
    ) -> None:
        self._picker = picker
        self._limits = limits
        self._queue: list[int] = []
        self._since: dict[int, float] = {}
        """When each piece of the queue came into it."""
        self._active: dict[int, frozenset[int]] = {}
        """Worker -> what it reads."""
        self._unwanted: set[int] = set()
        self._may_claim = may_claim
        self._not_before = not_before
        self._stopped = False
        self._doubting = False
        self._left = -1
        self._backoff = 0.0
        self._flow = 0.0
        """Bytes a second of one worker, once they flow; smoothed."""
        self._connections = connections or limits.requests or limits.connections
        self.rate = 0.0

    # --- what is so -------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """What the scheduler allows, of the whole cluster's."""
        return self._connections

    @property
    def workers(self) -> int:
        """Runs of pieces that may be under way at once."""
        return min(self._limits.connections, self._connections)

    @property
    def waiting(self) -> int:
        """Leased pieces that nobody reads yet."""
        return len(self._queue)

    @property
    def reading(self) -> bool:
        """Whether any worker reads."""
        return bool(self._active)

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def all_leased(self) -> bool:
        """There is nothing to claim, as far as the scheduler has told."""
        return self._left == 0

    def held_off(self, now: float) -> bool:
        """Nothing is to be asked of the origin now."""
        return self._stopped or now < self._not_before

    def unwanted(self, worker: int) -> bool:
        """It reads only what somebody else reads now."""
        return worker in self._unwanted

    # --- events -----------------------------------------------------------------------------

    def allow(self, may_claim: bool | None, not_before: float, connections: int = 0) -> bool:
        """What the scheduler says; `connections`: 0 where it is as before. True: their number has changed."""
        changed = bool(connections) and connections != self._connections
        self._connections = connections or self._connections
        if may_claim is not None:
            self._may_claim = may_claim
        self._not_before = max(self._not_before, not_before)
        return changed

    def leased(self, pieces: Collection[int], now: float) -> None:
        """One that waits here already waits once."""
        self._picker.claimed(pieces)
        waiting = frozenset(self._queue)
        self._queue.extend(p for p in pieces if p not in waiting)
        self._since.update(dict.fromkeys(pieces, now))

    def revoked(self, pieces: Iterable[int]) -> None:
        """Somebody else reads them: they are not begun here, and what is under way ends."""
        gone, have = frozenset(pieces), self._picker.have
        for worker, active in self._active.items():
            if {p for p in active if not have >> p & 1} <= gone:
                self._unwanted.add(worker)
        self._queue = [p for p in self._queue if p not in gone]
        self._picker.unclaimed(gone)

    def replied(self, left: int, usual: float, now: float) -> list[int]:
        """The scheduler answers a report; see `ReportReply`. What has waited here for so long that somebody else may
        have read it sooner is given back."""
        self._left = left
        if not left:
            return self._give_back(now - LAST_WAIT_S)
        if usual:
            return self._give_back(now - max(LEAST_WAIT_S, LATE_TIMES * usual))
        return []

    def _give_back(self, before: float) -> list[int]:
        if not self._limits.ranges:
            return []
        late = [p for p in self._queue if self._since.get(p, before) < before]
        if late:
            gone = frozenset(late)
            self._queue = [p for p in self._queue if p not in gone]
            self._picker.unclaimed(late)
        return late

    def doubted(self) -> None:
        """All is here, but nobody vouches for some of it: claim it, to read it once more."""
        self._doubting = True

    def ended(self, worker: int, unread: Iterable[int] = ()) -> bool:
        """A worker has no run any more. True: it is to be reported at once that there is room."""
        self._picker.unclaimed(unread)
        self._unwanted.discard(worker)
        active = self._active.pop(worker, None)
        return bool(active) and not self._queue and self._ending()

    def read(self) -> None:
        """A piece came from the origin: it is well."""
        self._backoff = 0.0

    def measured(self, nbytes: int, seconds: float, flowing: float) -> None:
        """A whole run took so long; `flowing`: since its first byte."""
        self._flow = _smoothed(self._flow, nbytes / max(1e-3, flowing))
        self.rate = _smoothed(self.rate, nbytes / max(1e-6, seconds))

    def failed(self, now: float) -> None:
        """The origin could not be read."""
        self._backoff = min(MAX_BACKOFF_S, self._backoff * 2 or FIRST_BACKOFF_S)
        self.allow(None, now + self._backoff)

    def busy(self, now: float, retry_after: float | None) -> float:
        """The origin wants to be left alone; `retry_after`: for how long, if it said so. For how long it is."""
        pause = DEFAULT_RETRY_AFTER_S if retry_after is None else retry_after
        self.allow(None, now + pause)
        return pause

    def stop(self) -> None:
        self._stopped = True
        self._queue.clear()

    # --- questions --------------------------------------------------------------------------

    def appetite(self, now: float, answer: float = 0.0) -> int:
        """How many more pieces to claim: about what the workers drain in the time of a lease."""
        if not self._may_claim or self.held_off(now):
            return 0
        if self._picker.done and not self._doubting:
            return 0
        workers = self._useful()
        idle = workers - len(self._active)
        ahead = 0 if self._ending() and answer <= SLOW_S else workers * self._per_request(answer)
        return max(0, ahead + idle - len(self._queue))

    def next_run(self, worker: int, now: float, answer: float = 0.0) -> range | None:
        """The next consecutive leased pieces for an idle worker; None: nothing for now."""
        if not self._queue or self.held_off(now) or len(self._active) >= self._useful():
            return None
        queue = self._queue
        share = -(-len(queue) // max(1, self.workers - len(self._active)))
        most = max(1, min(share, self._per_request(answer)))
        if not self._limits.ranges:
            most = len(queue)
        first, count = queue[0], 1
        while count < min(most, len(queue)) and queue[count] == first + count:
            count += 1
        del queue[:count]
        run = range(first, first + count)
        for piece in run:
            self._since.pop(piece, None)
        self._active[worker] = frozenset(run)
        self._unwanted.discard(worker)
        return run

    def low(self, answer: float = 0.0) -> bool:
        """So few are ahead that more are to be claimed now."""
        return len(self._queue) <= self.workers * self._per_request(answer) // 2

    def pause(self, now: float) -> float | None:
        """Seconds after which an idle worker looks again; None: not before something happens."""
        if not self._queue:
            return None
        wait = self._not_before - now
        if wait > 0:
            return wait
        return LOOK_S if self._active else None

    def _useful(self) -> int:
        """Of the workers, as many as help: one, while neighbours offer more than can be asked of them. Else the origin
        has given everything before the links between hosts have carried their part."""
        picker = self._picker
        return 1 if picker.offered() > max(LEAST_OFFERED, picker.requests) else self.workers

    def _ending(self) -> bool:
        """Hardly anything is left to claim: nothing ahead, and whoever is idle says at once what it has read,
        and that it has room."""
        return 0 <= self._left <= 4 * self.workers

    def _per_request(self, answer: float) -> int:
        worth = self.rate * self._limits.lease_seconds
        if answer > SLOW_S:
            worth = max(worth, self._flow * answer)  # a wait costs as much as so many bytes
        return max(self._limits.least, min(MAX_RUN, int(worth / self._limits.leaf)))

    # --- tests ------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raises `AssertionError` where the state contradicts itself."""
        active = [p for pieces in self._active.values() for p in pieces]
        assert all(0 <= p < self._picker.count for p in (*active, *self._queue)), (
            "lease of a piece out of range"
        )
        assert self._unwanted <= set(self._active), "an idle worker is to be interrupted"
        assert len(set(self._queue)) == len(self._queue), "a piece is queued twice"
        assert set(self._queue) <= set(self._since), "lease without a time of arrival"
        assert self._backoff <= MAX_BACKOFF_S


def _smoothed(before: float, seen: float) -> float:
    return seen if not before else (1 - SMOOTHING) * before + SMOOTHING * seen
