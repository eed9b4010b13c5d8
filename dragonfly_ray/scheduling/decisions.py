"""What was decided, and on what grounds: a bounded log that pictures, tests of policies and learning read."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

POLICY = "leases-in-order/1"


@dataclass(frozen=True, slots=True)
class Decision:
    """`arm`: which side of a comparison of policies the task is on, from its id alone."""

    id: int
    time: float
    kind: str
    task_id: str
    host: str
    choice: tuple[int, ...] = ()
    policy: str = POLICY
    arm: int = 0
    probability: float = 1.0
    features: dict[str, Any] = field(default_factory=dict)


class DecisionLog:
    """The newest decisions, oldest first."""

    def __init__(self, most: int = 10_000) -> None:
        self._kept: deque[Decision] = deque(maxlen=most)
        self._count = 0

    def lease(self, task_id: str, host: str, pieces: list[int], now: float, **features: Any) -> None:
        self._add("lease", task_id, host, tuple(pieces), now, features)

    def edge(self, task_id: str, parent: str, child: str, nbytes: int, seconds: float, now: float) -> None:
        """Bytes that went from a parent to a child."""
        self._add("edge", task_id, child, (), now, {"parent": parent, "bytes": nbytes, "seconds": seconds})

    def ban(self, task_id: str, host: str, now: float) -> None:
        self._add("ban", task_id, host, (), now, {})

    def recent(self, task_id: str | None = None) -> list[Decision]:
        return [d for d in self._kept if task_id in (None, d.task_id)]

    def _add(
        self,
        kind: str,
        task_id: str,
        host: str,
        choice: tuple[int, ...],
        now: float,
        features: dict[str, Any],
    ) -> None:
        self._count += 1
        arm = hashlib.sha256(task_id.encode()).digest()[0] & 1
        self._kept.append(Decision(self._count, now, kind, task_id, host, choice, arm=arm, features=features))
