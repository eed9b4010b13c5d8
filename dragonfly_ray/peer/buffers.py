"""Buffers for pieces on their way to the store, bounded in total for the whole peer."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

BUDGET = 64 * 1024 * 1024


class BufferPool:
    """Lends buffers; whoever asks when `budget` bytes are out waits for one to come back."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._out = 0
        self._free: dict[int, list[bytearray]] = {}
        self._kept = 0
        self._changed = threading.Condition()

    def take(self, length: int) -> bytearray:
        """A buffer of at least `length` bytes, its capacity a power of two."""
        size = 1 << max(0, length - 1).bit_length()
        with self._changed:
            while self._out and self._out + size > self.budget:
                self._changed.wait()
            self._out += size
            free = self._free.get(size)
            if free:
                self._kept -= size
                return free.pop()
        return bytearray(size)

    def give(self, buffer: bytearray) -> None:
        size = len(buffer)
        with self._changed:
            self._out -= size
            if self._kept + self._out + size <= self.budget:
                self._free.setdefault(size, []).append(buffer)
                self._kept += size
            self._changed.notify_all()

    def trim(self) -> None:
        """Frees what nobody uses."""
        with self._changed:
            self._free.clear()
            self._kept = 0


class Lender:
    """One worker's loans: whatever it has not returned goes back at the end."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._lent: dict[int, bytearray] = {}

    def take(self, index: int, length: int) -> memoryview:
        buffer = self._lent.get(index)
        if buffer is None or len(buffer) < length:
            if buffer is not None:
                self._pool.give(buffer)
            buffer = self._lent[index] = self._pool.take(length)
        return memoryview(buffer)[:length]

    def give(self, index: int) -> None:
        buffer = self._lent.pop(index, None)
        if buffer is not None:
            self._pool.give(buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for index in list(self._lent):
            self.give(index)
