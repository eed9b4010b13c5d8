"""Buffers for pieces on their way to the store, bounded in total for the whole peer."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from types import TracebackType
from typing import Self

BUDGET = 64 * 1024 * 1024
CHECK_INTERVAL_S = 0.5
"""Whoever waits for a buffer looks so often whether it is still wanted."""


class NotLentError(Exception):
    """The wait for a buffer has ended: it is no longer needed."""


class BufferPool:
    """Lends buffers: all that are asked for at once, or none, so that nobody holds some while it waits for more.

    Whoever asks when `budget` bytes are out waits for its turn, in order. But an owner that holds nothing is
    never kept waiting by others: each can go on, however slow the rest is. So the most that is out is `budget`,
    and one loan of each owner beyond it.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._out = 0
        self._loans: Counter[Hashable] = Counter()
        self._queue: deque[object] = deque()
        self._free: dict[int, list[bytearray]] = {}
        self._kept = 0
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for a buffer."""
        return len(self._queue)

    def take(
        self, lengths: Sequence[int], owner: Hashable = None, over: Callable[[], bool] = lambda: False
    ) -> list[bytearray]:
        """A buffer of at least each length, its capacity a power of two.

        Raises `NotLentError` soon after `over()` is true, at once after `wake`.
        """
        sizes = [1 << max(0, length - 1).bit_length() for length in lengths]
        total = sum(sizes)
        with self._changed:
            if self._queue or not self._fits(total, owner):
                self._wait(total, owner, over)
            self._out += total
            self._loans[owner] += len(sizes)
            found = [self._reuse(size) for size in sizes]
        return [bytearray(size) if made is None else made for size, made in zip(sizes, found, strict=True)]

    def _fits(self, total: int, owner: Hashable) -> bool:
        return self._out + total <= self.budget or owner not in self._loans

    def _wait(self, total: int, owner: Hashable, over: Callable[[], bool]) -> None:
        turn = object()
        self._queue.append(turn)
        try:
            while owner in self._loans and not (self._queue[0] is turn and self._fits(total, owner)):
                if over():
                    raise NotLentError
                self._changed.wait(CHECK_INTERVAL_S)
        finally:
            self._queue.remove(turn)
            self._changed.notify_all()

    def _reuse(self, size: int) -> bytearray | None:
        free = self._free.get(size)
        if not free:
            return None
        self._kept -= size
        return free.pop()

    def give(self, buffers: Sequence[bytearray], owner: Hashable = None) -> None:
        with self._changed:
            for buffer in buffers:
                size = len(buffer)
                self._out -= size
                if self._kept + self._out + size <= self.budget:
                    self._free.setdefault(size, []).append(buffer)
                    self._kept += size
            self._loans[owner] -= len(buffers)
            if not self._loans[owner]:
                del self._loans[owner]
            if self._queue:
                self._changed.notify_all()

    def wake(self) -> None:
        """Something has ended: whoever waits for it looks at once."""
        with self._changed:
            self._changed.notify_all()

    def trim(self) -> None:
        """Frees what nobody uses."""
        with self._changed:
            self._free.clear()
            self._kept = 0


class Lender:
    """One worker's loans: whatever it has not returned goes back at the end.

    `over` ends its waiting, as in `BufferPool.take`.
    """

    def __init__(
        self, pool: BufferPool, owner: Hashable = None, over: Callable[[], bool] = lambda: False
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._over = over
        self._lent: dict[int, bytearray] = {}
        self._reserve: list[bytearray] = []
        self._reserved = False

    def reserve(self, lengths: Sequence[int]) -> None:
        """All buffers that are needed at a time until `release`: from now on nothing waits."""
        self._reserve = sorted(self._pool.take(lengths, self._owner, self._over), key=len)
        self._reserved = True

    def release(self) -> None:
        """Gives back whatever was reserved or taken."""
        held = [*self._lent.values(), *self._reserve]
        self._lent.clear()
        self._reserve.clear()
        self._reserved = False
        if held:
            self._pool.give(held, self._owner)

    def take(self, index: int, length: int) -> memoryview:
        buffer = self._lent.get(index)
        if buffer is None or len(buffer) < length:
            self.give(index)
            buffer = self._lent[index] = self._one(length)
        return memoryview(buffer)[:length]

    def _one(self, length: int) -> bytearray:
        if not self._reserved:
            return self._pool.take([length], self._owner, self._over)[0]
        fitting = next(i for i, buffer in enumerate(self._reserve) if len(buffer) >= length)
        return self._reserve.pop(fitting)

    def give(self, index: int) -> None:
        buffer = self._lent.pop(index, None)
        if buffer is None:
            return
        if self._reserved:
            self._reserve.append(buffer)
            self._reserve.sort(key=len)
        else:
            self._pool.give([buffer], self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
