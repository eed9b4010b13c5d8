"""What a test leaves behind in its process."""

from __future__ import annotations

import contextlib
import os
import threading


class Held:
    """The threads and descriptors that there are. Which, not how many: those of earlier tests may end meanwhile."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._files = _files()

    def more_threads(self) -> list[str]:
        """Those that have been started since, and run."""
        return [thread.name for thread in threading.enumerate() if thread not in self._threads]

    def more_files(self) -> list[str]:
        """What descriptors lead to that have been opened since, and are open."""
        return [target for number, target in _files().items() if self._files.get(number) != target]


def _files() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed; or of this very look
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found
