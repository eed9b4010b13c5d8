"""Parents that give next to nothing: what they hold up is asked of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dragonfly_ray.config import Settings, TransportSettings
from dragonfly_ray.model import SHORT_LEAF
from dragonfly_ray.peer.buffers import BufferPool
from dragonfly_ray.peer.parents import Parent
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere

TRICKLE = 3000
"""Bytes a second, of one parent."""


def paced(built: Swarm, rate: int | None, *names: str) -> None:
    transport = TransportSettings(upload_rate=rate)
    built.settings = built.settings.model_copy(update={"transport": transport})
    for name in names:
        built.start(name)


@pytest.mark.parametrize("buffers", [4, 512])
def test_four_slow_parents_do_not_stop_a_peer(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, buffers: int
) -> None:
    """With few buffers, as with large pieces, they would keep all of these; with many, the pieces asked of them."""
    built = swarm(1)
    slow = [f"slow{number}" for number in range(4)]
    paced(built, TRICKLE, *slow)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    for name in slow:  # as if they had fetched it
        (whole,), peer = built.peers["n0"].store.tasks(), built.peers[name]
        with peer.store.hold(whole.task, whole.manifest) as copy:
            for index in range(whole.task.pieces):
                copy.put(index, memoryview(whole.read(index)), whole.digests[index] or b"")
        peer.announce()
    paced(built, None, "child")
    built.peers["child"].pool = BufferPool(buffers * SHORT_LEAF)
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["child"])
    assert_everywhere(view, content, 1)
    assert view["nodes"]["child"]["bytes_origin"] <= len(content) // 100


def test_nobody_is_given_up_where_all_are_alike(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Parent] = []
    monkeypatch.setattr(Parent, "_give_up_piece", given_up.append)
    built = swarm(0, settings=Settings(transport=TransportSettings(upload_rate=1_000_000)))
    for name in ("n0", "n1", "n2", "n3", "n4"):
        built.start(name)
    for peer in built.peers.values():
        peer.pool = BufferPool(4 * SHORT_LEAF)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0", "n1", "n2"])
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n3", "n4"])
    assert_everywhere(view, content, 2)
    assert not given_up
