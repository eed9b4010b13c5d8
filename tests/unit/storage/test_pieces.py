"""The piece store: resume, sharing, damage. Real files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dragonfly_ray import model
from dragonfly_ray.config import StorageSettings
from dragonfly_ray.model import digest
from dragonfly_ray.storage.store import PieceStore
from tests.piece_stores import (
    BIG,
    FILES,
    complete,
    leftovers,
    manifest_of,
    store_at,
    task_of,
)


def test_a_store_resumes_where_a_killed_process_left_it(tmp_path: Path) -> None:
    manifest = manifest_of(FILES)
    store = store_at(tmp_path)
    found = store.open(task_of(manifest), manifest)
    stream = b"".join(FILES[e.path] for e in manifest.entries if e.kind == "file")
    for index in (0, 2):
        piece = found.table[index]
        data = memoryview(stream)[piece.offset : piece.offset + piece.length]
        found.put(index, data, digest(data))
    found.write(1, memoryview(bytes(found.table[1].length)))
    identity = store.host_id
    store.close()
    again = store_at(tmp_path)
    (resumed,) = again.tasks()
    assert (again.host_id, resumed.count, resumed.has(1)) == (identity, 2, False)
    assert digest(resumed.read(2)) == resumed.digests[2]
    assert resumed.have() == bytes([0b101]) + bytes((len(resumed.table) - 1) // 8)


_KILLED = """
import os, sys
from pathlib import Path
from dragonfly_ray.config import StorageSettings
from dragonfly_ray.storage.store import PieceStore
store = PieceStore(StorageSettings(root=Path(sys.argv[1])))
(found,) = store.tasks()
os.replace = os.rename = lambda *paths: os._exit(9)
found.publish(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("kind", ["file", "tree", "merged"])
def test_what_a_process_killed_while_publishing_left_is_removed(tmp_path: Path, kind: str) -> None:
    store = store_at(tmp_path / "root")
    files = {"f": BIG} if kind == "file" else FILES
    complete(store, files)
    store.close()
    dest = tmp_path / "out" / "it"
    (dest / "a" if kind == "merged" else dest.parent).mkdir(parents=True)
    theirs = (dest / "a" if kind == "merged" else dest.parent) / ".dragonfly-0123456789ab-theirs"
    theirs.write_bytes(b"of another host, which may be at it")
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "root"), str(dest)], check=False, timeout=60
    )
    assert killed.returncode == 9
    assert len(leftovers(tmp_path / "out")) > 1
    again = store_at(tmp_path / "root")
    assert leftovers(tmp_path / "out") == [theirs]
    (found,) = again.tasks()
    found.publish(dest)
    assert leftovers(tmp_path / "out") == [theirs]
    assert not list(found.folder.glob("output-*"))


def test_two_processes_never_share_a_store(tmp_path: Path) -> None:
    one, two = store_at(tmp_path), store_at(tmp_path)
    assert one.path != two.path
    assert one.host_id != two.host_id
    name = one.path
    one.close()
    assert store_at(tmp_path).path == name


def test_after_a_reboot_everything_is_hashed_again(tmp_path: Path) -> None:
    settings = StorageSettings(root=tmp_path)
    store = PieceStore(settings, boot_id="one")
    found = complete(store, FILES)
    target = found.folder / "0"
    store.close()
    os.chmod(target, 0o600)
    with target.open("r+b") as file:
        file.write(b"never reached the disk")
    again = PieceStore(settings, boot_id="two")
    (resumed,) = again.tasks()
    assert not resumed.has(0)
    assert resumed.count == len(resumed.table) - 1


def test_what_another_version_cut_into_other_pieces_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(model, "SHORT_LEAF", 2 * model.SHORT_LEAF)
        store = store_at(tmp_path)
        cut = len(complete(store, {"f": BIG}).table)
        store.close()
    again = store_at(tmp_path)
    assert again.tasks() == []
    assert len(complete(again, {"f": BIG}).table) > cut


def test_the_same_piece_is_found_in_another_task_and_copied(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    first = complete(store, {"x": BIG})
    manifest = manifest_of({"x": BIG}, version="w")
    second = store.open(task_of(manifest, "http://o/y"), manifest)
    for index, wanted in enumerate(first.digests):
        assert wanted is not None
        found = store.find(wanted)
        assert found == (first, index)
        second.copy_from(first, index, index)
    assert second.complete


def test_the_same_content_under_two_urls_is_stored_once(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    one = complete(store, {"x": BIG})
    two = complete(store, {"x": BIG}, "http://elsewhere/y", "w")
    assert os.stat(one.folder / "0").st_ino == os.stat(two.folder / "0").st_ino


def test_corrupted_bytes_are_noticed_and_dropped(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path), {"x": BIG})
    os.chmod(found.folder / "0", 0o600)
    with (found.folder / "0").open("r+b") as file:
        file.seek(300_000)
        file.write(bytes([BIG[300_000] ^ 1]))
    bad = [i for i in range(len(found.table)) if not found.recheck(i)]
    hit = 300_000 // found.table.leaf
    assert bad == [hit]
    assert not found.has(hit)
