"""Content of few pieces is over after few rounds by the scheduler: each costs more than a piece does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dragonfly_ray.model import SHORT_LEAF
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, assert_everywhere


def test_a_mebibyte_is_leased_with_its_delivery(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    small = content[:MIB]
    (origin.root / "small").write_bytes(small)
    built = swarm(4)
    view = built.distribute(f"{origin.url}/small")
    assert_everywhere(view, small, 4)
    heard = built.scheduler.heard
    assert heard["Ended"] == 4
    # What each has read, and a sign of life of whoever waits for others.
    assert heard["Report"] <= 4 * (MIB // SHORT_LEAF // 4 + 2), heard
    claimed = [d for d in built.scheduler.core.decisions.recent() if d.kind == "lease"]
    assert len(claimed) == 4, "one lease a host"
    assert sum(n["bytes_origin"] for n in view["nodes"].values()) == MIB


def test_who_fed_whom_comes_with_the_outcome(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    (origin.root / "small").write_bytes(content[:MIB])
    built = swarm(3)
    view = built.distribute(f"{origin.url}/small", dest=str(tmp_path / "{node}"))
    (task,) = built.scheduler.core.tasks
    fed = sum(edge["bytes"] for edge in built.scheduler.core.edges(task))
    assert fed == sum(n["bytes_peers"] for n in view["nodes"].values()) == 2 * MIB
