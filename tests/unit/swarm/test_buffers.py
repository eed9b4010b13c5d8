"""Pieces that are large for the pool of buffers: everything goes on with what there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dragonfly_ray.model import USUAL_LEAF
from dragonfly_ray.peer.buffers import BufferPool
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import states
from tests.waiting import until

FILES, EACH = 1600, 16 * 1024


@pytest.mark.parametrize("pieces", [4, 1])
def test_a_directory_whose_pieces_are_large_for_the_pool(
    origin: Nginx, swarm: Callable[..., Swarm], pieces: int
) -> None:
    """As 9,000 files of 1 MB with the defaults: pieces of 16 MiB, and a pool of four of them."""
    folder = origin.root / "many"
    folder.mkdir()
    content = {f"{number:05}": os.urandom(EACH) for number in range(FILES)}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    built = swarm(3)
    for peer in built.peers.values():
        peer.pool = BufferPool(pieces * USUAL_LEAF)
    view = built.distribute(f"{origin.url}/many/")
    assert list(states(view).values()) == ["done"] * 3
    for record in view["nodes"].values():
        found = {path.name: path.read_bytes() for path in Path(record["path"]).iterdir()}
        assert found == content


@pytest.mark.parametrize("end", ["cancel", "stop"])
def test_a_wait_for_buffers_ends_with_its_task(origin: Nginx, swarm: Callable[..., Swarm], end: str) -> None:
    origin.restart("limit_rate 100k;")
    built = swarm(1)
    peer = built.peers["n0"]
    built.submit(f"{origin.url}/big")
    until(lambda: peer._runs)
    (task_id,) = peer._runs
    peer.pool.take([peer.pool.budget], (task_id, "parents"))
    until(lambda: peer.pool.waiting)
    if end == "cancel":
        with built.scheduler.changed:
            built.scheduler.act(built.scheduler.core.cancel("s.0", 1e9))
        assert built.wait()["phase"] == "ended"
    else:
        peer._runs[task_id].stop()
    until(lambda: not peer._runs and not peer.pool.waiting)
