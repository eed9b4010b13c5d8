"""A host whose way to the origin is nearly dead: what it reads is read by another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.peer.origin import OriginWorkers
from dragonfly_ray.scheduling.origins import REREAD_LEAST
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
            run = self._run
            if run.context.node_name == "n0":
                source = msgspec.structs.replace(run.access.spec.source, url=dead.url)
                spec = msgspec.structs.replace(run.access.spec, source=source)
                run.access = msgspec.structs.replace(run.access, spec=spec)
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
