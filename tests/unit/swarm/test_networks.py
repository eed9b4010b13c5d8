"""Whole distributions over other carriers than TCP: peers, server and connections know streams only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dragonfly_ray.transport.memory import MemoryNetwork
from tests.layered import DeflatedNetwork
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import SIZE, assert_everywhere


@pytest.mark.parametrize("layered", [False, True])
def test_a_distribution_runs_on_any_network(
    swarm: Callable[..., Swarm], origin: Nginx, content: bytes, layered: bool
) -> None:
    network = DeflatedNetwork(MemoryNetwork()) if layered else MemoryNetwork()
    built = swarm(4, network=network)
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 4)
    assert sum(record["bytes_peers"] for record in view["nodes"].values()) >= 3 * SIZE * 0.99
