"""The conformance suite on filesystems that no two threads may use at once: FTP, and archives inside others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dragonfly_ray.sources.conformance import Place, SourceConformance
from tests.archives import Archive
from tests.conformance.test_sources import writer
from tests.ftp import Ftp
from tests.nginx import Nginx
from tests.sftp import Sftp


class TestFtp(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with Ftp(tmp_path / "ftp") as server:
            yield Place(server.url, writer(server.root))


class TestFtpForPeople(SourceConformance):
    """A server of the old kind: its listings are made to be looked at, and tell no version."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with Ftp(tmp_path / "ftp", mlsd=False) as server:
            yield Place(server.url, writer(server.root))


class TestSftp(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with Sftp(tmp_path / "sftp") as server:
            yield Place(server.url, writer(server.root))


class Inside(Place):
    """`url` is what stands behind the `::`."""

    protocol = "tar"

    def at(self, path: str) -> str:
        return f"{self.protocol}://{path}::{self.url}"


class InsideZip(Inside):
    protocol = "zip"


class TestTar(SourceConformance):
    @pytest.fixture(params=["a.tar", "dot.tar", "a.tar.gz"])
    def place(self, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
        archive = Archive(tmp_path / request.param)
        return Inside(f"file://{archive.path}", archive.put)


class TestZip(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        archive = Archive(tmp_path / "a.zip")
        return InsideZip(f"file://{archive.path}", archive.put)


class TestTarBehindHttp(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with Nginx(tmp_path / "www", tmp_path / "nginx") as origin:
            archive = Archive(origin.root / "a.tar")
            yield Inside(f"{origin.url}/a.tar", archive.put)


class TestTarBehindFtp(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with Ftp(tmp_path / "ftp") as server:
            archive = Archive(server.root / "a.tar")
            yield Inside(f"{server.url}/a.tar", archive.put)


class TestTarInACopy(SourceConformance):
    """Behind a layer that keeps whole files."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with Nginx(tmp_path / "www", tmp_path / "nginx") as origin:
            archive = Archive(origin.root / "a.tar")
            yield Inside(f"simplecache::{origin.url}/a.tar", archive.put)


class TestTarInMemory(SourceConformance):
    """There all that open a file share one position in it."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        files: Any = fsspec.filesystem("memory")
        archive = Archive(tmp_path / "a.tar")

        def put(path: str, data: bytes) -> None:
            archive.put(path, data)
            files.pipe_file("/threadless/a.tar", archive.path.read_bytes())

        yield Inside("memory://threadless/a.tar", put)
        if files.exists("/threadless"):
            files.rm("/threadless", recursive=True)
