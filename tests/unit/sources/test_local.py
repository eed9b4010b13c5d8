"""Local files and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragonfly_ray.errors import (
    SourceChangedError,
    SourceNotFoundError,
    SourceUnsupportedError,
    UnsafePathError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.sources import resolve
from tests.reading import CONTENT, SETTINGS, look, read_all


def test_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1234")
    (tmp_path / "l").symlink_to("b/x")
    found = look(f"file://{tmp_path}").manifest
    assert [(e.path, e.kind, e.size) for e in found.entries] == [
        ("b", "dir", 0), ("b/x", "file", 4), ("empty", "dir", 0), ("l", "symlink", 0)]  # fmt: skip
    assert read_all(f"file://{tmp_path}", found) == b"1234"


def test_a_symlink_out_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("/etc/passwd")
    with pytest.raises(UnsafePathError, match="/l: a symlink"):
        look(f"file://{tmp_path}")


def test_a_local_file_that_changes_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(CONTENT)
    manifest = look(f"file://{file}").manifest
    file.write_bytes(CONTENT[::-1])
    with pytest.raises(SourceChangedError):
        read_all(f"file://{file}", manifest)


def test_include_and_exclude(tmp_path: Path) -> None:
    for name in ("a.bin", "b.txt", "c.bin"):
        (tmp_path / name).write_bytes(b"x")
    source = Source(f"file://{tmp_path}", include=("*.bin",), exclude=("c*",))
    found = resolve(source, Credentials(), SETTINGS)
    assert [e.path for e in found.manifest.entries] == ["a.bin"]
    with pytest.raises(SourceNotFoundError):
        resolve(Source(f"file://{tmp_path}", include=("*.nope",)), Credentials(), SETTINGS)


def test_missing_things_are_named() -> None:
    with pytest.raises(SourceNotFoundError, match="/no/such"):
        look("file:///no/such")
    with pytest.raises(SourceUnsupportedError, match="nosuch"):
        look("nosuch://x/y")
