"""What limited a distribution, on real peers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dragonfly_ray.config import OriginSettings, Settings, TransportSettings
from dragonfly_ray.figures import Figures, Measured, figures
from tests.nginx import Nginx
from tests.paced import PacedServer
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, assert_everywhere

RATE = 4 * MIB
SIZE = 12 * MIB


@contextmanager
def paced(root: Path) -> Iterator[str]:
    with PacedServer(("127.0.0.1", 0), root, RATE) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def of(view: dict[str, Any]) -> Figures:
    seconds = [(node, record["seconds"]) for node, record in view["nodes"].items()]
    measured = msgspec.convert(view["measured"], Measured)
    found = figures(view["seconds"], view["size"], seconds, [measured])
    assert found.floor_ratio is not None
    assert found.floor_ratio >= 0.9, "nothing is faster than its floor"
    assert found.origin_ratio == pytest.approx(1.0, abs=0.05)
    return found


def test_a_slow_origin_limits(tmp_path: Path, swarm: Callable[..., Swarm], content: bytes) -> None:
    (tmp_path / "some").write_bytes(content[:SIZE])
    built = swarm(3, settings=Settings(origin=OriginSettings(connections=1, max_connections=1)))
    with paced(tmp_path) as url:
        view = built.distribute(f"{url}/some")
    assert_everywhere(view, content[:SIZE], 3)
    found = of(view)
    assert (found.limited_by, found.cross_zone_share) == ("origin", None), view["measured"]


def test_nodes_that_receive_slowly_limit(origin: Nginx, swarm: Callable[..., Swarm], content: bytes) -> None:
    (origin.root / "some").write_bytes(content[:SIZE])
    built = swarm(4, settings=Settings(transport=TransportSettings(download_rate=RATE)))
    view = built.distribute(f"{origin.url}/some")
    assert_everywhere(view, content[:SIZE], 4)
    assert of(view).limited_by == "node", view["measured"]


def test_a_zone_that_little_comes_into_limits(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    """One host reads the origin, and sends slowly; the other zone has the content from it alone. So slowly, that the
    origin is read several times as fast however busy this machine is."""
    size = SIZE // 2
    (origin.root / "some").write_bytes(content[:size])
    settings = Settings(origin=OriginSettings(policy="seeds"), transport=TransportSettings(upload_rate=MIB))
    built = swarm(0, settings=settings)
    built.start("a0", zone="a", seed=True)
    for name in ("b0", "b1", "b2"):
        built.start(name, zone="b")
    view = built.distribute(f"{origin.url}/some")
    assert_everywhere(view, content[:size], 4)
    found = of(view)
    assert (found.limited_by, found.limited_at) == ("zone", "b"), view["measured"]
    assert 1 / 3 <= found.cross_zone_share <= 0.5  # type: ignore[operator]
