"""Content that changes while its origin tells no version of it, or the same one: old or new, never a mix, at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.scheduling import resolution
from dragonfly_ray.storage.output import Published
from dragonfly_ray.storage.task_store import TaskStore
from tests.nginx import Nginx
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere, kinds, states
from tests.waiting import HANG, until

SMALL, LARGE = 50_000, 16_000_000


def honest(built: Swarm) -> None:
    """Nobody is blamed for anything."""
    for host in built.scheduler.core.hosts.values():
        assert not host.blame, host.host.name


def outputs(root: Path, nodes: int) -> list[bytes]:
    return [(root / f"n{number}").read_bytes() for number in range(nodes)]


@pytest.mark.parametrize("behaviour", [
    Behaviour(etag=""), Behaviour(etag="", ranges=False), Behaviour(etag="", ranges=False, length=False), Behaviour(),
], ids=["ranges", "no ranges", "no length", "one version"])  # fmt: skip
@pytest.mark.parametrize("audit", [0.0, 1.0])
def test_small_content_that_changes_without_a_new_version_is_delivered_at_once(
    swarm: Callable[..., Swarm], behaviour: Behaviour, audit: float, tmp_path: Path
) -> None:
    dest = str(tmp_path / "out" / "{node}")
    with ScriptedOrigin(behaviour) as origin:
        built = swarm(3, audit=audit)
        for turn in range(3):
            origin.behaviour.content = content = os.urandom(SMALL)
            view = built.distribute(origin.url, f"{turn}.0", dest=dest)
            assert list(states(view).values()) == ["done"] * 3, view
            assert outputs(tmp_path / "out", 3) == [content] * 3
        honest(built)


def test_a_small_file_written_twice_within_a_second(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    built = swarm(3)
    for turn in range(3):
        content = os.urandom(SMALL)
        (origin.root / "small").write_bytes(content)
        os.utime(origin.root / "small", (1_700_000_000, 1_700_000_000.1 + turn / 10))
        assert_everywhere(built.distribute(f"{origin.url}/small", f"{turn}.0"), content, 3)
    honest(built)


@pytest.mark.parametrize("size", [SMALL, 3_000_000])
def test_what_was_delivered_stays_what_it_was(swarm: Callable[..., Swarm], size: int, tmp_path: Path) -> None:
    """A chunked answer without length or version."""
    first, second = os.urandom(size), os.urandom(size)
    with ScriptedOrigin(Behaviour(first, etag="", ranges=False, length=False)) as origin:
        built = swarm(2)
        out = tmp_path / "out"
        view = built.distribute(origin.url, "a.0", nodes=["n0"], dest=str(out / "{node}"))
        assert states(view) == {"n0": "done"}, view
        origin.behaviour.content = second
        view = built.distribute(origin.url, "b.0", nodes=["n1"], dest=str(out / "{node}"))
        assert states(view) == {"n1": "done"}, view
        assert outputs(out, 2) == [first, second]
        view = built.distribute(origin.url, "c.0", dest=str(out / "c-{node}"))
        assert list(states(view).values()) == ["done"] * 2, view
        assert (out / "n0").read_bytes() == first
        assert (out / "c-n0").read_bytes() == (out / "c-n1").read_bytes() == second
        honest(built)


@pytest.mark.parametrize("ranges", [True, False])
def test_what_continues_a_stream_without_a_version_is_not_joined_to_other_content(
    swarm: Callable[..., Swarm], ranges: bool
) -> None:
    """The first stream breaks half way, and the next one is of other content of that length."""
    first, second = os.urandom(LARGE), os.urandom(LARGE)
    behaviour = Behaviour(first, etag="", ranges=ranges, truncate=LARGE // 2)
    streams = []

    def change(number: int) -> int:
        if number:
            streams.append(number)
        if len(streams) == 2:
            behaviour.content, behaviour.truncate = second, None
        return 0

    behaviour.before = change
    with ScriptedOrigin(behaviour) as origin:
        built = swarm(3)
        view = built.distribute(origin.url)
        assert_everywhere(view, second, 3)
        honest(built)


@pytest.mark.parametrize(("how", "etag"), [("rewritten", ""), ("rewritten", '"v1"'), ("replicas", "")])
def test_large_content_that_differs_under_one_version_blames_nobody(
    swarm: Callable[..., Swarm], how: str, etag: str
) -> None:
    """All of it is read twice, so the second reading finds out."""
    contents = os.urandom(LARGE), os.urandom(LARGE)
    behaviour = Behaviour(contents[0], etag=etag, last_modified="Sun, 06 Nov 1994 08:49:37 GMT")

    def change(number: int) -> int:
        behaviour.content = contents[number % 2 if how == "replicas" else number > 10]
        return 0

    behaviour.before = change
    with ScriptedOrigin(behaviour) as origin:
        built = swarm(4, audit=1.0)
        view = built.distribute(origin.url)
        if how == "rewritten":
            assert_everywhere(view, contents[1], 4)
        else:
            assert set(kinds(view).values()) == {"source-changed"}, view
            assert all("replicas" in record["message"] for record in view["nodes"].values())
        honest(built)


@pytest.mark.parametrize("behaviour", [
    Behaviour(), Behaviour(etag="", last_modified="Sun, 06 Nov 1994 08:49:37 GMT"),
], ids=["strong", "weak"])  # fmt: skip
@pytest.mark.parametrize("targets", [["n2"], ["n0", "n1", "n2"]])
def test_two_copies_of_one_version_that_differ_become_one(
    swarm: Callable[..., Swarm], behaviour: Behaviour, targets: list[str], tmp_path: Path
) -> None:
    """A host was away while the content changed under its version."""
    first, second = os.urandom(LARGE), os.urandom(LARGE)
    behaviour.content = first
    with ScriptedOrigin(behaviour) as origin:
        built = swarm(3)
        assert_everywhere(
            built.distribute(origin.url, "a.0", nodes=["n0"], dest=str(tmp_path / "a")), first, 1
        )
        away = built.peers["n0"]
        del built.scheduler.peers[away.host.id]
        away.stop()
        with built.scheduler.changed:
            built.scheduler.act(built.scheduler.core.node_gone("n0", time.monotonic()))
        origin.behaviour.content = second
        assert_everywhere(
            built.distribute(origin.url, "b.0", nodes=["n1"], dest=str(tmp_path / "b")), second, 1
        )
        built.start("n0")
        view = built.distribute(origin.url, "c.0", nodes=targets, dest=str(tmp_path / "c-{node}"))
        assert_everywhere(view, second, len(targets))
        assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (first, second)
        honest(built)


def test_an_output_of_former_content_does_not_replace_that_of_the_new(
    swarm: Callable[..., Swarm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source changes while the first is being written."""
    first, second = os.urandom(LARGE), os.urandom(LARGE)
    with ScriptedOrigin(Behaviour(first)) as origin:
        built = swarm(1)
        core, publish = built.scheduler.core, TaskStore.publish
        former: list[TaskStore] = []
        later, over = threading.Event(), threading.Event()

        def slowly(store: TaskStore, *args: Any, **options: Any) -> Published:
            if former:
                done = publish(store, *args, **options)
                later.set()
                return done
            former.append(store)
            origin.behaviour.content = second
            with built.scheduler.changed:
                task = core.tasks[store.task.id]
                built.scheduler.act(resolution.start_anew(core.cluster, task, time.monotonic()))
            until(lambda: any(t is not store and t.finished for t in built.peers["n0"].store.tasks()))
            later.wait(1.0)  # or it waits for this one
            done = publish(store, *args, **options)
            over.set()
            return done

        monkeypatch.setattr(TaskStore, "publish", slowly)
        view = built.distribute(origin.url, dest=str(tmp_path / "out"))
        assert list(states(view).values()) == ["done"], view
        assert over.wait(HANG)
        assert (tmp_path / "out").read_bytes() == second
