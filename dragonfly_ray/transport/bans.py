"""Hosts that are not served, and for how long."""

from __future__ import annotations

MOST_BANS = 10_000


class Bans:
    """Each of one host for one task, for `seconds`. As many as `MOST_BANS` are kept: the latest."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[tuple[str, str], float] = {}

    def add(self, task_id: str, host_id: str, now: float) -> None:
        self._until.pop((task_id, host_id), None)
        self._until[task_id, host_id] = now + self._seconds
        while len(self._until) > MOST_BANS:
            del self._until[next(iter(self._until))]

    def holds(self, task_id: str, host_id: str, now: float) -> bool:
        until = self._until.get((task_id, host_id))
        if until is None:
            return False
        if now >= until:
            del self._until[task_id, host_id]
            return False
        return True
