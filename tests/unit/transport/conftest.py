"""What its tests share: each runs on sockets and on streams in memory, unless it is about one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dragonfly_ray.transport.memory import MemoryNetwork
from dragonfly_ray.transport.streams import Network
from dragonfly_ray.transport.tcp import TCP
from tests.piece_bench import Bench


@pytest.fixture(params=["tcp", "memory"])
def network(request: pytest.FixtureRequest) -> Network:
    return TCP if request.param == "tcp" else MemoryNetwork()


@pytest.fixture
def bench(tmp_path: Path, network: Network) -> Iterator[Bench]:
    made = Bench(tmp_path, network=network)
    yield made
    made.close()
