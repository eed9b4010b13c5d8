"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

HANG = 60.0
"""Seconds: what takes longer than this hangs, however busy the machine is."""


def until(
    condition: Callable[[], object], timeout: float = HANG, why: Callable[[], object] = lambda: ""
) -> None:
    """Many times what it should take, then it fails and says `why`."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in time {why()}"
        time.sleep(0.01)
