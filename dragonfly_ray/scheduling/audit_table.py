"""A few pieces are read at the origin by a second host, so that nobody decides alone what the content is."""

from __future__ import annotations

import heapq
import random
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dragonfly_ray import bitset
from dragonfly_ray.scheduling.leases import TAIL

CONTROLS = 3
"""Pieces that are read again before a host is said to be wrong: replicas of an origin may differ in each."""


@dataclass(slots=True)
class _Audit:
    reader: str
    """The host that read it first."""
    auditor: str = ""
    since: float = 0.0
    unable: set[str] = field(default_factory=set)
    """Those that could not read it."""

    def free_for(self, host: str) -> bool:
        return not self.auditor and self.reader != host and host not in self.unable


@dataclass(slots=True)
class _Verdict:
    """Of a third host: who was wrong, if the origin has not changed."""

    wrong: tuple[str, ...]
    controls: set[int]
    """The pieces whose reading is waited for."""


@dataclass(slots=True)
class AuditTable:
    """Of one task: which pieces are read twice, and by whom.

    They are drawn at random from all but the last tenth, which is read when everybody waits for the end (of
    all, where all are to be read twice). What is not compared within `timeout` seconds since its first reading
    is left out: an audit needs another host that may go to the origin, and holds nobody up for longer.
    """

    pieces: int
    share: float
    timeout: float
    rng: random.Random = field(default_factory=secrets.SystemRandom)
    chosen: int = 0
    """Those that nobody has read yet."""
    disputed: dict[int, dict[str, bytes]] = field(default_factory=dict)
    """Piece -> what each host says that the origin gave it; a third decides."""
    confirmed: int = 0
    """Pieces that two hosts have read alike."""
    missed: int = 0
    now: float = 0.0
    controls: dict[int, _Verdict] = field(default_factory=dict)
    """Pieces that are read again to find out whether the origin has changed."""
    suspects: frozenset[str] | None = None
    """Those who are party to every dispute so far; None: there was none. Nobody: it is no single host's doing."""
    _read_at: dict[int, int] = field(default_factory=dict)
    """Piece -> the number of its reading."""
    _readings: int = 0
    _under_way: dict[int, _Audit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        early = self.pieces if self.share >= 1 else self.pieces - int(TAIL * self.pieces)
        wanted = self.share * self.pieces
        count = min(early, int(wanted) + (self.rng.random() < wanted % 1))
        self.chosen = bitset.of(self.rng.sample(range(early), count))

    def cover(self, pieces: int) -> None:
        """The origin's own checksums say of these what they must be."""
        self.chosen &= ~pieces

    @property
    def pending(self) -> bool:
        """Whether some that were read once are to be compared yet."""
        return bool(self._under_way)

    def reads(self, host: str) -> bool:
        """Whether this host reads one now that another has read."""
        return any(audit.auditor == host for audit in self._under_way.values())

    def noted(self, pieces: Iterable[int]) -> None:
        """They were read at the origin, in this order."""
        for piece in pieces:
            self._readings += 1
            if piece not in self.disputed:
                self._read_at[piece] = self._readings

    def read(self, host: str, pieces: Iterable[int], now: float) -> None:
        """A host has read these at the origin; empty: one that no other could check."""
        self.now = now
        for piece in pieces:
            if self.chosen >> piece & 1:
                self.chosen &= ~(1 << piece)
                if host:
                    self._under_way[piece] = _Audit(host, since=now)
                else:
                    self.missed += 1

    def waiting(self, host: str) -> int | None:
        """One that this host could read; none while it reads another."""
        if self.reads(host):
            return None
        return next((p for p, audit in self._under_way.items() if audit.free_for(host)), None)

    def begin(self, host: str, piece: int) -> None:
        self._under_way[piece].auditor = host

    def result(self, host: str, piece: int, found: bytes, known: bytes | None) -> bool:
        """What a second host has read, and what the record says. False: they differ, and it is disputed now."""
        audit = self._under_way.get(piece)
        if audit is None or audit.auditor != host:
            return True
        del self._under_way[piece]
        if known is None:
            self.missed += 1
            return True
        if found == known:
            self.confirmed |= 1 << piece
            return True
        self.disputed[piece] = {audit.reader: known, host: found}
        said = frozenset((audit.reader, host))
        self.suspects = said if self.suspects is None else self.suspects & said
        return False

    def gave_up(self, host: str, pieces: Collection[int] | None = None) -> None:
        """It could not read them, or is gone (None): another may."""
        for piece, audit in list(self._under_way.items()):
            if audit.auditor == host and (pieces is None or piece in pieces):
                audit.unable.add(host)
                audit.auditor = ""

    def unconfirm(self, piece: int) -> None:
        """Its digest was dropped: what is read of it from now on, nobody has compared."""
        self.confirmed &= ~(1 << piece)

    def barred(self, host: str) -> int:
        """Pieces that a host is not to read (again): it is one of those who disagree about them. All, where it was
        outvoted and a verdict is awaited."""
        if any(host in verdict.wrong for verdict in self.controls.values()):
            return bitset.full(self.pieces)
        return bitset.of(p for p, said in self.disputed.items() if host in said)

    def decide(self, host: str, piece: int, found: bytes) -> tuple[list[str], bool] | None:
        """What a third host has read: who was wrong, and whether anybody was right. None: it is no third."""
        said = self.disputed.get(piece)
        if said is None or host in said:
            return None
        del self.disputed[piece]
        wrong = [other for other, digest in said.items() if digest != found]
        if len(wrong) < len(said):
            self.confirmed |= 1 << piece
        return wrong, len(wrong) < len(said)

    def control(self, piece: int, wrong: Sequence[str], readers: Mapping[str, int], recorded: int) -> bool:
        """Has a few pieces read again that others had read before anybody had the disputed one, the nearest to it;
        or the first that they have read since.

        `readers`: host -> the pieces that it has read. False: there is none.
        """
        before = self._read_at.get(piece, 0)
        others = [(host, bits & recorded) for host, bits in readers.items() if host not in wrong]
        found = [
            ((0, abs(p - piece)) if at < before else (1, at), p, host)
            for p, at in self._read_at.items()
            if p != piece and p not in self.disputed and p not in self.controls
            for host, bits in others
            if bits >> p & 1
        ]
        if not found:
            return False
        chosen = heapq.nsmallest(CONTROLS, found)
        verdict = _Verdict(tuple(wrong), {p for _, p, _ in chosen})
        for _, p, reader in chosen:
            audit = self._under_way.setdefault(p, _Audit(reader, since=self.now))
            audit.unable.update(wrong)
            self.controls[p] = verdict
        return True

    def controlled(self, host: str, piece: int, found: bytes, known: bytes | None) -> bool | None:
        """What came of that: whether the origin is as it was. None: it was not asked for, or tells nothing."""
        audit = self._under_way.get(piece)
        if audit is None or audit.auditor != host or known is None:
            return None
        del self._under_way[piece]
        return found == known

    def upheld(self, piece: int) -> tuple[str, ...]:
        """A control has shown no change, or nothing: those who were wrong, if it was the last of its verdict."""
        verdict = self.controls.pop(piece)
        verdict.controls.discard(piece)
        return () if verdict.controls else verdict.wrong

    def uncontrolled(self) -> list[str]:
        """Those who were wrong, where nobody has found out in time whether the origin has changed."""
        over = [piece for piece in self.controls if piece not in self._under_way]
        return [host for piece in over for host in self.upheld(piece)]

    def rest(self) -> None:
        """Nobody fetches the task any more: what is read later has its own order, and no verdict waits for it."""
        self.controls.clear()
        self._read_at.clear()

    def stop(self) -> None:
        """Nothing of it counts any more."""
        for each in (self.disputed, self.controls, self._under_way):
            each.clear()
        self.chosen = 0

    def expel(self, host: str) -> None:
        """What it has read counts for nothing any more, and what it says about others neither."""
        self.gave_up(host)
        self._under_way = {p: audit for p, audit in self._under_way.items() if audit.reader != host}
        self.disputed = {p: said for p, said in self.disputed.items() if host not in said}

    def expire(self, now: float) -> None:
        self.now = now
        for piece in [p for p, audit in self._under_way.items() if now - audit.since > self.timeout]:
            del self._under_way[piece]
            self.missed += 1
