"""Peers that fail: corrupted, killed, lost, full, and a scheduler that forgets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import StorageSettings
from dragonfly_ray.model import SHORT_LEAF, digest
from dragonfly_ray.scheduling.download import state
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, PIECES, SIZE, assert_everywhere, kinds
from tests.waiting import until


def test_a_parent_with_corrupted_bytes_is_found_out(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(4)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    built.spoil("n0", range(1000, SIZE, 4 * MIB))
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1", "n2", "n3"])
    assert_everywhere(view, content, 3)


def test_a_killed_peer_resumes_with_what_it_had(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 1500k;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    victim = built.peers["n1"]
    until(lambda: built.pieces("n1") > PIECES // 4)
    had = built.pieces("n1")
    assert 0.1 * PIECES < had < 0.9 * PIECES
    built.scheduler.verdicts[victim.host.id] = "died"
    del built.scheduler.peers[victim.host.id]
    victim.stop()
    with built.scheduler.changed:
        built.scheduler.act(built.scheduler.core.probed(victim.host.id, "died", time.monotonic()))
    built.start("n1")
    view = built.wait()
    assert_everywhere(view, content, 3)
    assert view["nodes"]["n1"]["bytes_cache"] >= had * SHORT_LEAF


def test_a_lost_peer_does_not_hold_up_the_others(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 1500k;")
    built = swarm(4)
    built.submit(f"{origin.url}/big")
    victim = built.peers["n2"]
    until(lambda: built.pieces("n2") > PIECES // 4)
    del built.scheduler.peers[victim.host.id]
    victim.stop()
    with built.scheduler.changed:
        built.scheduler.act(built.scheduler.core.probed(victim.host.id, "gone", time.monotonic()))
    view = built.wait()
    assert kinds(view)["n2"] == "node-lost"
    rest = {**view, "nodes": {n: r for n, r in view["nodes"].items() if n != "n2"}}
    assert_everywhere(rest, content, 3)


def test_a_lost_seed_is_told_of_at_once_by_those_that_wait_for_its_news(
    origin: Nginx, swarm: Callable[..., Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked of it just then, so that no answer can be missed."""
    monkeypatch.setattr(state, "REFRESH_S", 1000.0)
    origin.restart("limit_rate 20k;")
    built = swarm(3, seeds=1)
    told: set[str] = set()
    report = built.scheduler.core.report

    def listen(message: m.Report, now: float) -> Any:
        told.update(message.unreachable)
        return report(message, now)

    monkeypatch.setattr(built.scheduler.core, "report", listen)
    built.submit(f"{origin.url}/big", seeds_only=True)
    seed, others = built.peers["n0"], [built.peers["n1"], built.peers["n2"]]
    until(lambda: all(peer.server.connections == 2 for peer in built.peers.values()))
    # It would be looked at after two seconds of silence; nobody is, here.
    monkeypatch.setattr(built.scheduler.core, "tick", lambda now: [])
    built.scheduler.verdicts[seed.host.id] = "alive"
    del built.scheduler.peers[seed.host.id]
    seed.stop()
    until(lambda: seed.host.id in told)
    assert not told & {peer.host.id for peer in others}


def test_a_wrong_digest_writes_nothing(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    import hashlib

    built, out = swarm(2), tmp_path / "out"
    view = built.distribute(f"{origin.url}/big", "a.0", digest=f"sha256:{'0' * 64}", dest=str(out / "{node}"))
    assert set(kinds(view).values()) == {"integrity"}
    assert not list(out.rglob("*"))
    good = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert_everywhere(
        built.distribute(f"{origin.url}/big", "b.0", digest=good, dest=str(out / "{node}")), content, 2
    )


def test_a_digest_that_joins_a_transfer_under_way_is_checked_too(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    origin.restart("limit_rate 4m;")
    built, out = swarm(2), tmp_path / "out"
    built.submit(f"{origin.url}/big", "a.0")
    until(lambda: built.pieces("n1") > PIECES // 12)
    built.submit(f"{origin.url}/big", "b.0", digest=f"sha256:{'0' * 64}", dest=str(out / "{node}"))
    assert_everywhere(built.wait("a.0"), content, 2)
    assert set(kinds(built.wait("b.0")).values()) == {"integrity"}
    assert not out.exists()


def test_an_edited_output_is_noticed_mended_and_left_as_its_owner_made_it(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    built = swarm(2)
    view = built.distribute(f"{origin.url}/big", "a.0", dest=str(tmp_path / "a" / "{node}"))
    edited = Path(view["nodes"]["n0"]["path"])
    edited.chmod(0o644)
    with edited.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"edited")
    view = built.distribute(f"{origin.url}/big", "b.0", dest=str(tmp_path / "b" / "{node}"))
    assert_everywhere(view, content, 2)
    assert edited.read_bytes()[5 * MIB : 5 * MIB + 6] == b"edited"


def test_a_holder_that_finds_itself_corrupted_is_not_counted_on(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    task = built.spoil("n0", [20 * MIB])
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"])
    assert_everywhere(view, content, 1)
    known = built.scheduler.core.tasks[task.task.id]
    until(lambda: not known.is_complete(built.peers["n0"].host.id))


@pytest.mark.parametrize("holders", [["n0", "n1"], ["n0"]])
def test_a_whole_copy_that_is_not_what_the_record_says_is_mended(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes, holders: list[str]
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=holders)
    (task,) = built.peers["n0"].store.tasks()
    wrong = os.urandom(task.table[5].length)
    task.discard(5)
    task.put(5, memoryview(wrong), digest(wrong))
    view = built.distribute(f"{origin.url}/big", "b.0", nodes=["n0"], dest=str(tmp_path / "out"))
    assert_everywhere(view, content, 1)


def test_an_unwritable_dest_fails_that_delivery_alone(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "n1").write_bytes(b"a file, not a folder")
    view = swarm(3).distribute(f"{origin.url}/big", dest=str(tmp_path / "out" / "{node}" / "f"))
    assert kinds(view) == {"n0": "", "n1": "destination", "n2": ""}
    assert not list(tmp_path.rglob(".dragonfly-*"))


def test_a_full_disk_fails_that_node_alone_and_is_freed(
    origin: Nginx, swarm: Callable[..., Swarm], tmp_path: Path, content: bytes
) -> None:
    built = swarm(2)
    small = StorageSettings(root=tmp_path, quota=SIZE // 2)
    built.settings = built.settings.model_copy(update={"storage": small})
    full = built.start("full")
    view = built.distribute(f"{origin.url}/big")
    assert kinds(view) == {"n0": "", "n1": "", "full": "storage-full"}
    assert full.store.tasks() == []


def test_a_scheduler_that_forgets_everything_is_told_again(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    from dragonfly_ray.scheduling.scheduler import SchedulerCore

    origin.restart("limit_rate 1500k;")
    built = swarm(3)
    built.submit(f"{origin.url}/big")
    until(lambda: built.pieces("n1") > PIECES // 6)
    with built.scheduler.changed:
        old = built.scheduler.core
        built.scheduler.core = SchedulerCore(built.settings, old.sign)
    for peer in built.peers.values():
        peer.announce()
    built.submit(f"{origin.url}/big")
    view = built.wait()
    assert_everywhere(view, content, 3)
