"""Content that was put into Ray's object store for the workers of a node: for how long it is kept there."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    reference: T
    nbytes: int
    used: float


class LoadedObjects(Generic[T]):
    """References by task id, the least recently used first. Whoever still uses an object has one of its own: what
    is let go here stays until nobody does.

    The latest stays whatever its size, or whoever waits for it would not get it.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self._kept.values())

    def use(self, task_id: str, now: float) -> T | None:
        kept = self._kept.get(task_id)
        if kept is None:
            return None
        kept.used = now
        self._kept.move_to_end(task_id)
        return kept.reference

    def keep(self, task_id: str, reference: T, nbytes: int, now: float, *, budget: int) -> None:
        """The oldest go until all of it is within `budget` bytes."""
        self._kept.pop(task_id, None)
        self._kept[task_id] = _Kept(reference, nbytes, now)
        left = self.nbytes
        for task in list(self._kept)[:-1]:
            if left <= budget:
                return
            left -= self._kept.pop(task).nbytes

    def drop(self, task_id: str) -> None:
        self._kept.pop(task_id, None)

    def expire(self, now: float, *, idle: float) -> None:
        """What nobody has asked for in `idle` seconds goes."""
        for task in [t for t, kept in self._kept.items() if now - kept.used >= idle]:
            del self._kept[task]
