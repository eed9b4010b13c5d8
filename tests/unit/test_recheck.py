"""What is done with complaints of pieces, and with pieces that cannot be sent."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dragonfly_ray.errors import StorageError
from dragonfly_ray.peer.recheck import MAX_PENDING, Rechecker, RecheckQueue
from dragonfly_ray.storage.task_store import TaskStore
from tests.piece_stores import BIG, complete, store_at
from tests.waiting import until


def test_a_piece_is_looked_at_once_a_minute_whoever_complains() -> None:
    waiting = RecheckQueue(interval=60.0)
    assert waiting.add(("t", 1), "a", 0.0)
    assert not waiting.add(("t", 1), "b", 1.0), "it waits already"
    assert waiting.next() == ("t", 1)
    assert not waiting.add(("t", 1), "b", 59.0)
    assert waiting.add(("t", 1), "b", 60.0)
    assert waiting.add(("u", 1), "b", 60.0), "another task"


def test_who_complains_of_everything_delays_nobody_else() -> None:
    waiting = RecheckQueue()
    added = [waiting.add(("t", index), "hostile", 0.0) for index in range(10 * MAX_PENDING)]
    assert sum(added) == MAX_PENDING
    assert waiting.add(("t", 99_999), "honest", 1.0)
    assert ("t", 99_999) in [waiting.next(), waiting.next()]


def test_nothing_is_kept_of_what_was_long_ago() -> None:
    waiting = RecheckQueue(interval=60.0)
    for index in range(1000):
        waiting.add(("t", index), "a", float(index))
        waiting.next()
    assert len(waiting._seen) <= 60
    assert not waiting._pending
    assert not waiting._queued


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = store_at(folder)
        self.task = complete(self.store, {"x": BIG})
        self.id = self.task.task.id
        self.lost: list[int] = []
        self.rechecker = Rechecker(self.store.get, lambda task, pieces: self.lost.extend(pieces))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def spoil(bench: Bench, place: int) -> None:
    file = bench.task.folder / "0"
    file.chmod(0o600)
    with file.open("r+b") as damaged:
        damaged.seek(place)
        damaged.write(b"bit rot")


def test_complaints_are_looked_at_by_one_thread_and_the_guilty_pieces_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    hashed: list[int] = []
    verify = TaskStore.verify

    def seen(task: TaskStore, index: int) -> bool:
        threads.append(threading.current_thread().name)
        hashed.append(index)
        return verify(task, index)

    monkeypatch.setattr(TaskStore, "verify", seen)
    spoil(bench, 3 * bench.task.table.leaf)
    for host in range(50):
        for index in range(len(bench.task.table)):
            bench.rechecker.complained(bench.id, index, f"host{host}")
    until(lambda: bench.lost)
    bench.rechecker.stop()
    assert bench.lost == [3]
    assert sorted(hashed) == sorted(set(hashed)), "each once"
    assert set(threads) == {"recheck"}


def test_an_error_of_reading_confirms_no_complaint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def unreadable(task: TaskStore, index: int) -> bool:
        tried.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(TaskStore, "verify", unreadable)
    bench.rechecker.complained(bench.id, 0, "h")
    assert tried.wait(30)
    bench.rechecker.stop()
    assert bench.task.has(0)
    assert bench.lost == []


def test_what_cannot_be_sent_is_withdrawn_until_it_is_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, verify = threading.Event(), TaskStore.verify

    def later(task: TaskStore, index: int) -> bool:
        assert go_on.wait(30)
        return verify(task, index)

    monkeypatch.setattr(TaskStore, "verify", later)
    bench.rechecker.unreadable(bench.id, 2)
    assert bench.rechecker.withdrawn(bench.id, 2)
    assert bench.rechecker.pieces_withdrawn(bench.id) == [2]
    go_on.set()
    until(lambda: not bench.rechecker.withdrawn(bench.id, 2))
    assert bench.task.has(2), "it can be read"
    bench.rechecker.unreadable(bench.id, 2)
    until(lambda: bench.lost == [2])
    assert not bench.task.has(2), "for the second time it could not be sent, whatever reading it says"
    bench.rechecker.stop()


def test_damage_to_a_file_is_found_as_a_whole(bench: Bench) -> None:
    (bench.task.folder / "0").unlink()
    bench.store.files.forget(str(bench.task.folder / "0"))
    bench.rechecker.unreadable(bench.id, 4)
    until(lambda: len(bench.lost) == len(bench.task.table))
    assert bench.task.count == 0
    bench.rechecker.stop()


def test_what_was_evicted_meanwhile_ends_no_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(task: TaskStore, index: int) -> bool:
        if index == 0:
            raise StorageError("was evicted")
        if index == 1:
            raise ValueError("whatever")
        return False

    monkeypatch.setattr(TaskStore, "verify", gone)
    for index in range(3):
        bench.rechecker.complained(bench.id, index, "h")
    until(lambda: bench.lost == [2])
    bench.rechecker.stop()
