"""Somebody who may write to the folder of an output puts links into its way while it is written."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.errors import DestinationError, StorageError, UnsafePathError
from dragonfly_ray.model import Entry, Manifest
from dragonfly_ray.storage import output
from dragonfly_ray.storage.task_store import TaskStore
from tests.piece_stores import BIG, FILES, assert_tree, complete, fill, leftovers, store_at, task_of
from tests.unit.test_store_faults import in_time


@pytest.fixture
def found(tmp_path: Path) -> TaskStore:
    entries = tuple(Entry(path, len(data), "v") for path, data in sorted(FILES.items()))
    manifest = Manifest((*entries, Entry("d", kind="dir", mode=0o700)), directory=True)
    made = store_at(tmp_path / "s").open(task_of(manifest), manifest)
    fill(made, FILES)
    made.finish()
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Where nothing may be written."""
    folder = tmp_path / "victim"
    folder.mkdir(mode=0o755)
    (folder / "d").mkdir(mode=0o755)
    (folder / "dear").write_bytes(b"dear")
    return folder


def unharmed(victim: Path) -> None:
    assert sorted(p.name for p in victim.iterdir()) == ["d", "dear"]
    assert not list((victim / "d").iterdir())
    assert (victim / "dear").read_bytes() == b"dear"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (victim, victim / "d")] == [0o755, 0o755]


def after_mkdir(
    patch: pytest.MonkeyPatch, name: Callable[[str], bool], act: Callable[[Path], None]
) -> list[str]:
    """`act` is done as soon as a folder of that name was made; the names of those that were."""
    mkdir, acted = os.mkdir, []

    def made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        place = Path(path) if dir_fd is None else Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / path
        if name(place.name):
            acted.append(place.name)
            act(Path(os.path.realpath(place.parent)) / place.name)

    patch.setattr(os, "mkdir", made)
    return acted


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_becomes_a_link_is_not_written_through(
    tmp_path: Path, found: TaskStore, victim: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    if exists:
        (tmp_path / "out").mkdir()

    def swap(place: Path) -> None:
        place.rmdir()
        place.symlink_to(victim)

    with monkeypatch.context() as hostile:
        acted = after_mkdir(hostile, lambda name: name == "a", swap)
        with pytest.raises(UnsafePathError, match="is a symlink, but a folder is needed"):
            found.publish(tmp_path / "out")
    assert acted
    unharmed(victim)
    assert not leftovers(tmp_path)


def test_a_draft_that_is_replaced_is_not_written_to(
    tmp_path: Path, found: TaskStore, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(place: Path) -> None:
        place.rename(tmp_path / "aside")
        place.mkdir()
        (place / "a").symlink_to(victim)

    with monkeypatch.context() as hostile:
        calls = iter([True])
        after_mkdir(hostile, lambda name: name.startswith(output.PREFIX) and next(calls, False), swap)
        with pytest.raises(UnsafePathError, match="was replaced while being created"):
            found.publish(tmp_path / "out")
    unharmed(victim)
    assert not (tmp_path / "out").exists()


def test_a_tree_under_way_is_open_to_nobody_and_has_its_usual_mode_then(
    tmp_path: Path, found: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usual").mkdir()
    seen: list[int] = []
    make = output.Output._make

    def looked(self: output.Output, *rest: Any) -> bool:
        seen.extend(stat.S_IMODE(p.stat().st_mode) for p in leftovers(tmp_path))
        return make(self, *rest)

    monkeypatch.setattr(output.Output, "_make", looked)
    found.publish(tmp_path / "out")
    assert set(seen) == {0o700}
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert stat.S_IMODE((tmp_path / "out" / "d").stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_in_the_place_of_the_draft_is_refused(
    tmp_path: Path, found: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    found.publish(
        tmp_path / "squashed"
    )  # what we make belongs to that other number, too: a file server's way
    assert_tree(tmp_path / "squashed", FILES)
    fstat = os.fstat

    def ours(number: int) -> os.stat_result:
        was = fstat(number)
        probe = os.readlink(f"/proc/self/fd/{number}").endswith(".probe")
        return os.stat_result((*was[:4], real + 1, *was[5:])) if probe else was

    monkeypatch.setattr(os, "fstat", ours)
    with pytest.raises(UnsafePathError, match="was replaced"):
        found.publish(tmp_path / "theirs")


def test_a_mode_is_given_to_the_folder_and_not_to_its_name(
    tmp_path: Path, found: TaskStore, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod = os.chmod

    def swap(path: Any, mode: int, **more: Any) -> None:
        for draft in leftovers(tmp_path):
            if (draft / "d").is_dir() and not (draft / "d").is_symlink():
                (draft / "d").rename(draft / "aside")
                (draft / "d").symlink_to(victim)
        chmod(path, mode, **more)

    with monkeypatch.context() as hostile:
        hostile.setattr(os, "chmod", swap)
        with contextlib.suppress(UnsafePathError):
            found.publish(tmp_path / "out")
    unharmed(victim)


@pytest.mark.parametrize("link", [True, False])
def test_a_parent_that_becomes_a_link_leads_nowhere(
    tmp_path: Path, found: TaskStore, victim: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()

    def swap(place: Path) -> None:
        parent.rename(tmp_path / "aside")
        parent.symlink_to(victim)

    with monkeypatch.context() as hostile:
        assert_made = after_mkdir(hostile, lambda name: name.startswith(output.PREFIX), swap)
        found.publish(parent / "out", link=link)
    assert assert_made
    unharmed(victim)
    assert_tree(tmp_path / "aside" / "out", FILES)


def test_a_file_that_becomes_a_pipe_or_a_link_while_it_is_compared_holds_nobody_up(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = complete(store_at(tmp_path / "s"), {"x": BIG})
    lstat, out = os.lstat, tmp_path / "out"
    for what in (lambda: os.mkfifo(out), lambda: out.symlink_to(victim / "dear")):
        out.unlink(missing_ok=True)
        out.write_bytes(BIG)
        done: list[bool] = []

        def swapped(path: Any, done: list[bool] = done, what: Callable[[], None] = what, **more: Any) -> Any:
            was = lstat(path, **more)
            if Path(path).name == "out" and not done:
                done.append(True)
                out.unlink()
                what()
            return was

        with monkeypatch.context() as hostile:
            hostile.setattr(os, "lstat", swapped)
            in_time(lambda: found.publish(out))
        assert done
        assert out.read_bytes() == BIG
        assert not out.is_symlink()
    unharmed(victim)


def test_what_a_killed_process_left_is_not_sought_behind_links(
    tmp_path: Path, found: TaskStore, victim: Path
) -> None:
    out = tmp_path / "out"
    found.publish(out)
    mark = f"{output.PREFIX}{found._store.host_id[:12]}-left"
    (out / "a" / "big").unlink()
    (out / "a" / "small").unlink()
    (out / "a").rmdir()
    (out / "a").symlink_to(victim / "d")
    (victim / "d" / mark).write_bytes(b"")
    (out / "b" / mark).write_bytes(b"")
    (tmp_path / mark).write_bytes(b"")
    found._output(link=True).sweep(out)
    assert [p.parent for p in leftovers(tmp_path) if p.name == mark] == [victim / "d"]


def test_an_error_below_an_open_folder_names_the_place(
    tmp_path: Path, found: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*rest: Any, **more: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "big")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(
        DestinationError, match=rf"^{tmp_path}/out: Read-only file system; choose another dest"
    ):
        found.publish(tmp_path / "out")


def test_a_missing_descriptor_is_not_blamed_on_the_destination(
    tmp_path: Path, found: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*rest: Any, **more: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StorageError, match="too many open files") as caught:
        found.publish(tmp_path / "out")
    assert not isinstance(caught.value, DestinationError)
