"""Whom to tell of which piece, while this peer alone reads the origin of a task.

If all neighbours heard of a fresh piece at once, they would all ask for it, and the one link that
everything must pass would send it many times before the swarm could spread it. So each fresh piece
is told to one neighbour, in turn, and the others get it from there: every piece is given out once
before any is twice. After that there is nothing left to withhold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.rarity import Rarity

AHEAD = 32
"""Pieces told, and not yet seen at a neighbour: enough to keep the link busy until the news is back. That
takes some piece-times, since neighbours receive from everybody else as well."""
AGAIN = 2
"""The same for pieces that are given out once more because the origin is slower than this link."""
PATIENCE = 2.0
"""Seconds after which a piece that was told in vain is told to another neighbour as well."""


@dataclass(slots=True, eq=False)
class _Neighbour:
    far: bool = False
    told: int = 0
    """The pieces that it may ask for."""
    has: int = 0
    pending: int = 0
    """Told, and not yet seen at it or at anybody else."""


class SuperSeeder:
    """Events in, `due` out. A piece counts as given once some neighbour says that it has it.

    If whoever alone has a piece leaves, it is fresh again. While no fresh one is to be had, those
    that the fewest neighbours have are told to more of them in turn, so that no link is idle while
    the origin is slow. Once all `count` pieces are given, everybody may know everything.
    """

    def __init__(self, count: int, *, ahead: int = AHEAD, patience: float = PATIENCE) -> None:
        self.count = count
        self.ahead = ahead
        self.patience = patience
        self._have = 0
        self._fresh: deque[int] = deque()
        self._since: dict[int, float] = {}
        """Pieces told and not yet seen anywhere -> when they were told last."""
        self._again: dict[str, tuple[int, float]] = {}
        """Neighbour -> the given piece that it was told of on top, and when."""
        self._given = 0
        self._tally = Rarity()
        """Of what neighbours have."""
        self._turn: deque[str] = deque()
        self._neighbours: dict[str, _Neighbour] = {}
        self._near = 0

    def _hears(self, host: str) -> bool:
        return not (self._near and self._neighbours[host].far)

    @property
    def over(self) -> bool:
        """Every piece was given out once: there is nothing to withhold any more."""
        return self._given == bitset.full(self.count)

    # --- events -----------------------------------------------------------------------------

    def fresh(self, pieces: Iterable[int]) -> None:
        """Pieces that are here now."""
        for piece in pieces:
            if not self._have >> piece & 1:
                self._have |= 1 << piece
                if not self._given >> piece & 1:
                    self._fresh.append(piece)

    def lost(self, piece: int) -> None:
        """What was here turned out bad."""
        bit = 1 << piece
        self._have &= ~bit
        self._given &= ~bit
        self._since.pop(piece, None)
        if piece in self._fresh:
            self._fresh.remove(piece)
        for neighbour in self._neighbours.values():
            neighbour.told &= ~bit
            neighbour.pending &= ~bit

    def joined(self, host: str, has: int = 0, *, far: bool = False) -> None:
        """A neighbour that knows of nothing here yet; `has`: its own pieces.

        `far`: it is in another zone. It hears of nothing that the others take: they pass pieces on to
        the next zone, so that no piece leaves this one twice.
        """
        self.left(host)
        self._turn.append(host)
        self._neighbours[host] = _Neighbour(far=far)
        self._near += not far
        self.has(host, has)

    def left(self, host: str) -> None:
        gone = self._neighbours.pop(host, None)
        if gone is None:
            return
        self._turn.remove(host)
        self._near -= not gone.far
        self._again.pop(host, None)
        self._tally.remove(gone.has)
        elsewhere = self._tally.held()
        pending = 0
        for neighbour in self._neighbours.values():
            pending |= neighbour.pending
        if self.over:
            return
        again = ((gone.has & self._given & ~elsewhere) | (gone.pending & ~pending)) & self._have
        self._given &= ~again
        for piece in bitset.members(again):
            self._since.pop(piece, None)
            self._fresh.appendleft(piece)

    def has(self, host: str, pieces: int) -> None:
        """A neighbour says that it has these pieces: they are given out."""
        neighbour = self._neighbours.get(host)
        if neighbour is None:
            return
        pieces &= ~neighbour.has
        neighbour.has |= pieces
        self._tally.add(pieces)
        once_more = self._again.get(host)
        if once_more and pieces >> once_more[0] & 1:
            del self._again[host]
        news = pieces & ~self._given
        if not news:
            return
        self._given |= news
        for piece in bitset.members(news):
            if self._since.pop(piece, None) is not None:
                for other in self._neighbours.values():
                    other.pending &= ~(1 << piece)
        if any(news >> piece & 1 for piece in self._fresh):
            self._fresh = deque(p for p in self._fresh if not news >> p & 1)

    # --- the choice -------------------------------------------------------------------------

    def may_ask(self, host: str) -> int:
        """The pieces that a neighbour has been told of so far."""
        neighbour = self._neighbours.get(host)
        return neighbour.told if neighbour else 0

    def due(self, now: float) -> dict[str, int]:
        """What to tell now: neighbour -> pieces. Each is told of a piece once."""
        found: dict[str, int] = {}
        if self.over:
            for host, neighbour in self._neighbours.items():
                rest = self._have & ~neighbour.told & ~neighbour.has
                if rest:
                    neighbour.told |= rest
                    found[host] = rest
            return found
        for piece, since in list(self._since.items()):
            if now - since >= self.patience:
                self._tell(piece, now, found, anywhere=True)
        while self._fresh and len(self._since) < self.ahead:
            if not self._tell(self._fresh[0], now, found):
                break
            self._fresh.popleft()
        if not self._since:
            self._tell_again(now, found)
        return found

    def _tell_again(self, now: float, found: dict[str, int]) -> None:
        self._again = {h: told for h, told in self._again.items() if now - told[1] < self.patience}
        for host in list(self._turn):
            if len(self._again) >= AGAIN:
                return
            neighbour = self._neighbours[host]
            rest = self._have & self._given & ~(neighbour.told | neighbour.has)
            if host in self._again or not rest or not self._hears(host):
                continue
            piece = bitset.lowest(self._tally.rarest(rest))
            self._turn.remove(host)
            self._turn.append(host)
            neighbour.told |= 1 << piece
            self._again[host] = piece, now
            found[host] = found.get(host, 0) | 1 << piece

    def _tell(self, piece: int, now: float, found: dict[str, int], *, anywhere: bool = False) -> bool:
        """To whoever is next in turn and waits for the least; False if all know it. `anywhere`: of another zone,
        where nobody is left of this one."""
        bit = 1 << piece
        lack = [h for h in self._turn if not (self._neighbours[h].told | self._neighbours[h].has) & bit]
        able = [h for h in lack if self._hears(h)] or (lack if anywhere else [])
        if not able:
            return False
        host = min(able, key=lambda h: self._neighbours[h].pending.bit_count())
        self._turn.remove(host)
        self._turn.append(host)
        neighbour = self._neighbours[host]
        neighbour.told |= bit
        neighbour.pending |= bit
        self._since[piece] = now
        found[host] = found.get(host, 0) | bit
        return True
