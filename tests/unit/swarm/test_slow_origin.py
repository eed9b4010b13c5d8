"""A host whose way to the origin is nearly dead: what it reads is read by another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.peer.origin_workers import OriginWorkers
from dragonfly_ray.scheduling.origin_admission import REREAD_LEAST
from dragonfly_ray.sources import Reader
from tests.origins import FolderOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import states

FILES, EACH = 768, 4096
SIZE = FILES * EACH


def test_one_host_with_a_nearly_dead_way_to_the_origin_holds_nobody_up(
    swarm: Callable[..., Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 4 KiB in 1.7 s on each connection: never silent, and at this rate four pieces take two minutes."""
    files = {f"{number:04}": os.urandom(EACH) for number in range(FILES)}
    with FolderOrigin(files) as quick, FolderOrigin(files) as dead:
        released, begin = threading.Event(), OriginWorkers._open

        def slowly(method: str, path: str) -> int:
            released.wait(1.7)
            return 0

        def elsewhere(self: OriginWorkers) -> Reader:
            if self._engine.context.node_name == "n0":
                access = self._access()
                source = msgspec.structs.replace(access.spec.source, url=dead.url)
                spec = msgspec.structs.replace(access.spec, source=source)
                access = msgspec.structs.replace(access, spec=spec)
                self._access = lambda: access
            return begin(self)

        dead.before = slowly
        monkeypatch.setattr(OriginWorkers, "_open", elsewhere)
        built = swarm(3, settings=Settings(origin=OriginSettings(connections=1, small_connections=4)))
        built.submit(quick.url)
        view = built.wait(timeout=80.0)
        released.set()
        assert list(states(view).values()) == ["done"] * 3
        for record in view["nodes"].values():
            assert {p.name: p.read_bytes() for p in Path(record["path"]).iterdir()} == files
        sent = [path for each in (quick, dead) for method, path, _ in each.asked if method == "GET" and path]
        assert set(dead.count("GET")), "it has tried"
        assert len(sent) <= 1.01 * FILES + REREAD_LEAST // EACH


@pytest.mark.parametrize("small", [False, True], ids=["a file", "small files"])
def test_an_origin_whose_every_answer_begins_late_is_read_once(
    swarm: Callable[..., Swarm], small: bool
) -> None:
    """Six times as late as a lease lasts without a byte."""
    files = {f"{number:03}": os.urandom(4096 if small else 2 << 20) for number in range(200 if small else 2)}
    with FolderOrigin(files) as origin:
        late = threading.Event()

        def before(method: str, path: str) -> int:
            late.wait(1.2)
            return 0

        origin.before = before
        built = swarm(3, settings=Settings(origin=OriginSettings(lease_timeout=0.2)))
        view = built.distribute(origin.url)
        late.set()
        assert list(states(view).values()) == ["done"] * 3, view
        for record in view["nodes"].values():
            assert {p.name: p.read_bytes() for p in Path(record["path"]).iterdir()} == files
        read = sum(record["bytes_origin"] for record in view["nodes"].values())
        assert read <= 1.05 * sum(map(len, files.values()))
