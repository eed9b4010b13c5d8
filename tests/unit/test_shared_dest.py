"""Nodes that share the file system of `dest`: one writes, and the others see it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.errors import DestinationError
from dragonfly_ray.storage.output import Published
from dragonfly_ray.storage.task_store import TaskStore
from tests.nginx import Nginx
from tests.swarm import Swarm

MIB = 1 << 20


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Nginx]:
    tmp_path.chmod(0o755)
    with Nginx(tmp_path / "www", tmp_path / "nginx") as made:
        (made.root / "f").write_bytes(os.urandom(9 * MIB))
        (made.root / "small").write_bytes(os.urandom(70_000))
        for i in range(40):
            (made.root / "d" / f"{i % 4}").mkdir(parents=True, exist_ok=True)
            (made.root / "d" / f"{i % 4}" / f"{i}").write_bytes(os.urandom(i * 5000))
        yield made


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 4)
    yield made
    made.close()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """(store, dest) of every output that was written."""
    seen: list[tuple[str, Path]] = []
    publish = TaskStore.publish

    def noted(self: TaskStore, dest: Path, **options: Any) -> Published:
        seen.append((node_of(self), dest))
        return publish(self, dest, **options)

    monkeypatch.setattr(TaskStore, "publish", noted)
    return seen


def node_of(store: TaskStore) -> str:
    return next(p for p in store.folder.parts if p in ("n0", "n1", "n2", "n3"))


def assert_same(found: Path, wanted: Path) -> None:
    if wanted.is_file():
        assert found.read_bytes() == wanted.read_bytes()
        return
    files = {p.relative_to(wanted) for p in wanted.rglob("*") if p.is_file()}
    assert {p.relative_to(found) for p in found.rglob("*") if p.is_file()} == files
    for name in files:
        assert (found / name).read_bytes() == (wanted / name).read_bytes()


@pytest.mark.parametrize("name", ["f", "small", "d/"])
@pytest.mark.parametrize("link", [True, False])
def test_one_of_them_writes_and_all_have_it(
    origin: Nginx, swarm: Swarm, tmp_path: Path, published: list[Any], name: str, link: bool
) -> None:
    dest = tmp_path / "a" / "b" / "out"
    view = swarm.distribute(f"{origin.url}/{name}", dest=str(dest), link=link)
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert {n["path"] for n in view["nodes"].values()} == {str(dest)}
    assert_same(dest, origin.root / name)
    assert len(published) == 1
    writer = published[0][0]
    assert {n: r["written_by"] for n, r in view["nodes"].items()} == {
        n: "" if n == writer else writer for n in swarm.peers
    }
    assert not list(tmp_path.rglob(".dragonfly-*"))


def test_into_a_folder_that_is_there_and_beside_what_others_keep_in_it(
    origin: Nginx, swarm: Swarm, tmp_path: Path, published: list[Any]
) -> None:
    dest = tmp_path / "out"
    (dest / "0").mkdir(parents=True)
    (dest / "0" / "theirs").write_bytes(b"kept")
    view = swarm.distribute(f"{origin.url}/d/", dest=str(dest))
    assert {(n["state"], n["merged"]) for n in view["nodes"].values()} == {("done", True)}
    assert len(published) == 1
    assert (dest / "0" / "theirs").read_bytes() == b"kept"
    (dest / "0" / "theirs").unlink()
    assert_same(dest, origin.root / "d")


def test_paths_with_the_node_in_them_are_never_the_same(
    origin: Nginx, swarm: Swarm, tmp_path: Path, published: list[Any]
) -> None:
    view = swarm.distribute(f"{origin.url}/f", dest=str(tmp_path / "out" / "{node}"))
    assert {(n["state"], n["written_by"]) for n in view["nodes"].values()} == {("done", "")}
    assert len(published) == 4


def test_with_a_digest_too(origin: Nginx, swarm: Swarm, tmp_path: Path, published: list[Any]) -> None:
    import hashlib

    data = (origin.root / "f").read_bytes()
    dest = tmp_path / "out" / "f"
    bad = swarm.distribute(f"{origin.url}/f", "bad.0", dest=str(dest), digest="sha256:" + "0" * 64)
    assert {n["kind"] for n in bad["nodes"].values()} == {"integrity"}
    assert not dest.parent.exists()
    good = "sha256:" + hashlib.sha256(data).hexdigest()
    view = swarm.distribute(f"{origin.url}/f", "good.0", dest=str(dest), digest=good)
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert dest.read_bytes() == data
    assert len(published) == 1


@pytest.mark.parametrize("name", ["f", "d/"])
def test_when_the_writer_cannot_another_does(
    origin: Nginx, swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The first that tries fails when the others already wait for it."""
    tried: list[str] = []
    publish = TaskStore.publish
    dest = tmp_path / "out"

    def fail_first(self: TaskStore, to: Path, **options: Any) -> Published:
        tried.append(node_of(self))
        if len(tried) == 1:
            all_wait(swarm)
            raise DestinationError(f"{to}: Read-only file system")
        return publish(self, to, **options)

    monkeypatch.setattr(TaskStore, "publish", fail_first)
    view = swarm.distribute(f"{origin.url}/{name}", dest=str(dest))
    loser, winner = tried
    assert loser != winner
    assert view["nodes"].pop(loser)["kind"] == "destination"
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert {n["written_by"] for n in view["nodes"].values()} == {"", winner}
    assert_same(dest, origin.root / name)


def all_wait(swarm: Swarm) -> None:
    """Until the three that do not write have been told so."""
    with swarm.scheduler.changed:
        while True:
            if (
                sum(
                    len(p.waiting)
                    for t in swarm.scheduler.core.tasks.values()
                    for p in t.places._places.values()
                )
                == 3
            ):
                return
            assert swarm.scheduler.changed.wait(30.0)


def test_when_the_writer_dies_another_takes_over(
    origin: Nginx, swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = threading.Event()
    tried: list[str] = []
    publish = TaskStore.publish

    def hang_first(self: TaskStore, to: Path, **options: Any) -> Published:
        tried.append(node_of(self))
        if len(tried) == 1:
            all_wait(swarm)
            with swarm.scheduler.changed:
                victim = swarm.scheduler.peers.pop(swarm.peers[tried[0]].host.id)
                swarm.scheduler.act(swarm.scheduler.core.probed(victim.host.id, "gone", 0.0))
            dead.wait(60)
            raise DestinationError("dead")
        return publish(self, to, **options)

    monkeypatch.setattr(TaskStore, "publish", hang_first)
    view = swarm.distribute(f"{origin.url}/f", dest=str(tmp_path / "out"))
    dead.set()
    assert view["nodes"].pop(tried[0])["kind"] == "node-lost"
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert (tmp_path / "out").read_bytes() == (origin.root / "f").read_bytes()


def test_when_the_scheduler_forgets_who_writes_all_end_well(
    origin: Nginx, swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = TaskStore.publish
    tried: list[str] = []

    def forgotten(self: TaskStore, to: Path, **options: Any) -> Published:
        tried.append(node_of(self))
        if len(tried) == 1:
            all_wait(swarm)
            with swarm.scheduler.changed:
                core = swarm.scheduler.core
                swarm.scheduler.core = type(core)(core.settings, core.sign)
            until_tried(tried)
        return publish(self, to, **options)

    def until_tried(tried: list[str]) -> None:
        with swarm.scheduler.changed:
            while len(tried) < 2:
                assert swarm.scheduler.changed.wait(30.0)

    monkeypatch.setattr(TaskStore, "publish", forgotten)
    view = swarm.distribute(f"{origin.url}/f", dest=str(tmp_path / "out"))
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert len(set(tried)) == 2
    assert (tmp_path / "out").read_bytes() == (origin.root / "f").read_bytes()


def test_what_is_not_there_when_one_looks_is_written(
    origin: Nginx, swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has put another file of that length in the place of what the first wrote."""
    publish = TaskStore.publish
    tried: list[str] = []

    def replaced(self: TaskStore, to: Path, **options: Any) -> Published:
        tried.append(node_of(self))
        if len(tried) > 1:
            return publish(self, to, **options)
        all_wait(swarm)
        done = publish(self, to, **options)
        monkeypatch.setattr("dragonfly_ray.peer.output_job.stamp_of", lambda path: "1:2:3")
        return done

    monkeypatch.setattr(TaskStore, "publish", replaced)
    view = swarm.distribute(f"{origin.url}/f", dest=str(tmp_path / "out"))
    assert {(n["state"], n["written_by"]) for n in view["nodes"].values()} == {("done", "")}, view
    assert set(tried) == set(swarm.peers)


def test_a_digest_that_joins_while_another_output_is_waited_for_is_checked(
    origin: Nginx, swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = TaskStore.publish
    go, hung = threading.Event(), threading.Event()

    def hang_first(self: TaskStore, to: Path, **options: Any) -> Published:
        if not hung.is_set():
            hung.set()
            go.wait(60)
        return publish(self, to, **options)

    monkeypatch.setattr(TaskStore, "publish", hang_first)
    swarm.submit(f"{origin.url}/f", "a.0", dest=str(tmp_path / "out"))
    all_wait(swarm)
    waits = [n for n in swarm.peers if n != writer_of(swarm)]
    wrong = tmp_path / "wrong" / "f"
    view = swarm.distribute(
        f"{origin.url}/f", "b.0", nodes=waits, dest=str(wrong), digest="sha256:" + "0" * 64
    )
    assert {n["kind"] for n in view["nodes"].values()} == {"integrity"}
    assert not wrong.parent.exists()
    go.set()
    assert {n["state"] for n in swarm.wait("a.0")["nodes"].values()} == {"done"}


def writer_of(swarm: Swarm) -> str:
    (task,) = swarm.scheduler.core.tasks.values()
    (place,) = task.places._places.values()
    return place.node


@pytest.mark.parametrize("name", ["f", "d/"])
def test_two_distributions_to_one_dest_at_once(
    origin: Nginx, swarm: Swarm, tmp_path: Path, published: list[Any], name: str
) -> None:
    dest = tmp_path / "out"
    for spec in ("a.0", "b.0"):
        swarm.submit(f"{origin.url}/{name}", spec, dest=str(dest))
    for spec in ("a.0", "b.0"):
        view = swarm.wait(spec)
        assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert_same(dest, origin.root / name)
    assert not list(tmp_path.rglob(".dragonfly-*"))


def test_two_contents_at_one_dest_leave_one_whole(origin: Nginx, swarm: Swarm, tmp_path: Path) -> None:
    dest = tmp_path / "out"
    (origin.root / "g").write_bytes(os.urandom(9 * MIB))
    swarm.submit(f"{origin.url}/f", "a.0", dest=str(dest))
    swarm.submit(f"{origin.url}/g", "b.0", dest=str(dest))
    for spec in ("a.0", "b.0"):
        assert {n["state"] for n in swarm.wait(spec)["nodes"].values()} == {"done"}
    assert dest.read_bytes() in [(origin.root / n).read_bytes() for n in "fg"]


def test_two_folders_at_one_dest_are_merged_file_by_file(origin: Nginx, swarm: Swarm, tmp_path: Path) -> None:
    """Each name of either is there, and whole."""
    dest = tmp_path / "out"
    for i in range(0, 40, 2):
        (origin.root / "e" / f"{i % 4}").mkdir(parents=True, exist_ok=True)
        (origin.root / "e" / f"{i % 4}" / f"{i}").write_bytes(os.urandom(i * 5000))
    (origin.root / "e" / "0" / "only").write_bytes(b"here")
    swarm.submit(f"{origin.url}/d/", "a.0", dest=str(dest))
    swarm.submit(f"{origin.url}/e/", "b.0", dest=str(dest))
    for spec in ("a.0", "b.0"):
        assert {n["state"] for n in swarm.wait(spec)["nodes"].values()} == {"done"}
    sources = [origin.root / "d", origin.root / "e"]
    names = {p.relative_to(root) for root in sources for p in root.rglob("*") if p.is_file()}
    assert {p.relative_to(dest) for p in dest.rglob("*") if p.is_file()} == names
    for name in names:
        assert (dest / name).read_bytes() in [(r / name).read_bytes() for r in sources if (r / name).exists()]


def test_a_spec_that_is_cancelled_leaves_its_place_to_others(
    origin: Nginx, swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of a cancelled distribution hangs; another distribution does not wait for it."""
    publish = TaskStore.publish
    hung, go = threading.Event(), threading.Event()

    def hang_first(self: TaskStore, to: Path, **options: Any) -> Published:
        if not hung.is_set():
            hung.set()
            go.wait(60)
        return publish(self, to, **options)

    monkeypatch.setattr(TaskStore, "publish", hang_first)
    swarm.submit(f"{origin.url}/f", "a.0", ["n0"], dest=str(tmp_path / "out"))
    assert hung.wait(30)
    swarm.submit(f"{origin.url}/f", "b.0", ["n1", "n2"], dest=str(tmp_path / "out"))

    def waits() -> int:
        (task,) = swarm.scheduler.core.tasks.values()
        return sum(len(p.waiting) for p in task.places._places.values())

    with swarm.scheduler.changed:
        while waits() < 2:
            assert swarm.scheduler.changed.wait(30)
        swarm.scheduler.act(swarm.scheduler.core.cancel("a.0", 0.0))
    view = swarm.wait("b.0")
    go.set()
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
