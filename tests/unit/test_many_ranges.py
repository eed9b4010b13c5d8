"""A little of each of many files: what that costs grows with their number, not with its square."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Segment, Source
from dragonfly_ray.sources import range_reader, resolve
from tests.origins import FolderOrigin
from tests.swarm import Swarm


def test_entries_are_not_counted_again_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = f"/{uuid4().hex}"
    files = fsspec.filesystem("memory")
    files.pipe({f"{folder}/f{number:03}": b"%03d" % number for number in range(200)})
    source = Source(f"memory:/{folder}/")
    counted: list[Manifest] = []
    leaf = inspect.getattr_static(Manifest, "leaf")

    def count(manifest: Manifest) -> int:
        counted.append(manifest)
        return int(leaf.fget(manifest))

    monkeypatch.setattr(Manifest, "leaf", property(count))
    manifest = resolve(source, Credentials(), OriginSettings()).manifest
    with range_reader(source, Credentials(), OriginSettings(), manifest) as read:
        found = read([Segment(number, 1, 2) for number in range(200)])
    assert found == [(b"%03d" % number)[1:] for number in range(200)]
    assert len(counted) < 60, "each thread once, if they begin together"


def test_a_proof_finds_the_places_of_a_piece_once_for_all_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece may hold thousands of small files; each of them is compared with what is held."""
    files = {f"f{number:03}": b"%03d" % number for number in range(500)}
    with FolderOrigin(files) as origin, contextlib.closing(Swarm(tmp_path, 1)) as swarm:
        swarm.distribute(origin.url, "first.0")
        found: list[int] = []
        segments = PieceTable.segments

        def count(table: PieceTable, index: int) -> list[Segment]:
            found.append(index)
            return segments(table, index)

        monkeypatch.setattr(PieceTable, "segments", count)
        other = Credentials(headers={"X-Api-Key": "another"})
        view = swarm.distribute(origin.url, "second.0", credentials=other)
    assert view["nodes"]["n0"]["state"] == "done"
    assert view["nodes"]["n0"]["bytes_origin"] == 0
    assert len(found) < 50
