"""The umask in force: of a node's peer, or of a caller on its own node."""

from __future__ import annotations

import contextlib
from pathlib import Path


def current_umask() -> int:
    """Of this process. Asking the kernel the usual way changes it for a moment, for all threads."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o077
