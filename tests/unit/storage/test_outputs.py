"""Outputs that are made from the store. Real files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    DestinationError,
    UnsafePathError,
)
from dragonfly_ray.model import Credentials, Entry, Manifest, Source, digest
from dragonfly_ray.sources import resolve
from dragonfly_ray.storage import open_files as stored_files
from dragonfly_ray.storage.journal import RECORD_SIZE
from tests import programs
from tests.piece_stores import (
    BIG,
    FILES,
    assert_tree,
    complete,
    fill,
    leftovers,
    manifest_of,
    store_at,
    task_of,
)


def test_an_output_is_a_link_and_read_only(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    done = found.publish(tmp_path / "out" / "f")
    assert (done.linked, done.copied) == (1, 0)
    output = os.stat(tmp_path / "out" / "f")
    assert output.st_ino == os.stat(found.folder / "0").st_ino
    assert output.st_mode & 0o777 == 0o444
    again = found.publish(tmp_path / "out" / "f")
    assert again.unchanged == 1


def test_a_private_copy_is_writable_and_its_own(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    done = found.publish(tmp_path / "f", link=False)
    assert done.copied == 1
    assert os.stat(tmp_path / "f").st_ino != os.stat(found.folder / "0").st_ino
    with (tmp_path / "f").open("r+b") as file:
        file.write(b"mine")
    assert found.refresh() == []
    assert found.recheck(0)


@pytest.mark.parametrize("link", [True, False])
def test_no_byte_of_an_output_passes_through_python(tmp_path: Path, link: bool) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from tests.piece_stores import store_at, complete, BIG
found = complete(store_at(Path({str(tmp_path / "s")!r})), {{"x": BIG}})
Path({str(tmp_path / "begin-here")!r}).touch()
found.publish(Path({str(tmp_path / "f")!r}), link={link})
Path({str(tmp_path / "end-here")!r}).touch()
"""
    trace = tmp_path / "trace"
    command = [programs.need("strace"), "-f", "-o", str(trace), "-e",
               "trace=openat,read,pread64,preadv,write,pwrite64,link,linkat,copy_file_range,sendfile,ioctl",
               sys.executable, "-c", code]  # fmt: skip
    subprocess.run(command, check=True)
    lines = trace.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if '/begin-here"' in line)
    end = next(i for i, line in enumerate(lines) if '/end-here"' in line)
    payload = [
        line
        for line in lines[start:end]
        if any(f" {call}(" in line for call in ("read", "pread64", "preadv", "write", "pwrite64"))
        and int(line.rpartition("=")[2].split()[0]) > RECORD_SIZE  # the journal notes the link
    ]
    assert not payload, payload
    assert (tmp_path / "f").stat().st_size == len(BIG)


def test_a_tree_appears_whole_with_empty_folders(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), FILES)
    done = found.publish(tmp_path / "out")
    assert not done.merged
    assert_tree(tmp_path / "out", FILES)
    assert (tmp_path / "out" / "none").is_dir()
    assert not leftovers(tmp_path)


def test_many_small_files_of_a_piece_are_one_write_and_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"f{i:03}": os.urandom(i % 7 * 500) for i in range(300)} | {"f150x": os.urandom(70_000)}
    store, manifest, lengths = store_at(tmp_path / "s"), manifest_of(files), []
    write_all = stored_files.write_all

    def counted(fd: int, view: memoryview, offset: int) -> None:
        lengths.append(len(view))
        write_all(fd, view, offset)

    monkeypatch.setattr(stored_files, "write_all", counted)
    found = store.open(task_of(manifest), manifest)
    fill(found, files)
    # What lies before the one with a file of its own, that one, and what follows; cut into pieces.
    assert len(lengths) <= 2 + len(found.table)
    assert sum(lengths) == sum(map(len, files.values()))
    for index in range(len(found.table)):
        with found.reading(index) as extents:
            assert len(extents) <= 3
    monkeypatch.undo()
    found.finish()
    found.publish(tmp_path / "out")
    assert_tree(tmp_path / "out", files)


@pytest.mark.parametrize("link", [True, False])
def test_modes_and_times_are_kept_where_the_source_knows_them(tmp_path: Path, link: bool) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    for name, size, mode in (("d/big", 100_000, 0o755), ("d/small", 10, 0o640)):
        (source / name).write_bytes(os.urandom(size))
        (source / name).chmod(mode)
        os.utime(source / name, ns=(10**18, 10**18 + size))
    (source / "d").chmod(0o750)
    manifest = resolve(Source(f"file://{source}"), Credentials(), OriginSettings()).manifest
    found = store_at(tmp_path / "s").open(task_of(manifest), manifest)
    fill(found, {e.path: (source / e.path).read_bytes() for e in manifest.entries if e.kind == "file"})
    found.finish()
    out = found.publish(tmp_path / "out", link=link).path
    for path in ("d/big", "d/small"):
        assert (out / path).stat().st_mtime_ns == (source / path).stat().st_mtime_ns
    linked = out / "d" / "big"
    assert linked.stat().st_mode & 0o777 == (0o555 if link else 0o755), "a shared one is read-only"
    assert (out / "d" / "small").stat().st_mode & 0o777 == 0o640
    assert (out / "d").stat().st_mode & 0o777 == 0o750


def test_a_tree_is_merged_into_a_folder_that_is_there(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), FILES)
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "foreign").write_bytes(b"keep me")
    (out / "a" / "small").write_bytes(b"other")
    (out / "c").write_bytes(FILES["c"])
    before = os.stat(out / "c").st_ino
    done = found.publish(out)
    assert done.merged
    assert_tree(out, {**FILES, "a/foreign": b"keep me"})
    assert os.stat(out / "c").st_ino == before, "identical files are left alone"


def test_a_symlink_in_the_way_is_refused_by_name(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), FILES)
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").symlink_to(tmp_path / "victim")
    with pytest.raises(UnsafePathError, match="out/b: is a symlink"):
        found.publish(tmp_path / "out")
    assert not list((tmp_path / "victim").iterdir())
    assert not (tmp_path / "out" / "a").exists(), "nothing at all was written"


def test_a_symlink_as_dest_is_replaced_not_followed(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "f").symlink_to(tmp_path / "victim")
    found.publish(tmp_path / "f")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert not (tmp_path / "f").is_symlink()


@pytest.mark.parametrize("link", [True, False])
def test_a_dest_that_cannot_be_written_leaves_nothing(tmp_path: Path, link: bool) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationError, match="file"):
        found.publish(tmp_path / "file" / "below", link=link)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DestinationError, match="folder"):
        found.publish(tmp_path / "folder", link=link)
    assert not leftovers(tmp_path)


def test_an_edit_of_a_shared_output_is_noticed_and_never_harms_it_further(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    out = tmp_path / "f"
    found.publish(out)
    os.chmod(out, 0o644)
    with out.open("r+b") as file:
        file.write(b"edited")
    assert found.refresh() == [0]
    assert not found.has(0)
    piece = found.table[0]
    data = memoryview(BIG)[: piece.length]
    found.put(0, data, digest(data))
    assert out.read_bytes()[:6] == b"edited", "the user's file is not written to"
    found.finish()
    found.publish(tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == BIG


def test_content_without_a_dest_has_a_path_in_the_store(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    assert complete(store, {"x": BIG}).path().read_bytes() == BIG
    assert_tree(complete(store, FILES, "http://o/d").path(), FILES)
    assert complete(store, {"tiny": b"t"}, "http://o/t").path().read_bytes() == b"t"
    assert complete(store, {"nothing": b""}, "http://o/n").path().read_bytes() == b""


def test_an_executable_stays_one(tmp_path: Path) -> None:
    manifest = Manifest((Entry("run", len(BIG), "v", mode=0o755),), directory=False)
    store = store_at(tmp_path / "s")
    found = store.open(task_of(manifest), manifest)
    fill(found, {"run": BIG})
    found.finish()
    found.publish(tmp_path / "linked")
    found.publish(tmp_path / "own", link=False)
    assert os.stat(tmp_path / "linked").st_mode & 0o777 == 0o555
    assert os.stat(tmp_path / "own").st_mode & 0o777 == 0o755
