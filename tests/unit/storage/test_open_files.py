"""Bytes on their way into files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dragonfly_ray.storage.open_files import WRITE_STEP, write_all


def test_a_piece_is_written_in_steps_that_small_blocks_of_memory_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, sizes = os.pwrite, []

    def counting(fd: int, data: memoryview, offset: int) -> int:
        sizes.append(len(data))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    data = os.urandom(3 * WRITE_STEP + 5)
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), memoryview(data), 7)
    assert (tmp_path / "file").read_bytes() == bytes(7) + data
    assert sizes == [WRITE_STEP] * 3 + [5]
