"""Files of unknown size, looked at by several peers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.model import Credentials
from dragonfly_ray.peer import distributed_stat
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.peer.origin_queries import OriginQueries
from tests.origins import FolderOrigin
from tests.swarm import Swarm
from tests.unit.swarm.conftest import kinds, patient, states
from tests.waiting import HANG


@pytest.fixture
def many() -> Iterator[FolderOrigin]:
    """400 files, and a listing that does not tell how long they are."""
    with FolderOrigin({f"f{i:03}": os.urandom(i * 37 % 9000 + 1) for i in range(400)}) as made:
        yield made


def watch_looks(built: Swarm) -> dict[str, list[str]]:
    """Node -> the paths that it is asked to look at, by the resolver and for it."""
    seen: dict[str, list[str]] = {}
    for node, peer in built.peers.items():

        def look(ask: m.Stat, node: str = node, peer: PeerNode = peer) -> m.StatReply:
            seen.setdefault(node, []).extend(ask.paths)
            return OriginQueries.look(peer.queries, ask)

        peer.queries.look = look  # type: ignore[method-assign]
    return seen


def assert_folder(view: dict[str, Any], files: dict[str, bytes], nodes: int) -> None:
    assert list(states(view).values()) == ["done"] * nodes, view
    for record in view["nodes"].values():
        assert {p.name: p.read_bytes() for p in Path(record["path"]).iterdir()} == files


def test_files_of_unknown_size_are_looked_at_once_each_by_several_peers(
    many: FolderOrigin, swarm: Callable[..., Swarm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed_stat, "LATE_S", HANG)  # else a helper's part is looked at by others, too
    built = swarm(4, settings=patient())
    seen = watch_looks(built)
    assert_folder(built.distribute(many.url, dest=str(tmp_path / "out" / "{node}")), many.files, 4)
    assert many.count("HEAD") == dict.fromkeys(many.files, 1)
    helped = [path for paths in seen.values() for path in paths]
    assert len(set(helped)) == len(helped) < 400, "the resolver looks, too"
    assert len(seen) >= 1
    assert len(many.asked) == 2 * len(many.files) + 1


@pytest.mark.parametrize("how", ["raises", "is gone", "cannot reach it"])
def test_a_helper_that_fails_half_way_changes_nothing(
    many: FolderOrigin,
    swarm: Callable[..., Swarm],
    tmp_path: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed_stat, "LATE_S", HANG)
    built = swarm(4)
    failed: list[str] = []
    for peer in built.peers.values():

        def look(ask: m.Stat, peer: PeerNode = peer) -> m.StatReply:
            if failed and failed[0] != ask.host:
                return OriginQueries.look(peer.queries, ask)
            failed.append(ask.host)
            if how == "raises":
                raise ClusterError("it died")
            return m.StatReply(kind="cluster" if how == "is gone" else "source-unreachable", message="x")

        peer.queries.look = look  # type: ignore[method-assign]
    assert_folder(built.distribute(many.url, dest=str(tmp_path / "out" / "{node}")), many.files, 4)
    assert len(failed) == 1, "it is not used again"
    assert many.count("HEAD") == dict.fromkeys(many.files, 1)


@pytest.mark.parametrize(("status", "kind"), [(403, "source-auth"), (404, "source-not-found"),
                                              (429, "source-busy")])  # fmt: skip
def test_what_the_origin_says_to_a_helper_is_what_everybody_hears(
    many: FolderOrigin, swarm: Callable[..., Swarm], status: int, kind: str
) -> None:
    built = swarm(4, settings=Settings(origin=OriginSettings(give_up=1.0)))
    seen = watch_looks(built)
    # Only what a helper asks is refused.
    many.before = lambda how, path: status if any(path in paths for paths in seen.values()) else 0
    view = built.distribute(many.url)
    assert set(kinds(view).values()) == {kind}
    assert seen


@pytest.mark.parametrize("policy", ["seeds", "targets"])
def test_only_who_may_go_to_the_origin_helps_to_look(
    many: FolderOrigin, swarm: Callable[..., Swarm], policy: str
) -> None:
    built = swarm(5, seeds=2, settings=Settings(origin=OriginSettings(policy=policy)))
    seen = watch_looks(built)
    credentials = Credentials(headers={"X-Secret": "s"})
    built.submit(many.url, nodes=["n2", "n3", "n4"], credentials=credentials)
    assert set(states(built.wait()).values()) == {"done"}
    assert seen
    assert set(seen) <= ({"n0", "n1"} if policy == "seeds" else {"n2", "n3", "n4"})


def test_no_more_connections_are_open_than_the_origin_is_to_have(
    swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    with FolderOrigin({f"f{i:03}": os.urandom(20_000) for i in range(400)}) as narrow:
        built = swarm(3, settings=patient(max_connections=7))
        view = built.distribute(narrow.url, dest=str(tmp_path / "out" / "{node}"))
        assert_folder(view, narrow.files, 3)
        assert narrow.count("GET") == dict.fromkeys(("", *narrow.files), 1)
        assert narrow.most_open <= 7


def test_requests_a_second_stay_within_the_limit(swarm: Callable[..., Swarm], tmp_path: Path) -> None:
    with FolderOrigin({f"f{i:03}": os.urandom(20_000) for i in range(130)}) as strict:
        built = swarm(3, settings=patient(max_requests=60.0))
        assert_folder(built.distribute(strict.url, dest=str(tmp_path / "out" / "{node}")), strict.files, 3)
        assert strict.count("GET") == dict.fromkeys(("", *strict.files), 1)
        # A helper that answers late has its files looked at by others, too: that counts for the limit.
        assert strict.count("HEAD").keys() == strict.files.keys()
        for start, first in enumerate(strict.times):
            inside = sum(at - first < 1.0 for at in strict.times[start:])
            assert inside <= 60 + 60 + 13, "a burst, a second, and the piece that was begun"
