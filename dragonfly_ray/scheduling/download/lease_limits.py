"""How the leased pieces of a task can be read at its origin."""

from __future__ import annotations

from dataclasses import dataclass

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import PieceTable, Task

SMALL_FILES_PER_PIECE = 4
"""From so many on, pieces are read a few at a time: each file is a request of its own."""


@dataclass(frozen=True, slots=True)
class LeaseLimits:
    """`connections`: runs of pieces read at once; `leaf`: bytes of a piece; `least`: pieces of a run, where they are
    small files; `ranges`: whether the origin can be read from any piece on; `requests`: at the origin at once where the
    scheduler says nothing, 0: as many as `connections`."""

    connections: int
    lease_seconds: float
    leaf: int
    least: int = 1
    ranges: bool = True
    requests: int = 0

    @classmethod
    def of(cls, task: Task, leaf: int, settings: OriginSettings, together: int = 1) -> LeaseLimits:
        """`together`: pieces of small files that whoever reads has requests under way for at once."""
        return cls(
            connections=settings.connections,
            lease_seconds=settings.lease_seconds,
            leaf=max(1, leaf),
            least=together if task.entries > SMALL_FILES_PER_PIECE * task.pieces else 1,
            ranges=task.ranges,
            requests=max(settings.connections, settings.small_connections),
        )


def stream_start(task: Task, table: PieceTable, first: int) -> int:
    """The piece at which to begin reading in order to get piece `first`.

    An origin without ranges sends the file from its beginning. What passes on the way is kept as well where no strong
    validator tells that it is what others have read: only the record can.
    """
    if task.ranges or task.validator == "strong":
        return first
    segments = table.segments(first)
    return table.of_entry(segments[0].entry).start if len(segments) == 1 and segments[0].offset else first
