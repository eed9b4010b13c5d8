"""What goes first when room is needed: the least recently used, never what is pinned or in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """One task in a store. `used`: when it last was."""

    task_id: str
    size: int
    used: float
    kept: bool
    """Pinned or in use."""


def excess(used: int, need: int, quota: int, high: float, low: float) -> int:
    """Bytes that should go so that `need` more fit: none below the high-water mark, then down to the low."""
    if used + need <= quota * high:
        return 0
    return max(0, used + need - int(quota * low))


def choose(held: Iterable[Held], excess: int) -> list[str]:
    """The tasks to evict for `excess` bytes, oldest first; all there are if that is not enough."""
    chosen: list[str] = []
    for each in sorted((h for h in held if not h.kept), key=lambda h: h.used):
        if excess <= 0:
            break
        chosen.append(each.task_id)
        excess -= each.size
    return chosen
