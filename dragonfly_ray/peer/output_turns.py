"""One output of a distribution on a node is written at a time, whatever content it is to have."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class OutputTurns:
    """Where a source changes while an output is written, the output of the new content waits for that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextmanager
    def of(self, spec_id: str) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(spec_id, threading.Lock())
            self._users[spec_id] += 1
        try:
            with turn:
                yield
        finally:
            with self._lock:
                self._users[spec_id] -= 1
                if not self._users[spec_id]:
                    del self._turns[spec_id], self._users[spec_id]
