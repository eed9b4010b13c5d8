"""The piece store when something is wrong: files cut short or edited, no descriptors, threads in each other's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dragonfly_ray.errors import IntegrityError, InvalidRequestError, StorageFullError
from dragonfly_ray.model import digest
from dragonfly_ray.storage import open_files as stored_files
from dragonfly_ray.storage import task_pieces
from dragonfly_ray.storage.data_files import DataFiles
from dragonfly_ray.storage.task_store import TaskStore
from tests.piece_stores import BIG, FILES, complete, fill, manifest_of, store_at, task_of

GUARD = 60.0
"""Seconds after which something hangs."""


def in_time(work: Callable[[], object]) -> None:
    """Does it in another thread, which must not hang."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(GUARD)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]


# --- what was delivered -------------------------------------------------------------------------


def test_a_piece_that_comes_twice_and_differs_does_not_change_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread has begun to write it when the other, with other bytes, makes the task whole, and the output."""
    store, manifest = store_at(tmp_path / "store"), manifest_of({"x": BIG})
    found = store.open(task_of(manifest), manifest)
    last, dest = len(found.table) - 1, tmp_path / "out"
    for piece in found.table:
        data = memoryview(BIG)[piece.offset : piece.offset + piece.length]
        if piece.index != last:
            found.put(piece.index, data, digest(data))
    good = data

    def whole() -> None:
        found.put(last, good, digest(good))
        found.finish()
        found.publish(dest)

    second = threading.Thread(target=whole, daemon=True)
    write_all = stored_files.write_all

    def slowly(fd: int, view: memoryview, offset: int) -> None:
        if not second.ident:
            second.start()
            second.join(1.0)  # or it waits for us
        write_all(fd, view, offset)

    monkeypatch.setattr(stored_files, "write_all", slowly)
    other = memoryview(bytes(len(good)))
    in_time(lambda: found.put(last, other, digest(other)))
    in_time(second.join)
    kept = found.digests[last]
    assert kept is not None
    assert digest(dest.read_bytes()[found.table[last].offset :]) == kept


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_that_was_whole_is_never_written_to_again(tmp_path: Path, restart: bool) -> None:
    """Somebody reads it, though no link to it is left, and it may be written to as its mode has it."""
    store = store_at(tmp_path)
    found = complete(store, {"x": BIG})
    (found.folder / "0").chmod(0o644)
    found.refresh()
    with (found.folder / "0").open("rb") as reader:
        if restart:
            store.close()
            (found,) = store_at(tmp_path).tasks()
        found.discard(0)
        other = memoryview(bytes(found.table[0].length))
        found.put(0, other, digest(other))
        assert reader.read() == BIG
    assert found.read(0) == other


# --- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, -1, 1_000_000])
def test_a_piece_of_another_length_than_the_tables_is_refused(tmp_path: Path, length: int) -> None:
    store, manifest = store_at(tmp_path), manifest_of({"x": BIG})
    found = store.open(task_of(manifest), manifest)
    data = BIG[: length if length >= 0 else found.table[0].length + length]
    with pytest.raises(IntegrityError, match="piece 0 has"):
        found.put(0, memoryview(data), digest(data))
    assert not found.has(0)
    assert not (found.folder / "0").exists(), "refused before anything is written"


def test_a_piece_of_another_length_is_not_copied_from_another_task(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    other = complete(store, {"x": BIG})
    manifest = manifest_of({"y": BIG[: other.table[0].length - 1]})
    found = store.open(task_of(manifest, "http://o/y"), manifest)
    with pytest.raises(IntegrityError, match="piece 0 has"):
        found.copy_from(other, 0, 0)
    assert not found.has(0)


# --- files cut short ----------------------------------------------------------------------------


def test_pieces_beyond_the_end_of_a_file_cut_short_are_not_resumed(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    found = complete(store, {"x": BIG})
    leaf = found.table.leaf
    store.close()
    os.truncate(found.folder / "0", 3 * leaf + 1)
    (again,) = store_at(tmp_path).tasks()
    assert [i for i in range(len(again.table)) if again.has(i)] == [0, 1, 2]


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_what_a_damaged_file_lost_never_reads_as_zeros(tmp_path: Path, harm: str) -> None:
    found = complete(store_at(tmp_path), {"x": BIG})
    leaf = found.table.leaf
    if harm == "cut":
        os.truncate(found.folder / "0", 2 * leaf)
    else:
        (found.folder / "0").unlink()
    found.survey()
    found.put(5, memoryview(BIG)[5 * leaf : 6 * leaf], digest(BIG[5 * leaf : 6 * leaf]))
    held = [i for i in range(len(found.table)) if found.has(i)]
    assert held == ([0, 1, 5] if harm == "cut" else [5])
    assert all(found.verify(i) for i in held)


def test_a_bad_sector_costs_its_piece_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is somebody's output, so it has to be copied before it is written to; it cannot be read as a whole."""
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    leaf = found.table.leaf
    found.publish(tmp_path / "out")
    copy = stored_files.copy

    def unreadable(source: int, target: int, offset: int, length: int, to: int = 0) -> None:
        if offset <= 2 * leaf < offset + length:
            raise OSError(5, "Input/output error")
        copy(source, target, offset, length, to)

    monkeypatch.setattr(stored_files, "copy", unreadable)
    found.discard(4)
    found.put(4, memoryview(BIG)[4 * leaf : 5 * leaf], digest(BIG[4 * leaf : 5 * leaf]))
    assert [i for i in range(len(found.table)) if not found.has(i)] == [2]
    assert all(found.recheck(i) for i in range(len(found.table)) if i != 2)


def test_an_error_of_reading_is_no_verdict_but_the_piece_goes_when_it_is_rechecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = complete(store_at(tmp_path), {"x": BIG})

    def failing(code: int) -> Callable[..., bytes]:
        def pread(fd: int, length: int, offset: int) -> bytes:
            raise OSError(code, os.strerror(code))

        return pread

    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", failing(5))
        with pytest.raises(OSError, match="Input/output"):
            found.verify(0)
        assert found.has(0)
        assert not found.recheck(0)
        broken.setattr(os, "pread", failing(24))
        assert found.recheck(1), "without a descriptor nothing is known"
    assert (found.has(0), found.has(1)) == (False, True)


# --- descriptors --------------------------------------------------------------------------------

_MANY = """
import os, resource, sys; sys.path.insert(0, os.getcwd())
from pathlib import Path
from tests.piece_stores import store_at, complete
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
store = store_at(Path(sys.argv[1]))
for number in range(400):
    complete(store, {"x": b"%d" % number * 100}, f"http://o/{number}")
assert all(task.verify(0) for task in store.tasks())
assert len(store.tasks()) == 400
store.close()
assert len(store_at(Path(sys.argv[1])).tasks()) == 400
"""

_NONE_LEFT = """
import os, resource, sys; sys.path.insert(0, os.getcwd())
from pathlib import Path
import dragonfly_ray.urls  # a task's id needs it, and no module can be loaded then
from dragonfly_ray.errors import StorageError
from tests.piece_stores import store_at, complete
store = store_at(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    complete(store, {"x": b"x"})
except StorageError as error:
    for each in taken:
        os.close(each)
    print(type(error).__name__, error)
"""

_NONE_LEFT_AT_START = """
import os, resource, sys; sys.path.insert(0, os.getcwd())
from pathlib import Path
from dragonfly_ray.errors import StorageError
from tests.piece_stores import store_at, complete
root = Path(sys.argv[1])
store = store_at(root)
complete(store, {"x": b"x"})
store.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for left in range(12):
    try:
        print(len(store_at(root).tasks()))
        break
    except (OSError, StorageError):
        os.close(taken.pop())
"""


def _python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=False, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_more_tasks_are_held_than_descriptors(tmp_path: Path) -> None:
    _python(_MANY, tmp_path)


def test_no_descriptor_is_never_called_a_full_disk(tmp_path: Path) -> None:
    said = _python(_NONE_LEFT, tmp_path)
    assert said.startswith("StorageError ")
    assert "too many open files (the limit is 64)" in said
    assert "disk" not in said


def test_a_start_without_descriptors_drops_nothing(tmp_path: Path) -> None:
    assert _python(_NONE_LEFT_AT_START, tmp_path) == "1\n"


def test_the_limit_is_raised_to_what_is_allowed() -> None:
    code = """
import resource, sys
from dragonfly_ray.storage.open_files import most_open, raise_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, min(5000, hard) if hard > 0 else 5000))
assert most_open() == 25
print(raise_limit())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert int(done.stdout) > 100


# --- threads ------------------------------------------------------------------------------------


def test_finishing_takes_no_lock_that_closing_holds(tmp_path: Path) -> None:
    store, manifest = store_at(tmp_path), manifest_of({"x": BIG})
    found = store.open(task_of(manifest), manifest)
    fill(found, {"x": BIG})
    with store._lock:  # as `close` and `evict` do, which then want the task's
        in_time(found.finish)
        store.close()


def test_those_who_serve_do_not_wait_while_a_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    leaf = found.table.leaf
    found.publish(tmp_path / "out")
    copying, go_on, copy = threading.Event(), threading.Event(), stored_files.copy

    def slow(*args: int) -> None:
        copying.set()
        assert go_on.wait(GUARD)
        copy(*args)

    monkeypatch.setattr(stored_files, "copy", slow)
    in_time(lambda: found.discard(1))
    assert not copying.is_set(), "what is only dropped is not copied"
    data = BIG[leaf : 2 * leaf]
    writer = threading.Thread(target=found.put, args=(1, memoryview(data), digest(data)))
    writer.start()
    assert copying.wait(GUARD)
    in_time(lambda: found.discard(2))
    in_time(lambda: found.verify(3))
    go_on.set()
    writer.join(GUARD)
    assert found.verify(1)


def test_what_is_being_written_is_not_evicted_for_others(tmp_path: Path) -> None:
    store = store_at(tmp_path, quota=2_000_000)
    manifest = manifest_of({"x": BIG})
    with store.hold(task_of(manifest), manifest) as found:
        with pytest.raises(StorageFullError, match="quota"):
            complete(store, {"y": BIG[::-1]}, "http://o/y")
        with pytest.raises(InvalidRequestError, match="in use"):
            store.evict(found.task.id)
        fill(found, {"x": BIG})
    complete(store, {"y": BIG[::-1]}, "http://o/y")
    assert found.evicted


def test_who_hears_of_an_eviction_may_wait_for_somebody_who_wants_the_store(tmp_path: Path) -> None:
    store = store_at(tmp_path, quota=2_000_000)
    first = complete(store, {"x": BIG})
    told: list[str] = []

    def tell(task: object) -> None:
        in_time(lambda: store.unpin("no such task", "me"))
        told.append(first.task.url)

    store.on_evicted = tell
    complete(store, {"y": BIG[::-1]}, "http://o/y")
    assert told == [first.task.url]


# --- edits --------------------------------------------------------------------------------------


def _edit(path: Path, at: int) -> None:
    """In place, with the times restored."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"edited")
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_edit_with_its_time_restored_is_not_passed_on(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), FILES)
    out = tmp_path / "out"
    found.publish(out)
    assert found.refresh() == [], "our own links are no edits"
    _edit(out / "a" / "big", 0)
    lost = found.refresh()
    assert lost == list(found.table.of_entry(0))[:1]
    assert not found.has(lost[0])


def test_an_edited_piece_is_not_served_and_others_of_its_file_are_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    found.publish(tmp_path / "out")
    hashed: list[int] = []

    def counted(data: bytes) -> bytes:
        hashed.append(len(data))
        return digest(data)

    monkeypatch.setattr(task_pieces, "digest", counted)
    for index in range(len(found.table)):
        with found.serving(index):
            pass
    assert not hashed, "nobody has touched it"
    _edit(tmp_path / "out", 3 * found.table.leaf)
    with pytest.raises(OSError, match="was modified"), found.serving(3):
        pass
    for _ in range(3):
        with found.serving(4) as extents:
            assert extents
    assert len(hashed) == 2
    _edit(tmp_path / "out", 4 * found.table.leaf)
    with pytest.raises(OSError, match="was modified"), found.serving(4):
        pass


def test_what_was_edited_is_not_kept_when_its_file_is_written_to_again(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    leaf = found.table.leaf
    found.publish(tmp_path / "out")
    _edit(tmp_path / "out", 3 * leaf)
    found.discard(1)
    found.put(1, memoryview(BIG)[leaf : 2 * leaf], digest(BIG[leaf : 2 * leaf]))
    assert [i for i in range(len(found.table)) if not found.has(i)] == [3]
    found.put(3, memoryview(BIG)[3 * leaf : 4 * leaf], digest(BIG[3 * leaf : 4 * leaf]))
    found.finish()
    found.publish(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == BIG


def test_a_file_that_misses_a_piece_is_linked_to_by_nobody(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    one = complete(store, {"x": BIG})
    one.discard(2)
    two = complete(store, {"x": BIG}, "http://elsewhere/y", "w")
    assert os.stat(one.folder / "0").st_ino != os.stat(two.folder / "0").st_ino


def test_a_file_that_is_written_to_again_has_no_mark_after_a_restart(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    found = complete(store, {"x": BIG})
    found.discard(0)
    data = BIG[: found.table.leaf]
    found.put(0, memoryview(data), digest(data))
    store.close()
    (again,) = store_at(tmp_path).tasks()
    assert not again._marks
    assert again.complete


def test_our_own_links_are_no_edits_to_whoever_shares_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path / "s")
    one = complete(store, {"x": BIG})
    two = complete(store, {"x": BIG}, "http://elsewhere/y", "w")
    two.publish(tmp_path / "two")
    one.publish(tmp_path / "one")
    two.publish(tmp_path / "two-again")
    monkeypatch.setattr(type(one), "verify", lambda self, index: pytest.fail("it is hashed again"))
    assert one.refresh() == two.refresh() == []
    store.close()


def test_an_edited_file_is_not_linked_to_for_other_content(tmp_path: Path) -> None:
    store = store_at(tmp_path / "s")
    complete(store, {"x": BIG}).publish(tmp_path / "out")
    _edit(tmp_path / "out", 0)
    two = complete(store, {"x": BIG}, "http://elsewhere/y", "w")
    two.publish(tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == BIG


def test_what_was_touched_and_is_still_good_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    found.publish(tmp_path / "out")
    (tmp_path / "out").unlink()
    hashed: list[int] = []
    verify = type(found).verify

    def counted(self: TaskStore, index: int) -> bool:
        hashed.append(index)
        return verify(self, index)

    monkeypatch.setattr(type(found), "verify", counted)
    assert found.refresh() == []
    assert hashed == list(range(len(found.table)))
    assert found.refresh() == []
    assert len(hashed) == len(found.table)
    _edit(found.folder / "0", 0)
    assert found.refresh() == [0], "and it is still watched"


def test_a_data_file_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    assert found.verify(0)
    (found.folder / "other").write_bytes(b"x" * len(BIG))
    os.replace(found.folder / "other", found.folder / "0")
    assert found.refresh() == list(range(len(found.table)))


def test_the_mark_of_a_missing_file_is_empty(tmp_path: Path) -> None:
    manifest = manifest_of({"x": BIG})
    found = store_at(tmp_path).open(task_of(manifest), manifest)
    assert DataFiles(found.folder, manifest, found.table, stored_files.OpenFiles()).mark(0) == b""
