"""The pieces that this host reads at the origin once more, in the order in which it was asked to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class AuditQueue:
    """One is read at a time."""

    def __init__(self) -> None:
        self._pieces: deque[int] = deque()
        self._reading = False

    def add(self, pieces: Iterable[int]) -> bool:
        """True: somebody is to begin."""
        self._pieces.extend(pieces)
        begins = bool(self._pieces) and not self._reading
        self._reading |= begins
        return begins

    def next(self) -> int | None:
        """None: there is no more, and whoever reads ends."""
        self._reading = bool(self._pieces)
        return self._pieces.popleft() if self._pieces else None

    def drain(self) -> list[int]:
        """All that was not begun: none can be read now."""
        left = list(self._pieces)
        self._pieces.clear()
        return left
