"""What a scheduler knows of one task: who holds what, the record of digests, leases, neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dragonfly_ray.model import DIGEST_SIZE, Task, root_digest
from dragonfly_ray.scheduling import bits as bitset
from dragonfly_ray.scheduling.graph import Graph
from dragonfly_ray.scheduling.leases import LeaseTable

BAN_AFTER = 2
"""Complaints of corrupted bytes, from different hosts, before the sender is banned."""


@dataclass(slots=True)
class Traffic:
    """Bytes of a task at one host, by where they came from."""

    origin: int = 0
    peers: int = 0
    cache: int = 0
    small: int = 0

    @property
    def total(self) -> int:
        return self.origin + self.peers + self.cache + self.small


@dataclass(slots=True)
class TaskState:
    """One task. Holders and participants are host ids."""

    task: Task
    leases: LeaseTable
    graph: Graph
    origin: str = ""
    """`scheme://host` of the source: the key of the request budget."""
    holders: dict[str, int] = field(default_factory=dict)
    record: dict[int, bytes] = field(default_factory=dict)
    participants: dict[str, bool] = field(default_factory=dict)
    """host -> whether it only helps (it is no target)."""
    traffic: dict[str, Traffic] = field(default_factory=dict)
    banned: set[str] = field(default_factory=set)
    complaints: dict[str, set[str]] = field(default_factory=dict)
    disputed: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    failing_since: float | None = None
    failures: int = 0
    manifest_holders: set[str] = field(default_factory=set)

    @property
    def everything(self) -> int:
        return bitset.full(self.task.pieces)

    def is_complete(self, host: str) -> bool:
        return self.holders.get(host, 0) == self.everything

    def somewhere(self) -> int:
        """The pieces that some holder has which is not banned."""
        found = 0
        for host, held in self.holders.items():
            if host not in self.banned:
                found |= held
        return found

    def hold(self, host: str, pieces: int) -> None:
        self.holders[host] = self.holders.get(host, 0) | pieces
        if host not in self.banned:
            self.leases.done(pieces)

    def drop(self, host: str, pieces: int | None = None) -> None:
        """`host` has lost `pieces` (all: None): what nobody else has must come from the origin again."""
        before = self.holders.get(host, 0)
        lost = before if pieces is None else before & pieces
        if pieces is None:
            self.holders.pop(host, None)
            self.leases.drop(host)
        else:
            self.holders[host] = before & ~lost
        self.leases.lost(lost & ~self.somewhere())

    def learn(self, host: str, digests: Iterable[tuple[int, bytes]]) -> tuple[list[int], list[str]]:
        """Enters digests in the record.

        Returns the pieces for which there are now two digests (to be dropped by all and fetched
        again), and the hosts that turned out to have lied in an earlier dispute.
        """
        dropped, liars = [], []
        for piece, digest in digests:
            if not 0 <= piece < self.task.pieces or len(digest) != DIGEST_SIZE:
                continue
            known = self.record.get(piece)
            if known is None:
                self.record[piece] = digest
                liars += [h for h, other in self.disputed.pop(piece, []) if other != digest]
            elif known != digest:
                holders = [(h, known) for h, held in self.holders.items() if held >> piece & 1 and h != host]
                self.disputed[piece] = [*holders[:1], (host, digest)]
                del self.record[piece]
                dropped.append(piece)
        return dropped, liars

    def complain(self, about: str, by: str) -> bool:
        """Corrupted bytes from `about`; whether it is banned for them now."""
        if about in self.banned:
            return False
        said = self.complaints.setdefault(about, set())
        said.add(by)
        others = len(self.participants) - (about in self.participants)
        return len(said) >= min(BAN_AFTER, max(1, others))

    def ban(self, host: str) -> None:
        self.banned.add(host)
        alone = self.holders.get(host, 0) & ~self.somewhere()
        self.leases.drop(host)
        self.leases.lost(alone)

    def root(self) -> bytes | None:
        """The digest over the whole record; None while it has gaps."""
        if len(self.record) < self.task.pieces:
            return None
        return root_digest([self.record[i] for i in range(self.task.pieces)])

    def gaps(self, most: int) -> tuple[int, ...]:
        """Up to `most` pieces whose digest is not known."""
        missing = (i for i in range(self.task.pieces) if i not in self.record)
        return tuple(itertools.islice(missing, most))

    def digests(self) -> bytes:
        blank = bytes(DIGEST_SIZE)
        return b"".join(self.record.get(i, blank) for i in range(self.task.pieces))

    def learn_all(self, host: str, digests: bytes, held: int) -> tuple[list[int], list[str]]:
        """The digests of an announcement, 32 bytes a piece."""
        if len(digests) != DIGEST_SIZE * self.task.pieces:
            return [], []
        return self.learn(
            host, ((i, digests[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE]) for i in bitset.members(held))
        )


def new_task(
    task: Task, *, timeout: float, everybody: int, degree: int, origin: str, units: Sequence[int] = ()
) -> TaskState:
    leases = LeaseTable(task.pieces, free=bitset.full(task.pieces), timeout=timeout, units=units)
    return TaskState(task, leases, Graph(everybody=everybody, degree=degree, seed=task.id), origin)
