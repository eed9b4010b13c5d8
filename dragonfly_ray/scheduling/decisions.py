"""What was decided, and on what grounds: a bounded log that pictures, tests of policies and learning read.

Every decision has a number. Of the neighbour sets drawn in a large task only some are kept whole, so
that the log costs little; what then flowed over the edges names the numbers of the sets they were drawn in.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["neighbours", "lease", "edges", "ban"]

LEASES = "leases-in-order/1"
KEPT: dict[Kind, int] = {"neighbours": 2_000, "lease": 5_000, "edges": 5_000, "ban": 1_000}
WHOLE = 500
"""The first so many sets of a task are kept; after them one in `EVERY`."""
EVERY = 16
MOST = 64
"""Candidates, or edges, in one record."""


def arm_of(task_id: str) -> int:
    """Which side of a comparison of policies a task is on, from its id alone: 0 or 1."""
    return hashlib.sha256(task_id.encode()).digest()[0] & 1


@dataclass(slots=True)
class Decision:
    """`host`: for whom it was decided."""

    id: int
    time: float
    kind: Kind
    task_id: str
    host: str
    choice: tuple[Any, ...] = ()
    """Host ids of neighbours, numbers of pieces, or (parent, bytes, id of the set it was drawn in)."""
    candidates: tuple[str, ...] = ()
    features: dict[str, Any] = field(default_factory=dict)
    """Of the lease; or `names`, and `values` in order for each candidate."""
    policy: str = ""
    arm: int = 0
    probability: float = 1.0
    """The chance that a host of the pool had to be a candidate."""
    every: int = 1
    """It stands for so many like it that are not kept."""


class DecisionLog:
    """The newest decisions of each kind."""

    def __init__(self) -> None:
        self._kept: dict[Kind, deque[Decision]] = {kind: deque(maxlen=most) for kind, most in KEPT.items()}
        self.count = 0
        """Decisions so far; the number of the newest."""

    def wants(self, drawn: int) -> int:
        """Whether the set after `drawn` others of its task is kept whole: for how many it stands, or 0."""
        if drawn < WHOLE:
            return 1
        return EVERY if drawn % EVERY == 0 else 0

    def number(self) -> int:
        """The number of a decision that is not kept."""
        self.count += 1
        return self.count

    def neighbours(
        self,
        task_id: str,
        host: str,
        chosen: Sequence[str],
        now: float,
        *,
        candidates: Sequence[str] = (),
        features: dict[str, Any] | None = None,
        policy: str,
        arm: int,
        probability: float,
        every: int,
    ) -> int:
        """A neighbour set drawn; its number."""
        return self._add(
            Decision(self.number(), now, "neighbours", task_id, host, tuple(chosen[:MOST]),
                     tuple(candidates), features or {}, policy, arm, probability, every)
        )  # fmt: skip

    def lease(
        self, task_id: str, host: str, pieces: Sequence[int], now: float, *, arm: int = 0, **features: Any
    ) -> int:
        """Pieces of the origin granted."""
        return self._add(
            Decision(self.number(), now, "lease", task_id, host, tuple(pieces), (), features, LEASES, arm)
        )

    def edges(
        self,
        task_id: str,
        child: str,
        edges: Sequence[tuple[str, int, int]],
        seconds: float,
        now: float,
        *,
        arm: int = 0,
    ) -> int:
        """(parent, bytes, number of the set that it was drawn in), over so many seconds."""
        return self._add(
            Decision(self.number(), now, "edges", task_id, child, tuple(edges[:MOST]), (),
                     {"seconds": seconds}, arm=arm)
        )  # fmt: skip

    def ban(self, task_id: str, host: str, now: float, *, arm: int = 0) -> int:
        return self._add(Decision(self.number(), now, "ban", task_id, host, arm=arm))

    def recent(self, task_id: str | None = None) -> list[Decision]:
        """Oldest first."""
        merged = heapq.merge(*self._kept.values(), key=lambda d: d.id)
        return [d for d in merged if task_id in (None, d.task_id)]

    def _add(self, decision: Decision) -> int:
        self._kept[decision.kind].append(decision)
        return decision.id
