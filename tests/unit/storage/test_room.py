"""Room in the store, and where it lies."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from dragonfly_ray.errors import (
    InvalidRequestError,
    StorageFullError,
)
from dragonfly_ray.storage import eviction
from tests.leaks import Held
from tests.piece_stores import (
    BIG,
    FILES,
    complete,
    store_at,
)


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
    before = Held()
    store = store_at(tmp_path / "s")
    found = complete(store, FILES)
    found.publish(tmp_path / "out")
    with found.reading(0), found.reading(0):
        pass
    store.close()
    assert not before.more_files()


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
