"""Who may call which instance of a filesystem, and what becomes of it."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.reference import ReferenceFileSystem
from pyarrow.fs import LocalFileSystem as ArrowLocal

from dragonfly_ray import api
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceError, SourceUnreachableError, SourceUnsupportedError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.options import SourceOptions, options_of
from dragonfly_ray.sources import resolve
from dragonfly_ray.sources.chained_filesystems import inside, thread_safe
from dragonfly_ray.sources.fs_instances import Instances, Opened, open_filesystem
from dragonfly_ray.urls import basename, redacted
from tests.archives import tar_bytes
from tests.ftp import Ftp
from tests.sftp import Sftp
from tests.waiting import HANG

SETTINGS = OriginSettings(connect_timeout=60.0, read_timeout=60.0)


class Plain(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Not thread-safe, for all that is known. Its client is what it holds."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.client = self
        self.closed = False

    def close(self) -> None:
        self.closed = True


def plain() -> Opened:
    return Opened(Plain(), "")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "a.tar").write_bytes(tar_bytes({"a/b": b"content", "c": b"more"}))
    return tmp_path / "a.tar"


def opened(url: str, **options: Any) -> Any:
    return open_filesystem(url, options, 5.0).fs


def in_chains(archive: Path) -> dict[str, Callable[[], Any]]:
    inner = opened(f"tar://::file://{archive}")
    return {
        "a file": lambda: opened(f"file://{archive}"),
        "memory": lambda: opened("memory://a"),
        "http": lambda: opened("http://127.0.0.1/a"),
        "arrow": lambda: ArrowFSWrapper(ArrowLocal()),
        "tar": lambda: inner,
        "http in a folder": lambda: DirFileSystem("a", fs=opened("http://127.0.0.1/a"), skip_instance_cache=True),
        "tar in a folder": lambda: DirFileSystem("a", fs=inner, skip_instance_cache=True),
        "tar on asyncio": lambda: AsyncFileSystemWrapper(inner),
        "tar by references": lambda: ReferenceFileSystem({"x": ["tar://c"]}, fs={"tar": inner}, skip_instance_cache=True),
        "http by references": lambda: ReferenceFileSystem(
            {"x": ["http://127.0.0.1/c"]}, fs={"http": opened("http://127.0.0.1/a")}, skip_instance_cache=True
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "safe"), [
    ("a file", True), ("memory", True), ("http", True), ("arrow", True), ("http in a folder", True),
    ("http by references", True), ("tar", False), ("tar in a folder", False), ("tar on asyncio", False),
    ("tar by references", False),
])  # fmt: skip
def test_a_chain_counts_by_what_is_inside(archive: Path, kind: str, safe: bool) -> None:
    assert thread_safe(in_chains(archive)[kind]()) is safe


def test_no_instance_in_a_chain_is_anybody_elses(archive: Path) -> None:
    """fsspec keeps instances by arguments and thread, so that a later thread may find another's."""
    url = f"simplecache::tar://c::filecache::file://{archive}"
    first, second = list(inside(opened(url))), list(inside(opened(url)))
    assert len(first) >= 4
    assert not {id(each) for each in first} & {id(each) for each in second}


def test_two_threads_never_have_the_same(archive: Path) -> None:
    instances = Instances(lambda: open_filesystem(f"tar://::file://{archive}", {}, 5.0), most=3)
    used: set[int] = set()
    lock, meeting = threading.Lock(), threading.Barrier(3)

    def one(_: int) -> None:
        with instances.lend() as lent:
            with lock:
                assert id(lent) not in used
                used.add(id(lent))
            meeting.wait(HANG)  # three at once, indeed
            with lock:
                used.remove(id(lent))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(12)))
    instances.close()


def test_a_thread_safe_one_is_shared() -> None:
    made: list[Opened] = []

    def make() -> Opened:
        made.append(open_filesystem("memory://a", {}, 5.0))
        return made[-1]

    instances = Instances(make)
    with instances.lend() as one, instances.lend() as other:
        assert one is other
    assert len(made) == 1


def test_those_that_keep_copies_are_not_made_twice(archive: Path) -> None:
    made: list[Opened] = []

    def make() -> Opened:
        made.append(open_filesystem(f"tar://::simplecache::file://{archive}", {}, 5.0))
        return made[-1]

    instances = Instances(make)

    def one(_: int) -> None:
        with instances.lend() as lent:
            assert lent.fs.cat_file("a/b") == b"content"

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(20)))
    assert len(made) == 1
    instances.close()


def test_where_no_more_are_granted_the_others_do() -> None:
    made: list[Opened] = []

    def make() -> Opened:
        if made:
            raise SourceUnreachableError("421")
        made.append(plain())
        return made[-1]

    instances = Instances(make)
    asked = threading.Event()

    def other() -> Opened:
        asked.set()
        with instances.lend() as lent:
            return lent

    with ThreadPoolExecutor(1) as pool:
        with instances.lend():
            waiting = pool.submit(other)
            assert asked.wait(HANG)
        assert waiting.result(HANG) is made[0]


def test_what_opens_none_says_why_each_time() -> None:
    def make() -> Opened:
        raise SourceUnreachableError("connection refused")

    instances = Instances(make)
    for _ in range(2):
        with pytest.raises(SourceUnreachableError, match="connection refused"), instances.lend():
            pass


def test_after_an_error_it_is_not_used_again() -> None:
    instances = Instances(plain)
    with pytest.raises(EOFError), instances.lend() as lent:
        raise EOFError
    assert lent.fs.closed
    with instances.lend() as other:
        assert other is not lent


def test_all_are_closed() -> None:
    instances = Instances(plain, most=2)
    with instances.lend() as first:
        with instances.lend() as second:
            pass
        instances.close()
        assert second.fs.closed
        assert not first.fs.closed
    assert first.fs.closed
    with pytest.raises(SourceError), instances.lend():
        pass


def test_whoever_waits_for_one_hears_of_the_end() -> None:
    instances = Instances(plain, most=1)

    def wait() -> None:
        with instances.lend():
            pass

    with ThreadPoolExecutor(1) as pool, instances.lend():
        waiting = pool.submit(wait)
        instances.abort()
        assert isinstance(waiting.exception(HANG), SourceError)


@pytest.mark.parametrize(("url", "name"), [
    ("tar://big/a.bin::file:///x/y.tar", "a.bin"), ("tar://a.bin::file:///x/y.tar", "a.bin"),
    ("tar://::file:///x/y.tar", "y.tar"), ("simplecache::https://h/x/a%20b?k=v", "a b"),
    ("tar://a%20b::https://h/y.tar", "a%20b"), ("s3://b/x/a::b", "a::b"), ("ftp://h/d/", "d"),
])  # fmt: skip
def test_the_name_of_a_chain_is_of_the_first_that_names_something(url: str, name: str) -> None:
    assert basename(url) == name


def test_a_chain_is_shown_as_it_was_given() -> None:
    assert redacted("tar://::https://u:hunter2@h/a.tar?sig=x") == "tar://::https://h/a.tar?sig=***"


@pytest.mark.parametrize("slash", ["", "/"])
def test_empty_folders_of_a_filesystem_on_asyncio(tmp_path: Path, slash: str) -> None:
    """SSH's, say."""
    (tmp_path / "d" / "empty").mkdir(parents=True)
    (tmp_path / "d" / "file").write_bytes(b"")
    found = resolve(Source(f"asyncwrapper::file://{tmp_path}/d{slash}"), Credentials(), SETTINGS).manifest
    assert {entry.path: entry.kind for entry in found.entries} == {"empty": "dir", "file": "file"}


def test_what_is_no_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive" * 1000)
    for kind in ("tar", "zip"):
        with pytest.raises(SourceUnsupportedError, match="not a readable archive"):
            resolve(Source(f"{kind}://::file://{tmp_path}/a.tar"), Credentials(), SETTINGS)


def test_ftp_with_a_wrong_password(tmp_path: Path) -> None:
    with Ftp(tmp_path / "ftp") as server, pytest.raises(SourceAuthError) as caught:
        resolve(Source(server.url.replace("secret", "hunter2") + "/"), Credentials(), SETTINGS)
    assert "hunter2" not in str(caught.value)


def test_ftp_where_nobody_listens(tmp_path: Path) -> None:
    with Ftp(tmp_path / "ftp") as server:
        url = f"{server.url}/file"
    with pytest.raises(SourceUnreachableError):
        resolve(Source(url), Credentials(), SETTINGS)


@pytest.mark.parametrize("mlsd", [True, False])
def test_a_slash_at_the_end_of_a_file(tmp_path: Path, mlsd: bool) -> None:
    with Ftp(tmp_path / "ftp", mlsd=mlsd) as server:
        (server.root / "file").write_bytes(b"x")
        with pytest.raises(SourceError, match="slash"):
            resolve(Source(f"{server.url}/file/"), Credentials(), SETTINGS)


@pytest.mark.parametrize("make", [partial(Ftp, mlsd=False), Sftp], ids=["ftp", "sftp"])
def test_a_link_in_a_circle_is_an_error_that_names_it_unless_it_is_left_out(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    with make(tmp_path / "files") as server:
        (server.root / "d").mkdir()
        (server.root / "d" / "file").write_bytes(b"x")
        (server.root / "d" / "up").symlink_to("..")
        with pytest.raises(SourceUnsupportedError, match="'up'"):
            resolve(Source(f"{server.url}/d/"), Credentials(), SETTINGS)
        found = resolve(Source(f"{server.url}/d/", exclude=("up",)), Credentials(), SETTINGS)
        assert [entry.path for entry in found.manifest.entries] == ["file"]


def test_what_a_tar_holds_beside_files(tmp_path: Path) -> None:
    """A pipe is no empty file, nor is a link that leads nowhere in the archive."""
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    (folder / "link").symlink_to("file")
    (folder / "loose").symlink_to("gone")
    os.mkfifo(folder / "pipe")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, ".")
    entries = resolve(Source(f"tar://::file://{tmp_path}/a.tar"), Credentials(), SETTINGS).manifest.entries
    found = {entry.path: (entry.kind, entry.size, entry.target) for entry in entries}
    assert found == {"file": ("file", 7, ""), "link": ("file", 7, ""), "loose": ("symlink", 0, "gone")}


@pytest.mark.parametrize(("url", "node"), [
    ("tar://::file:///x/a.tar", "here"), ("tar://b::simplecache::file:///x/a.tar", "here"), ("/x/a::b", "here"),
    ("tar://::https://h/a.tar", ""), ("s3://b/x", ""),
])  # fmt: skip
def test_an_archive_on_disk_is_the_submitting_nodes(
    monkeypatch: pytest.MonkeyPatch, url: str, node: str
) -> None:
    monkeypatch.setattr(api, "connect", lambda: None)
    monkeypatch.setattr(api, "current_node", lambda: "here")
    options = SourceOptions(**{name: found.default for name, (_, found) in options_of(SourceOptions).items()})  # type: ignore[typeddict-item]
    assert api._source(url, options).node == node
    assert api._source(url, SourceOptions(**options | {"shared": True})).node == ""  # type: ignore[typeddict-item]
