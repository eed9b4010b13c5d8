"""The piece store: resume, sharing, outputs, room. Real files."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dragonfly_ray import model
from dragonfly_ray.config import OriginSettings, StorageSettings
from dragonfly_ray.errors import (
    DestinationError,
    InvalidRequestError,
    StorageFullError,
    UnsafePathError,
)
from dragonfly_ray.model import Credentials, Entry, Manifest, PieceTable, Source, Task, digest
from dragonfly_ray.names import from_bytes
from dragonfly_ray.sources import resolve
from dragonfly_ray.storage import eviction
from dragonfly_ray.storage import files as stored_files
from dragonfly_ray.storage.journal import HAVE, RECORD_SIZE, Journal, Record
from dragonfly_ray.storage.links import check_links
from dragonfly_ray.storage.names import check_manifest
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore
from tests import programs

BIG = os.urandom(1_500_000)
FILES = {"a/big": BIG, "a/small": b"small", "b/empty": b"", "b/mid": os.urandom(70_000), "c": b"c" * 100}


def manifest_of(files: dict[str, bytes], *, version: str = "v") -> Manifest:
    entries = [Entry(path, len(data), version) for path, data in sorted(files.items())]
    return Manifest(
        (*entries, Entry("none", kind="dir")) if len(files) > 1 else tuple(entries), len(files) > 1
    )


def task_of(manifest: Manifest, url: str = "http://o/x") -> Task:
    data, table = manifest.encode(), PieceTable.of(manifest)
    source = Source(url)
    return Task(manifest.task_id(source.id), source.id, url, "default", digest(data), len(data), table.size,
                len(table), len(manifest.entries), manifest.directory, True)  # fmt: skip


def fill(found: TaskStore, files: dict[str, bytes]) -> None:
    stream = b"".join(files[e.path] for e in found.manifest.entries if e.kind == "file")
    for piece in found.table:
        data = memoryview(stream)[piece.offset : piece.offset + piece.length]
        found.put(piece.index, data, digest(data))


def store_at(root: Path, **settings: object) -> PieceStore:
    return PieceStore(StorageSettings(root=root, **settings))


def complete(
    store: PieceStore, files: dict[str, bytes], url: str = "http://o/x", version: str = "v"
) -> TaskStore:
    manifest = manifest_of(files, version=version)
    found = store.open(task_of(manifest, url), manifest)
    fill(found, files)
    found.finish()
    return found


def assert_tree(path: Path, files: dict[str, bytes]) -> None:
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".dragonfly-*"))


# --- the journal --------------------------------------------------------------------------------


def test_a_journal_cut_at_every_byte_opens_again(tmp_path: Path) -> None:
    path, owner = tmp_path / "journal", digest(b"m")
    journal = Journal(path, owner)
    for index in range(200):
        journal.append(Record(HAVE, index, digest(b"%d" % index)))
    journal.close()
    whole = path.read_bytes()
    head = len(whole) - 200 * RECORD_SIZE
    opened = 0
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path, owner)
        kept = max(0, cut - head) // RECORD_SIZE
        assert [r.piece for r in journal.records] == list(range(kept))
        journal.append(Record(HAVE, 7, digest(b"x")))
        journal.close()
        again = Journal(path, owner)
        assert len(again.records) == kept + 1
        again.close()
        opened += 1
    print(f"a journal of 200 records, cut at each of {opened} places, opened again")
    assert opened == head + 200 * RECORD_SIZE + 1


def test_a_journal_of_another_manifest_starts_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", digest(b"a"))
    journal.append(Record(HAVE, 1, digest(b"x")))
    journal.close()
    assert Journal(tmp_path / "j", digest(b"b")).records == []


def test_a_disk_that_fills_up_within_a_record_leaves_no_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    records = [Record(HAVE, i, bytes([i]) * 32) for i in range(6)]
    journal = Journal(path, b"m" * 32)
    journal.append(*records[:2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + RECORD_SIZE + 7, hard))
    try:
        with pytest.raises(OSError) as caught:
            journal.append(*records[2:4])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG, "the cause, as the system says it"
    journal.append(*records[4:])
    journal.close()
    assert Journal(path, b"m" * 32).records == [*records[:2], *records[4:]]


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, digest(b"a"))
    for index in range(5):
        journal.append(Record(HAVE, index, digest(b"x")))
    journal.close()
    data = bytearray(path.read_bytes())
    data[-2 * RECORD_SIZE] ^= 1
    path.write_bytes(data)
    assert [r.piece for r in Journal(path, digest(b"a")).records] == [0, 1, 2]


# --- pieces -------------------------------------------------------------------------------------


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


# --- outputs ------------------------------------------------------------------------------------


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
from tests.unit.test_storage import store_at, complete, BIG
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
    with pytest.raises(UnsafePathError, match="out/b: a symlink"):
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


# --- room ---------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first_but_never_what_is_kept() -> None:
    held = [eviction.Held("old", 10, 1.0, False), eviction.Held("pinned", 10, 0.0, True),
            eviction.Held("new", 10, 2.0, False)]  # fmt: skip
    assert eviction.choose(held, 5) == ["old"]
    assert eviction.choose(held, 15) == ["old", "new"]
    assert eviction.choose(held, 0) == []


def test_a_quota_makes_room_and_tells_whom_it_concerns(tmp_path: Path) -> None:
    store = store_at(tmp_path, quota=4_000_000)
    told: list[str] = []
    store.on_evicted = lambda task: told.append(task.url)
    one = complete(store, {"x": BIG}, "http://o/1")
    complete(store, {"x": BIG[::-1]}, "http://o/2")
    with one.using():
        pass  # used last: the other is older
    complete(store, {"x": BIG[1:]}, "http://o/3")
    assert told == ["http://o/2"]


def test_what_is_pinned_stays_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    store = store_at(tmp_path, quota=2_000_000)
    one = complete(store, {"x": BIG}, "http://o/1")
    store.pin(one.task.id, "me", None)
    with pytest.raises(InvalidRequestError, match="pinned by me"):
        store.evict(one.task.id)
    with pytest.raises(StorageFullError, match="quota"):
        complete(store, {"x": BIG[::-1]}, "http://o/2")
    store.close()
    again = store_at(tmp_path, quota=2_000_000)
    assert again.pins(one.task.id) == {"me": None}
    again.unpin(one.task.id, "me")
    complete(again, {"x": BIG[::-1]}, "http://o/2")
    assert again.get(one.task.id) is None


def test_what_is_in_use_is_not_evicted(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    one = complete(store, {"x": BIG})
    with one.using(), pytest.raises(InvalidRequestError, match="in use"):
        store.evict(one.task.id)
    assert store.evict(one.task.id) == len(BIG)
    assert not one.folder.exists()


def test_what_is_given_up_goes_with_its_last_user_unless_it_is_wanted_again(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    one = complete(store, {"x": BIG})
    with one.using(), one.using():
        store.give_up(one.task.id)
        assert one.folder.exists()
        assert store.open(one.task, one.manifest) is one
    assert one.folder.exists(), "it was opened again"
    with one.using():
        with one.using():
            store.give_up(one.task.id)
        assert one.folder.exists()
    assert not one.folder.exists()
    assert store.get(one.task.id) is None
    assert not store.give_up(one.task.id), "it is not here"
    kept = complete(store, {"x": BIG})
    store.pin(kept.task.id, "me", None)
    assert not store.give_up(kept.task.id)
    assert kept.folder.exists()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store = store_at(tmp_path / "s")
    found = complete(store, FILES)
    found.publish(tmp_path / "out")
    with found.reading(0), found.reading(0):
        pass
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_medium_in_memory(tmp_path: Path) -> None:
    store = store_at(tmp_path / "in-memory-test", medium="memory")
    try:
        assert store.path.is_relative_to("/dev/shm")
        assert complete(store, {"x": BIG}).path().read_bytes() == BIG
    finally:
        store.close()
        shutil.rmtree(store.path.parent)
        with contextlib.suppress(OSError):
            store.path.parent.parent.rmdir()


def test_an_unknown_medium_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="disk, memory"):
        store_at(tmp_path, medium="tape")


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "paths",
    [["../x"], ["/etc/passwd"], ["a/../../x"], ["a//b"], ["a/./b"], ["."], [""], ["a\0b"], ["a", "a/b"], ["a/b", "a"],
     ["a", "a"], ["a/"], ["x/" * 2000 + "x"], ["\ud800"], ["\uf7c3\uf7a9"]],
)  # fmt: skip
def test_names_that_no_folder_holds_are_refused(paths: list[str]) -> None:
    with pytest.raises(UnsafePathError):
        check_manifest(Manifest(tuple(Entry(p, 1) for p in paths), directory=True))


@pytest.mark.parametrize("folder", ["a/1", "a/1/b"])
def test_folders_that_clash_with_files_are_refused(folder: str) -> None:
    inside = (Entry("a/1", 1), Entry("a/B/2", 1))
    for entries in ((*inside, Entry(folder, kind="dir")), (Entry(folder, kind="dir"), *inside)):
        with pytest.raises(UnsafePathError):
            check_manifest(Manifest(entries, directory=True))


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", ""])
def test_symlinks_that_lead_out_are_refused(target: str) -> None:
    found = Manifest((Entry("l", kind="symlink", target=target),), directory=True)
    with pytest.raises(UnsafePathError):
        check_manifest(found)
        check_links(found)


def links(**targets: str) -> Manifest:
    """`a__b` stands for `a/b`."""
    found = (Entry(p.replace("__", "/"), kind="symlink", target=t) for p, t in targets.items())
    return Manifest(tuple(found), directory=True)


@pytest.mark.parametrize(
    "targets",
    [
        {"deep__er__up": "../..", "out": "deep/er/up/../x"},
        {"a": ".", "out": "a/../x"},
        {"a": ".", "b": "a/.", "c": "b/.", "out": "c/../x"},
        {"d__here": "..", "out": "d/here/../x"},
        {"d__here": "..", "e__out": "../D/HERE/../x"},
        {"a": ".", "d__out": "../a/../x"},
    ],
)
def test_links_that_lead_out_by_way_of_others_are_refused(tmp_path: Path, targets: dict[str, str]) -> None:
    with pytest.raises(UnsafePathError):
        check_links(links(**targets))
    for path, target in targets.items():
        link = tmp_path / path.replace("__", "/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    if all(t == t.lower() for t in targets.values()):
        out = next(tmp_path / p.replace("__", "/") for p in targets if p.endswith("out"))
        assert not out.resolve().is_relative_to(tmp_path), "the kernel would go there"


def test_links_that_stay_inside_pass() -> None:
    check_links(links(a="b", b="c/d", c__d="../e/f", g__h="../a", i="."))
    check_links(links(round="about", about="round", self="self/x", deep="a/../b/../c"))


def test_a_link_with_entries_below_it_is_refused() -> None:
    entries = (Entry("a", kind="symlink", target="b"), Entry("a/x", 1))
    for order in (entries, entries[::-1]):
        with pytest.raises(UnsafePathError):
            check_manifest(Manifest(order, directory=True))


def test_honest_names_pass() -> None:
    paths = ["a", "b/c", "b/d e", "..x", "x..", "ümlaut", "100%", "a:b", "b/.hidden", "A", "\u00e9", "e\u0301", "a\nb",
             "a\\..\\b", "%2e%2e/x", "a%2E%2E%2Fb", "con", "-rf", "...", " ", "\x7f", "x" * 300,
             from_bytes(b"caf\xe9"), from_bytes("\uf7e9".encode())]  # fmt: skip
    folders = tuple(Entry(p, kind="dir") for p in ("b", "b", "empty", "empty/too"))
    files = tuple(Entry(p, 1) for p in paths)
    check_manifest(Manifest((*folders, *files), directory=True))
    check_manifest(Manifest((*files, *folders), directory=True))
