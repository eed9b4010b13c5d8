"""Origin leases of one task: who may fetch which pieces from the origin, so that each byte leaves it once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.lease_timeouts import LeaseTimeouts

TAIL = 0.1
"""The last share of a task is leased piece by piece: what is in flight from the origin at the end,
nobody can pass on."""


@dataclass(frozen=True, slots=True)
class Late:
    """A lease. `since`: when it was given; `read`: bytes that its holder had from the origin by then."""

    piece: int
    holder: str
    since: float
    read: int


@dataclass(slots=True)
class _Holder:
    pieces: int = 0
    since: float = 0.0
    """When it last got a lease or made progress."""


class LeaseTable:
    """Pieces that nobody has yet, and those that somebody is fetching.

    `units`: where the origin has no ranges, the first piece of each stretch that one stream must
    fetch; such a stretch is leased whole, and to one holder.
    """

    def __init__(
        self,
        count: int,
        *,
        free: int,
        timeout: float,
        units: Sequence[int] = (),
        waits: LeaseTimeouts | None = None,
    ) -> None:
        self.count = count
        self.free = free
        self.timeout = timeout
        self.waits = waits or LeaseTimeouts(timeout)
        """For answers to begin: a holder is not late for those."""
        self._units = [*units, count] if units else []
        self._holders: dict[str, _Holder] = {}
        """Those that hold something; an entry goes with its last piece."""
        self._owners: dict[int, str] = {}
        """Leased piece -> its holder."""
        self._given: dict[int, tuple[float, int]] = {}
        """Leased piece -> when, and the bytes that its holder had read by then; the oldest first."""
        self._paused = float("-inf")
        """Until when the origin had to be left alone; nobody is late for that."""
        self.leased = 0
        self.granted = 0

    @property
    def left(self) -> int:
        """Pieces that nobody has a lease of."""
        return self.free.bit_count()

    @property
    def holders(self) -> int:
        """How many hosts have a lease."""
        return len(self._holders)

    def hosts(self) -> Iterable[str]:
        """Those that have a lease."""
        return self._holders

    def held_by(self, host: str) -> int:
        holder = self._holders.get(host)
        return holder.pieces if holder else 0

    def claim(
        self,
        host: str,
        most: int,
        claimants: int,
        now: float,
        urgent: Iterable[int] = (),
        *,
        has: int = 0,
        read: int = 0,
        least: int = 1,
        afford: Callable[[Sequence[int], bool], int] | None = None,
    ) -> list[int]:
        """Up to `most` pieces for `host`, `urgent` ones first, then in order; `claimants` share the rest.

        `has`: pieces that it needs no more, though others cannot have them from it. `read`: bytes that it has
        from the origin so far. `least`: so many at once, where an even share of all is as much.
        `afford(pieces, whole)`: how many of them, from the first on, may be fetched now.
        """
        free = self.free & ~has
        if most <= 0 or not free:
            return []
        if self._units:
            pieces = self._whole_unit(free)
        else:
            left = self.left
            fair = max(self._fair(left, max(1, claimants)), min(least, -(-self.count // max(1, claimants))))
            wanted = next((p for p in urgent if free >> p & 1), None)
            first = bitset.lowest(free) if wanted is None else wanted
            pieces = range(first, first + bitset.run_from(free, first, min(most, fair)))
        if afford:
            pieces = pieces[: afford(pieces, bool(self._units))]
        if not pieces:
            return []
        taken = bitset.of(pieces)
        self.free &= ~taken
        self.leased |= taken
        holder = self._holders.setdefault(host, _Holder())
        holder.pieces |= taken
        holder.since = now
        self._owners.update(dict.fromkeys(pieces, host))
        self._given.update(dict.fromkeys(pieces, (now, read)))
        self.granted += len(pieces)
        return list(pieces)

    def _fair(self, left: int, claimants: int) -> int:
        """How many pieces one of `claimants` may have at once."""
        if self.waits.slow:
            return -(-left // claimants)  # one by one, each would cost a wait
        return 1 if left <= max(TAIL * self.count, claimants) else max(1, left // (2 * claimants))

    def _whole_unit(self, free: int) -> range:
        first = bitset.lowest(free)
        for start, stop in zip(self._units, self._units[1:], strict=False):
            if start <= first < stop:
                return range(first, first + bitset.run_from(free, first, stop - first))
        return range(first, first + 1)

    def progress(self, host: str, now: float) -> None:
        holder = self._holders.get(host)
        if holder:
            holder.since = now

    def done(self, pieces: int) -> None:
        """Somebody has them now."""
        self.free &= ~pieces
        self.waits.done(pieces)
        self._end(pieces)

    def lost(self, pieces: int) -> None:
        """Nobody has them any more, and nobody is fetching them."""
        self.free |= pieces & ~self.leased

    def release(self, host: str, pieces: Collection[int]) -> None:
        """Given back, by the holder or from it."""
        back = bitset.among(pieces, self.count) & self.held_by(host)
        self._end(back)
        self.free |= back

    def drop(self, host: str) -> int:
        """The holder is gone: everything that it held is free again."""
        held = self.held_by(host)
        self._end(held)
        self.free |= held
        return held

    def _end(self, pieces: int) -> None:
        for piece in bitset.members(pieces & self.leased):
            host = self._owners.pop(piece)
            self._given.pop(piece, None)
            holder = self._holders[host]
            holder.pieces &= ~(1 << piece)
            if not holder.pieces:
                del self._holders[host]
        self.leased &= ~pieces

    def late(self, host: str, seconds: float, now: float) -> list[Late]:
        """The oldest lease of each holder but `host`, where it was given longer than `seconds` ago. None where
        `host` itself is as late, and where an origin has no ranges: a stretch is not begun in its middle."""
        if self._units:
            return []
        found: dict[str, Late] = {}
        for piece, (since, read) in self._given.items():
            since = max(since, self._paused)
            if now - since <= seconds:
                break
            owner = self._owners[piece]
            if owner == host:
                return []
            found.setdefault(owner, Late(piece, owner, since, read))
        return list(found.values())

    def newest(self, holder: str) -> Late:
        """The lease that `holder`, who has one, got last: what it comes to last."""
        piece = next(p for p in reversed(self._given) if self._owners[p] == holder)
        return Late(piece, holder, *self._given[piece])

    def postpone(self, until: float) -> None:
        """The origin answered HTTP 429 or 503: no lease runs out before `until` plus its time-out."""
        self._paused = max(self._paused, until)
        for holder in self._holders.values():
            holder.since = max(holder.since, until)

    def expire(self, now: float) -> dict[str, int]:
        """Takes back the leases of holders that made no progress; host -> pieces."""
        late = {
            host: holder.pieces
            for host, holder in self._holders.items()
            if holder.pieces
            and now - holder.since > self.timeout
            and not self.waits.bears(host, holder.pieces, self.timeout, now)
        }
        for host in late:
            self.waits.in_vain(self.drop(host))
        return late
