"""The condition of memory that new files land in.

A virtual machine hands memory that is free back to its host after some seconds (free page reporting), and the first touch
of such a page is dear. So what writes right after a large file was deleted is faster than what writes later. Whoever
compares two writers gives both the same: `warm` pages, which a file has just left, or `fresh` ones.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

Condition = Literal["fresh", "warm"]
CONDITIONS: tuple[Condition, ...] = ("fresh", "warm")
HANDED_BACK_S = 6.0
"""The kernel reports what has been free for two seconds, a part at a time."""
_REPORTING = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_CHUNK = 16 << 20


def reporting() -> str:
    """Whether this machine hands free memory back, for the table."""
    try:
        return f"free memory is handed back to the host from order {_REPORTING.read_text().strip()}"
    except OSError:
        return "free memory is kept"


def prepare(condition: Condition, folder: Path, size: int) -> None:
    """Right before something writes a file of `size` to the file system of `folder`, from which nothing is deleted
    since."""
    os.sync()
    if condition == "fresh":
        time.sleep(HANDED_BACK_S)
        return
    file = folder / "warm"
    chunk = bytes(_CHUNK)
    with file.open("wb") as written:
        for _ in range(-(-size // _CHUNK)):
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    file.unlink()
