"""Readers on a peer's own node: what they find before the first byte, and after the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dragonfly_ray.errors import NotRunningError, StorageError
from dragonfly_ray.storage.task_store import TaskStore
from tests.nginx import Nginx
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, SIZE
from tests.waiting import until


def only(swarm: Swarm) -> TaskStore:
    until(lambda: len(swarm.peers["n0"].store.tasks()) == 1)
    (task,) = swarm.peers["n0"].store.tasks()
    return task


def test_a_file_can_be_opened_before_its_first_byte_is_there(
    swarm: Callable[..., Swarm], content: bytes
) -> None:
    with ScriptedOrigin(Behaviour(content, pace=20.0)) as slow:
        built = swarm(1)
        peer = built.peers["n0"]
        built.submit(slow.url)
        task = only(built)
        until(lambda: task.task.id in peer._runs)
        shown = peer.reads.layout(task.task.id)
        assert not task.count
        assert shown
        assert not shown["complete"]
        assert Path(shown["path"]).stat().st_size == shown["size"] == len(content)
        assert not task.count, "a file is not a piece"
        assert not peer.reads.await_range(task.task.id, 0, 1000, 0.01)


def test_content_that_was_evicted_says_so(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    built = swarm(1)
    built.distribute(f"{origin.url}/big")
    task, peer = only(built), built.peers["n0"]
    until(lambda: not peer._runs)
    peer.evict(task.task.id)
    assert peer.reads.layout(task.task.id) is None
    assert not peer.reads.await_range(task.task.id, 0, MIB, 0.01)
    with pytest.raises(NotRunningError, match="not in its store"), peer.reads.mapped(task.task.id):
        pass


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_was_taken_from_the_store_is_an_error_of_the_store(
    origin: Nginx, swarm: Callable[..., Swarm], damage: str
) -> None:
    built = swarm(1)
    built.distribute(f"{origin.url}/big")
    task, peer = only(built), built.peers["n0"]
    peer.store.files.close()
    file = task.folder / "0"
    if damage == "gone":
        file.unlink()
    else:
        file.chmod(0o600)
        with file.open("r+b") as cut:
            cut.truncate(SIZE // 2)
    with pytest.raises(StorageError, match="cannot be read"), peer.reads.mapped(task.task.id):
        pass
    if damage == "gone":
        with pytest.raises(StorageError, match="cannot be read"):
            peer.reads.layout(task.task.id)
        assert not file.exists(), "nothing stands in for it"
