"""What lies in folders of a node beside plain files, and what becomes of files while they are read."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceChangedError, SourceError, SourceNotFoundError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import Reader, Resolution, open_reader, resolve
from dragonfly_ray.sources.base import Stop

SIZE = 300_000


def look(path: Path, stop: Stop | None = None, **more: object) -> Resolution:
    source = Source(f"file://{path}", **more)  # type: ignore[arg-type]
    return resolve(source, Credentials(), OriginSettings(), stop=stop)


@contextmanager
def reading(path: Path, manifest: Manifest) -> Iterator[Reader]:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(f"file://{path}"), Credentials(), manifest, table, OriginSettings())
    try:
        yield reader
    finally:
        reader.close()


def read(path: Path, manifest: Manifest) -> bytes:
    table = PieceTable.of(manifest)
    with reading(path, manifest) as reader:
        pieces = reader.read(0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda n: None)
        return b"".join(bytes(data) for _, data in pieces)


def test_pipes_sockets_and_devices_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket")
        found = look(tmp_path, links="follow").manifest
    assert [entry.path for entry in found.entries] == ["file"]
    assert read(tmp_path, found) == b"1234"


@pytest.mark.parametrize("name", ["pipe", "device"])
def test_one_that_is_named_itself_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "pipe" if name == "pipe" else Path("/dev/null")
    with pytest.raises(SourceError, match=f"{path}: not a regular file or folder"):
        look(path)


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    found = look(tmp_path).manifest
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    with pytest.raises(SourceChangedError, match="/f: has changed"):
        read(tmp_path, found)


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_that_grows_is_noticed(tmp_path: Path, folder: bool) -> None:
    file = tmp_path / "log"
    file.write_bytes(os.urandom(SIZE))
    source = tmp_path if folder else file
    found = look(source).manifest
    with file.open("ab") as growing:
        growing.write(b"more")
    with pytest.raises(SourceChangedError, match="log: has changed"):
        read(source, found)


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(os.urandom(SIZE))
    found = look(file).manifest
    table = PieceTable.of(found)
    with reading(file, found) as reader, file.open("ab") as growing:

        def grow(count: int) -> None:
            growing.write(b"more")
            growing.flush()

        with pytest.raises(SourceChangedError):
            list(reader.read(0, len(table), lambda i: memoryview(bytearray(table[i].length)), grow))


def test_a_file_that_goes_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    found = look(tmp_path).manifest
    (tmp_path / "f").unlink()
    with pytest.raises(SourceNotFoundError, match=f"{tmp_path}/f"):
        read(tmp_path, found)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user who may not read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def secret() -> Iterator[Path]:
    """Not below pytest's folders, which are its user's own."""
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o755)
        folder = Path(above, "d")
        (folder / "sub").mkdir(parents=True)
        (folder / "file").write_bytes(b"1234")
        yield folder
        (folder / "sub").chmod(0o755)


def test_a_folder_that_may_not_be_read_is_named(secret: Path) -> None:
    (secret / "sub").chmod(0)
    with as_nobody():
        with pytest.raises(SourceAuthError, match=f"{secret}/sub: Permission denied"):
            look(secret)
        assert [entry.path for entry in look(secret, exclude=("sub",)).manifest.entries] == ["file"]


def test_a_file_that_may_not_be_read_is_named(secret: Path) -> None:
    (secret / "file").chmod(0)
    with as_nobody():
        found = look(secret).manifest
        with pytest.raises(SourceAuthError, match=f"{secret}/file: Permission denied"):
            read(secret, found)


@pytest.mark.parametrize("name", ["file", "sub", "100%25"])
def test_what_lies_in_a_closed_folder_is_named(secret: Path, name: str) -> None:
    secret.chmod(0)
    with as_nobody(), pytest.raises(SourceAuthError, match=f"{secret}/{name}: Permission denied"):
        look(secret / name)
    secret.chmod(0o755)


def test_a_deep_folder_is_walked(tmp_path: Path) -> None:
    folders = [f"{tmp_path}{'/d' * depth}" for depth in range(1, 1501)]
    for folder in folders:
        os.mkdir(folder)
    try:
        assert len(look(tmp_path).manifest.entries) == len(folders)
    finally:
        for folder in reversed(folders):  # what pytest cleans up with does not go so deep
            os.rmdir(folder)


def test_a_walk_ends_with_a_cancel(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    stop = Stop()
    stop.stop()
    with pytest.raises(SourceError, match="read cancelled"):
        look(tmp_path, stop)
