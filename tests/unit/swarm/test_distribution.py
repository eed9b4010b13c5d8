"""Whole distributions in one process: real stores, sockets, peers and origins; no Ray."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings, Settings, TransportSettings
from dragonfly_ray.peer.engine import Engine
from tests.leaks import Held
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, PIECES, SIZE, assert_everywhere, kinds, patient, states
from tests.waiting import until


@pytest.mark.parametrize(("seeds", "policy"), [(0, "all"), (1, "seeds"), (1, "all")])
def test_each_byte_leaves_the_origin_once(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, seeds: int, policy: str
) -> None:
    built = swarm(4, seeds=seeds, settings=patient(policy=policy))
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 4)
    until(lambda: origin.sent("/big") >= SIZE)  # its log has the last answer
    assert origin.sent("/big") <= SIZE + 1, "all of it once, and the first byte to learn its length"
    got = sum(n["bytes_origin"] for n in view["nodes"].values())
    assert got == SIZE
    assert sum(n["bytes_peers"] for n in view["nodes"].values()) == 3 * SIZE


def test_the_only_reader_gives_out_every_piece_once_before_any_twice(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 3m;")
    built = swarm(5, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 5)
    (task,) = built.scheduler.core.tasks
    seed = built.peers["n0"].host.id
    sent = sum(e["bytes"] for e in built.scheduler.core.edges(task) if e["parent"] == seed)
    # Four others want all of it; were each piece told to all at once, the seed would send it up to four times.
    assert SIZE * 0.9 <= sent <= SIZE * 1.5


def test_a_seed_that_is_no_target_helps_and_writes_nothing(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(3, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    view = built.distribute(f"{origin.url}/big", nodes=["n1", "n2"])
    assert_everywhere(view, content, 2)
    assert all(n["bytes_origin"] == 0 for n in view["nodes"].values())


def test_a_directory_of_small_files_is_one_request_a_file(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    files = {f"d/{i % 7}/f{i:04}": os.urandom(i * 13 % 9000) for i in range(1500)}
    files["d/large"] = os.urandom(3 * MIB)
    for name, data in files.items():
        (origin.root / name).parent.mkdir(parents=True, exist_ok=True)
        (origin.root / name).write_bytes(data)
    view = swarm(4, settings=patient()).distribute(f"{origin.url}/d/", dest=str(tmp_path / "out" / "{node}"))
    assert set(states(view).values()) == {"done"}, view
    for record in view["nodes"].values():
        found = {p.relative_to(record["path"]).as_posix(): p.read_bytes()
                 for p in Path(record["path"]).rglob("*") if p.is_file()}  # fmt: skip
        assert {f"d/{name}": data for name, data in found.items()} == files
    asked = [hit for hit in origin.hits() if not hit.path.endswith("/")]
    per_file = {name: sum(hit.path == f"/{name}" for hit in asked) for name, data in files.items() if data}
    small = {n: c for n, c in per_file.items() if n != "d/large"}
    assert set(small.values()) == {1}
    tried = [hit for hit in asked if hit.range == "bytes=0-0"]
    assert len(tried) <= 1, "whether the ranges that HEAD promises are given"
    assert sum(hit.sent for hit in asked) == sum(map(len, files.values())) + len(tried)
    assert len(origin.hits()) - len(asked) == 8, "one listing a folder"


@pytest.mark.parametrize("size", [0, 1, 50_000, 300_000])
def test_small_content_needs_no_socket_and_one_word_to_the_scheduler(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    (origin.root / "small").write_bytes(data)
    built = swarm(3)
    view = built.distribute(f"{origin.url}/small", dest=str(tmp_path / "out" / "{node}"))
    assert_everywhere(view, data, 3)
    assert sum(n["bytes_small"] for n in view["nodes"].values()) == 3 * size
    assert not size or built.scheduler.heard == {"Announce": 3, "Ended": 3}
    assert sum(n["bytes_peers"] for n in view["nodes"].values()) == 0


def test_the_second_time_nothing_leaves_the_origin(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    built = swarm(3)
    built.distribute(f"{origin.url}/big", "a.0")
    before = origin.sent("/big")
    view = built.distribute(f"{origin.url}/big", "b.0", dest=str(tmp_path / "again" / "{node}"))
    assert_everywhere(view, content, 3)
    assert origin.sent("/big") - before <= 1
    assert all(n["bytes_cache"] == SIZE for n in view["nodes"].values())


def test_a_scheduler_that_does_not_know_what_is_here_is_told_in_one_word(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    """A host that was given up and has come back in between, say. That its caller may have it, is known."""
    built = swarm(1)
    built.distribute(f"{origin.url}/big", "a.0")
    before = origin.sent("/big")
    with built.scheduler.changed:
        built.scheduler.core.tasks.clear()
        built.scheduler.core.specs.clear()
        built.scheduler.heard.clear()
    view = built.distribute(f"{origin.url}/big", "b.0")
    assert_everywhere(view, content, 1)
    assert origin.sent("/big") - before <= 1
    assert built.scheduler.heard["Announce"] == 1
    assert built.scheduler.heard["Report"] < PIECES / 4, "its digests are not claimed piece by piece"


def test_a_newcomer_gets_it_from_those_who_have_it(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0")
    before = origin.sent("/big")
    built.start("late")
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["late"])
    assert_everywhere(view, content, 1)
    assert view["nodes"]["late"]["bytes_peers"] == SIZE
    assert origin.sent("/big") - before <= 1


@pytest.mark.parametrize("limit", ["upload_rate", "download_rate"])
def test_limits_slow_it_down_and_break_nothing(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, limit: str
) -> None:
    rates: dict[str, Any] = {limit: 16 * MIB}
    view = swarm(2, settings=Settings(transport=TransportSettings(**rates))).distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 2)
    peers, everything = SIZE / 2 / (16 * MIB), SIZE / (16 * MIB)
    least = everything if limit == "download_rate" else min(peers, 0.3)
    assert max(n["seconds"] for n in view["nodes"].values()) > 0.8 * least, "no faster than allowed"


def test_a_local_file_is_read_by_its_owner_alone(
    swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_bytes(content)
    view = swarm(3).distribute(f"file://{tmp_path}/mine", node="n1", nodes=["n0", "n2"])
    assert_everywhere(view, content, 2)
    assert all(n["bytes_origin"] == 0 for n in view["nodes"].values())


def test_what_is_read_is_fetched_first(origin: Nginx, swarm: Callable[..., Swarm], content: bytes) -> None:
    origin.restart("limit_rate 1m;")
    built = swarm(2)
    built.submit(f"{origin.url}/big")
    peer = built.peers["n0"]
    until(lambda: bool(peer.store.tasks()))
    task = peer.store.tasks()[0]
    last = SIZE - 1000
    assert peer.reads.await_range(task.task.id, last, 1000, 20.0)
    assert not task.complete
    layout = peer.reads.layout(task.task.id)
    assert layout is not None
    with open(layout["path"], "rb") as file:
        file.seek(layout["base"] + last)
        assert file.read(1000) == content[-1000:]
    assert_everywhere(built.wait(), content, 2)


def test_nothing_is_left_over(origin: Nginx, tmp_path: Path, content: bytes) -> None:
    """Threads and descriptors, after a distribution and after the peers."""
    before = Held()
    built = Swarm(tmp_path / "s", 3)
    assert_everywhere(built.distribute(f"{origin.url}/big"), content, 3)
    built.close()
    until(lambda: not before.more_threads(), why=before.more_threads)
    until(lambda: not before.more_files(), why=before.more_files)
    assert not list(tmp_path.rglob(".dragonfly-*"))
    shutil.rmtree(tmp_path / "s")


def test_log_lines_name_their_task_and_no_thread_of_it_is_left(
    origin: Nginx, swarm: Callable[..., Swarm], caplog: pytest.LogCaptureFixture
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    task = built.spoil("n0", [20 * MIB])
    built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
    said = [r for r in caplog.records if r.name == Engine.__module__]
    speakers = {r.threadName for r in said if "does not match its digest" in r.getMessage()}
    host = built.peers["n0"].host.id
    assert speakers == {f"task-{task.task.id[:12]}-parent-{host[:8]}"}
    until(lambda: built.peers["n1"].status()["task_threads"] == 0)
    assert built.peers["n1"].status()["received"] >= SIZE


def test_who_feeds_whom_is_known(origin: Nginx, swarm: Callable[..., Swarm], content: bytes) -> None:
    built = swarm(4)
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 4)
    (task,) = built.scheduler.core.tasks
    edges = built.scheduler.core.edges(task)
    fed = {node: sum(e["bytes"] for e in edges if e["child_node"] == node) for node in built.peers}
    assert fed == {node: record["bytes_peers"] for node, record in view["nodes"].items()}
    drawn = {d.id: d for d in built.scheduler.core.decisions.recent(task) if d.kind == "neighbours"}
    assert all(e["decision"] in drawn for e in edges)
    assert all(h.slots for h in built.scheduler.core.hosts.values())


def test_cancel_stops_every_byte(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    origin.restart("limit_rate 1m;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    until(lambda: built.pieces("n1") > PIECES // 6)
    with built.scheduler.changed:
        built.scheduler.act(built.scheduler.core.cancel("s.0", time.monotonic()))
    view = built.wait()
    assert set(kinds(view).values()) == {"cancelled"}
    until(lambda: all(not peer.status()["tasks"] for peer in built.peers.values()))
    held = {n: sum(t.count for t in peer.store.tasks()) for n, peer in built.peers.items()}
    ended = time.time()
    time.sleep(1.0)  # what must not happen cannot be awaited
    assert held == {n: sum(t.count for t in peer.store.tasks()) for n, peer in built.peers.items()}
    # The log has a line when an answer ends, which was cut off when it stopped.
    assert max(hit.time - hit.took for hit in origin.hits()) <= ended
