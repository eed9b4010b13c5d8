"""Parents that give next to nothing: what they hold up is asked of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dragonfly_ray.config import Settings, TransportSettings
from dragonfly_ray.model import SHORT_LEAF
from dragonfly_ray.peer.buffers import BufferPool
from dragonfly_ray.peer.parent_link import Parent
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, assert_everywhere
from tests.waiting import until

TRICKLE = 3000
"""Bytes a second, of one parent."""


@pytest.fixture
def some(origin: Nginx, content: bytes) -> bytes:
    """What is at `/some`."""
    (origin.root / "some").write_bytes(content[: 8 * MIB])
    return content[: 8 * MIB]


@pytest.mark.parametrize("buffers", [4, 512])
def test_four_slow_parents_do_not_stop_a_peer(
    origin: Nginx, swarm: Callable[..., Swarm], some: bytes, buffers: int
) -> None:
    """With few buffers, as with large pieces, they would keep all of these; with many, the pieces asked of them.

    They are well at first, and nobody else but one parent can give what they hold up."""
    built = swarm(0, settings=Settings(transport=TransportSettings(upload_rate=1_000_000)))
    slow = [f"slow{number}" for number in range(4)]
    for name in ("well", *slow, "child"):
        built.start(name)
    built.distribute(f"{origin.url}/some", "a.0", nodes=["well", *slow])
    built.peers["child"].pool = BufferPool(buffers * SHORT_LEAF)
    built.submit(f"{origin.url}/some", "b.0", nodes=["child"])
    until(lambda: built.pieces("child") > 16)
    for name in slow:
        server = built.peers[name].server
        server._settings = server._settings.model_copy(update={"upload_rate": TRICKLE})
        server.configured()
    origin.stop()
    view = built.wait("b.0", timeout=120.0)
    assert_everywhere(view, some, 1)


def test_nobody_is_given_up_where_all_are_alike(
    origin: Nginx, swarm: Callable[..., Swarm], some: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Parent] = []
    monkeypatch.setattr(Parent, "_give_up_piece", given_up.append)
    built = swarm(0, settings=Settings(transport=TransportSettings(upload_rate=1_000_000)))
    for name in ("n0", "n1", "n2", "n3", "n4"):
        built.start(name)
    for peer in built.peers.values():
        peer.pool = BufferPool(4 * SHORT_LEAF)
    built.distribute(f"{origin.url}/some", "a.0", nodes=["n0", "n1", "n2"])
    view = built.distribute(f"{origin.url}/some", "b.0", nodes=["n3", "n4"])
    assert_everywhere(view, some, 2)
    assert not given_up
