"""Origins as they are met in the field, and whole distributions from them: real servers, several nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dragonfly_ray import urls
from dragonfly_ray.config import OriginSettings, Settings
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere, kinds, states
from tests.waiting import until

CONTENT = os.urandom(6 << 20)
RANGE_416 = "if ($http_range) { return 416; }"
LATER_403 = 'if ($http_range !~ "^(bytes=0-0)?$") { return 403; }'
HEAD_404 = "if ($request_method = HEAD) { return 404; }"
WEAK_HEAD = (
    """etag off; set $tag '"v1"'; if ($request_method = HEAD) { set $tag 'W/"v1"'; } add_header ETag $tag;"""
)
WEAK = """etag off; add_header ETag 'W/"v1"'; add_header Last-Modified '';"""


@pytest.mark.parametrize("extra", [RANGE_416, LATER_403, HEAD_404, WEAK_HEAD, WEAK])
def test_a_file_and_a_folder_come_whole(swarm: Callable[..., Swarm], tmp_path: Path, extra: str) -> None:
    tmp_path.chmod(0o755)
    files = {"a": CONTENT, "b": b"small", "empty": b"", "sub/c": CONTENT[::-1]}
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True) as server:
        for name, data in files.items():
            (server.root / "d" / name).parent.mkdir(parents=True, exist_ok=True)
            (server.root / "d" / name).write_bytes(data)
        built = swarm(3)
        assert_everywhere(built.distribute(f"{server.url}/d/a", "a.0"), CONTENT, 3)
        assert_everywhere(built.distribute(f"{server.url}/d/empty", "e.0"), b"", 3)
        view = built.distribute(f"{server.url}/d/", "d.0", dest=str(tmp_path / "out" / "{node}"))
        assert list(states(view).values()) == ["done"] * 3, view
        for node in ("n0", "n1", "n2"):
            assert {n: (tmp_path / "out" / node / n).read_bytes() for n in files} == files


def test_a_file_whose_connections_are_reset_in_every_answer(swarm: Callable[..., Swarm]) -> None:
    with ScriptedOrigin(Behaviour(CONTENT, reset=300_000)) as origin:
        assert_everywhere(swarm(3).distribute(origin.url), CONTENT, 3)
        assert origin.sent < 2 * len(CONTENT), "what has come is kept"


def test_a_stream_that_never_comes_to_its_end_is_given_up(swarm: Callable[..., Swarm]) -> None:
    """Without ranges nobody can go on from the middle."""
    with ScriptedOrigin(Behaviour(CONTENT, reset=300_000, ranges=False)) as origin:
        view = swarm(2, settings=Settings(origin=OriginSettings(give_up=2.0))).distribute(origin.url)
        assert set(kinds(view).values()) == {"source-unreachable"}
        assert "connection lost" in next(iter(view["nodes"].values()))["message"]


def test_a_folder_whose_lengths_are_never_told(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    files = {"a": CONTENT, "b": b"small", "empty": b""}
    with FolderOrigin(files) as folder:
        folder.ranges = folder.lengths = False
        view = swarm(2).distribute(folder.url, dest=str(tmp_path / "out" / "{node}"))
        assert list(states(view).values()) == ["done"] * 2, view
        for node in ("n0", "n1"):
            assert {n: (tmp_path / "out" / node / n).read_bytes() for n in files} == files


@pytest.mark.parametrize("number", [0, 5], ids=["at the first look", "half way"])
def test_an_origin_that_wants_to_be_left_alone_for_an_hour_is(
    swarm: Callable[..., Swarm], number: int
) -> None:
    behaviour = Behaviour(CONTENT, headers={"Retry-After": "3600"})
    behaviour.before = lambda asked: 429 if asked == number else 0
    with ScriptedOrigin(behaviour) as origin, ScriptedOrigin(Behaviour(CONTENT), "127.0.0.2") as other:
        built = swarm(3)
        built.submit(origin.url, "s.0")
        budget = built.scheduler.core.cluster.budget_of(urls.origin(origin.url))
        until(lambda: budget.wait(time.monotonic()) > 3000)
        complained = next(n for n, (_, status, _) in enumerate(origin.requests) if status == 429)

        def heard() -> bool:
            runs = [run for peer in built.peers.values() for run in peer._runs.values()]
            readers = [run.origin for run in runs if run.origin.opened]
            now = time.monotonic()
            quiet = all(each.leases.held_off(now) and not each.leases.reading for each in readers)
            return quiet and len(readers) == (3 if number else 0)

        until(heard)
        until(lambda: not origin.active)
        asked = len(origin.requests)
        # A connection that has not heard of it yet may come to its end, and begin another.
        assert asked - complained - 1 <= 2 * 3 * OriginSettings().connections
        # Long enough to ask again after a usual pause, each.
        for turn in (1, 2, 3):
            assert_everywhere(built.distribute(other.url, f"o{turn}.0"), CONTENT, 3)
        assert len(origin.requests) == asked
        with built.scheduler.changed:
            built.scheduler.act(built.scheduler.core.cancel("s.0", time.monotonic()))
        assert set(kinds(built.wait("s.0")).values()) == {"cancelled"}
        assert len(origin.requests) == asked
