"""A file system that holds less than ours: it cannot tell `A` from `a`, takes what Windows takes, and has no modes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import programs


@contextmanager
def ntfs_at(folder: Path) -> Iterator[Path]:
    """Mounted below `folder`, while the block lasts; skips the test where that cannot be."""
    mount, mkfs = programs.need("lowntfs-3g"), programs.need("mkntfs")
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        pytest.skip("without mounts")
    image, place = folder / "image", folder / "ntfs"
    image.touch()
    os.truncate(image, 32 << 20)
    place.mkdir()
    subprocess.run([mkfs, "-q", "-F", image], check=True, capture_output=True)
    done = subprocess.run(
        [mount, "-o", "ignore_case,windows_names", image, place], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"without mounts ({done.stderr.strip()[:100]})")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
