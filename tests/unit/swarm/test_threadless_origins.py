"""Whole distributions from filesystems that no two threads may use at once: every byte is compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archives import tar_bytes, zip_bytes
from tests.ftp import Ftp
from tests.nginx import Nginx
from tests.sftp import Sftp
from tests.swarm import Swarm
from tests.unit.swarm.conftest import states
from tests.waiting import until

FILES = {f"part {number % 7}/f{number:03}.bin": os.urandom(20_000) for number in range(100)}
FILES["large.bin"] = os.urandom(3_000_000)
FILES["empty"] = b""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Ftp]:
    with Ftp(tmp_path / "ftp") as made:
        yield made


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def found(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*") if each.is_file()}


def distribute(built: Swarm, url: str, out: Path) -> dict[str, Any]:
    view = built.distribute(url, dest=str(out / "{node}"))
    assert set(states(view).values()) == {"done"}, [each["message"] for each in view["nodes"].values()]
    return view


def assert_delivered(built: Swarm, url: str, out: Path, files: dict[str, bytes] = FILES) -> None:
    distribute(built, url, out)
    for node in built.peers:
        assert found(out / node) == files


@pytest.mark.parametrize("kind", ["tar", "tar of a dot", "tar.gz", "zip"])
def test_an_archive_on_disk(kind: str, swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    data = (
        zip_bytes(FILES)
        if kind == "zip"
        else tar_bytes(FILES, dot="dot" in kind, compression=kind.partition(".")[2])
    )
    archive = tmp_path / f"a.{kind.partition(' ')[0]}"
    archive.write_bytes(data)
    scheme = "zip" if kind == "zip" else "tar"
    assert_delivered(swarm(2), f"{scheme}://::file://{archive}", tmp_path / "out")


@pytest.mark.parametrize("before", ["", "simplecache::", "filecache::", "blockcache::"])
def test_an_archive_of_a_web_server(
    before: str, swarm: Callable[..., Swarm], origin: Nginx, tmp_path: Path
) -> None:
    (origin.root / "a.tar").write_bytes(tar_bytes(FILES))
    assert_delivered(swarm(2), f"tar://::{before}{origin.url}/a.tar", tmp_path / "out")


def test_an_archive_within_another(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    (tmp_path / "outer.zip").write_bytes(zip_bytes({"inner/a.tar": tar_bytes(FILES)}))
    assert_delivered(swarm(2), f"tar://::zip://inner/a.tar::file://{tmp_path}/outer.zip", tmp_path / "out")


def test_one_file_of_an_archive_has_its_own_name(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(FILES))
    built = swarm(2)
    view = built.distribute(f"tar://large.bin::file://{tmp_path}/a.tar")
    assert set(states(view).values()) == {"done"}, [each["message"] for each in view["nodes"].values()]
    for record in view["nodes"].values():
        assert Path(record["path"]).name == "large.bin"
        assert Path(record["path"]).read_bytes() == FILES["large.bin"]


def test_an_archive_of_the_same_sizes_and_times_is_another(
    swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    """What its members tell of themselves is the same."""
    built = swarm(2)
    for turn in range(2):
        files = {name: os.urandom(len(data)) for name, data in FILES.items()}
        draft = tmp_path / "draft"
        draft.write_bytes(tar_bytes(files))
        os.replace(draft, tmp_path / "a.tar")
        view = built.distribute(
            f"tar://::file://{tmp_path}/a.tar", f"{turn}.0", dest=str(tmp_path / f"{turn}" / "{node}")
        )
        assert set(states(view).values()) == {"done"}, [each["message"] for each in view["nodes"].values()]
        for node in built.peers:
            assert found(tmp_path / f"{turn}" / node) == files


def test_ftp(swarm: Callable[..., Swarm], server: Ftp, tmp_path: Path) -> None:
    put(server.root, FILES)
    built = swarm(3)
    assert_delivered(built, f"{server.url}/", tmp_path / "out")
    listings = server.commands["MLSD"] + server.commands["LIST"]
    assert listings <= 2 * (1 + 7), "the folder is listed when it is resolved, not for each of its files"
    built.close()
    until(lambda: not server.open, why=lambda: server.open)


@pytest.mark.parametrize(("most", "peers"), [(1, 1), (3, 1), (2, 3)])
def test_an_ftp_server_that_grants_few_connections(
    most: int, peers: int, swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    """Each peer makes do with what it gets, be it nothing for a while."""
    with Ftp(tmp_path / "ftp", connections=most) as server:
        put(server.root, FILES)
        assert_delivered(swarm(peers), f"{server.url}/", tmp_path / "out")


def test_an_ftp_server_of_the_old_kind_with_links(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    """A list for people tells the length of the link, not of the file."""
    with Ftp(tmp_path / "ftp", mlsd=False) as server:
        put(server.root, FILES)
        (server.root / "link").symlink_to("large.bin")
        assert_delivered(swarm(2), f"{server.url}/", tmp_path / "out", {**FILES, "link": FILES["large.bin"]})


def test_sftp_with_links(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    with Sftp(tmp_path / "sftp") as server:
        put(server.root, FILES)
        (server.root / "link").symlink_to("large.bin")
        built = swarm(2)
        assert_delivered(built, f"{server.url}/", tmp_path / "out", {**FILES, "link": FILES["large.bin"]})
        built.close()
        until(lambda: not server.open, why=lambda: server.open)


def test_archives_are_closed_when_they_are_read(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes(FILES))
    built = swarm(2)
    assert_delivered(built, f"tar://::file://{archive}", tmp_path / "out")
    built.close()

    def held() -> list[str]:
        links = [Path("/proc/self/fd") / each for each in os.listdir("/proc/self/fd")]
        return [str(each) for each in links if os.path.exists(each) and os.readlink(each) == str(archive)]

    until(lambda: not held(), why=held)
