"""What the tests of whole distributions share: an nginx with one big file, and swarms in one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import SHORT_LEAF
from dragonfly_ray.scheduling.download.state import DownloadState
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.waiting import HANG

MIB = 1 << 20
SIZE = 32 * MIB
PIECES = SIZE // SHORT_LEAF


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def origin(tmp_path: Path, content: bytes) -> Iterator[Nginx]:
    tmp_path.chmod(0o755)
    with Nginx(tmp_path / "www", tmp_path / "nginx") as made:
        (made.root / "big").write_bytes(content)
        yield made


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Callable[..., Swarm]]:
    made: list[Swarm] = []

    def build(count: int = 4, **options: Any) -> Swarm:
        made.append(Swarm(tmp_path / f"swarm{len(made)}", count, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


def patient(**origin: Any) -> Settings:
    """No lease expires: what comes late on a busy machine is not read by a second host, too."""
    return Settings(origin=OriginSettings(lease_timeout=HANG, **origin))


def states(view: dict[str, Any]) -> dict[str, str]:
    return {node: record["state"] for node, record in view["nodes"].items()}


def kinds(view: dict[str, Any]) -> dict[str, str]:
    return {node: record["kind"] for node, record in view["nodes"].items()}


def assert_everywhere(view: dict[str, Any], content: bytes, nodes: int) -> None:
    assert list(states(view).values()) == ["done"] * nodes, view
    for record in view["nodes"].values():
        assert Path(record["path"]).read_bytes() == content


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of every download is checked after each event."""
    monkeypatch.setattr(DownloadState, "checked", True)
