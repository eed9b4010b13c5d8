"""Errors that nobody expects fail their task in one clear line; nothing hangs, and nobody else suffers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.errors import StorageFullError
from dragonfly_ray.model import Entry, Manifest, PieceTable
from dragonfly_ray.peer.checksums import OriginChecksums
from dragonfly_ray.peer.download import TaskDownload
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.neighbours import Neighbours
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.peer.origin_workers import OriginWorkers
from dragonfly_ray.peer.outputs import OutputJobs
from dragonfly_ray.peer.parent_link import Parent
from dragonfly_ray.peer.reporter import Reporter
from dragonfly_ray.peer.streaming_digest import PrefixHash, PrefixReader
from dragonfly_ray.peer.supervisor import Supervisor
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere, kinds
from tests.waiting import HANG, until

TARGETS = [
    (Neighbours, "tell_now"),
    (Reporter, "report"),
    (OriginWorkers, "_take"),
    (Parent, "_ask"),
    (PrefixReader, "_follow"),
    (OutputJobs, "_deliver"),
    (TaskDownload, "_begin_fetching"),
    (Engine, "from_origin"),
    (Engine, "from_parent"),
]


@pytest.mark.parametrize(("owner", "name"), TARGETS, ids=[f"{o.__name__}.{n}" for o, n in TARGETS])
def test_an_error_in_any_thread_fails_the_task(
    origin: Nginx, swarm: Callable[..., Swarm], monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    def fail(*args: Any, **named: Any) -> Any:
        raise RuntimeError("nobody expects it")

    monkeypatch.setattr(owner, name, fail)
    origin.restart("limit_rate 20m;")
    built = swarm(2)
    view = built.distribute(f"{origin.url}/big", digest=f"sha256:{'0' * 64}")
    failed = [record for record in view["nodes"].values() if record["state"] == "failed"]
    assert failed
    assert any("RuntimeError" in record["message"] for record in failed), kinds(view)
    for record in failed:
        assert len(record["message"].splitlines()) == 1
        if "RuntimeError" in record["message"]:
            assert record["kind"] != "integrity", "nothing was compared"
    until(lambda: not any(peer._runs for peer in built.peers.values()))
    until(lambda: not built.peers["n0"].status()["task_threads"], why=lambda: threading.enumerate())


def test_a_delivery_that_cannot_begin_has_an_outcome(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = swarm(2)
    deliver = PeerNode._deliver

    def fail(self: PeerNode, message: m.Deliver, small: bytes | None) -> None:
        if self.host.name == "n1":
            raise RuntimeError("nobody expects it")
        deliver(self, message, small)

    monkeypatch.setattr(PeerNode, "_deliver", fail)
    view = built.distribute(f"{origin.url}/big")
    assert kinds(view) == {"n0": "", "n1": "error"}
    assert "RuntimeError" in view["nodes"]["n1"]["message"]


def test_the_upload_server_goes_on(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    failed = threading.Event()

    def fail(now: float) -> None:
        failed.set()
        raise RuntimeError("nobody expects it")

    monkeypatch.setattr(built.peers["n0"].server, "_sweep", fail)
    assert failed.wait(HANG)
    before = origin.sent("/big")
    assert_everywhere(built.distribute(f"{origin.url}/big", "b.0", nodes=["n1"]), content, 1)
    assert origin.sent("/big") - before <= 1, "a look, and no more: all came from the other"


def test_a_late_thread_leaves_its_successor_alone(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour comes back as another process, and the thread of its old connection ends only after that."""
    built = swarm(2)
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0"])
    giver = built.peers["n0"]
    asked, held, go_on, ended = (threading.Event() for _ in range(4))
    converse = Parent._converse
    first: list[Parent] = []

    def slowly(self: Parent, connection: Any) -> None:
        if not first:
            first.append(self)
            receive = connection.receive

            def wait(*args: Any) -> Any:
                asked.set()
                answer = receive(*args)
                held.wait(HANG)
                return answer

            connection.receive = wait
            try:
                converse(self, connection)
            finally:
                go_on.wait(HANG)
        else:
            hold = connection.receive

            def stay(*args: Any) -> Any:
                ended.wait(HANG)
                return hold(*args)

            connection.receive = stay
            converse(self, connection)

    monkeypatch.setattr(Parent, "_converse", slowly)
    built.submit(f"{origin.url}/big", "b.0", nodes=["n1"])
    assert asked.wait(HANG)
    (run,) = built.peers["n1"]._runs.values()
    (old,) = run.neighbours.parents.values()
    reborn = msgspec.structs.replace(old.neighbour.host, incarnation="another")
    run.neighbours.meet(m.Neighbour(reborn, complete=True))
    successor = run.neighbours.parents[giver.host.id]
    until(lambda: run.engine.state.due(successor.number))
    with run.engine.lock:
        due = run.engine.picker.outstanding(giver.host.id)
        assert due == run.engine.state.due(successor.number), "what the old one was asked for is free"
    held.set()
    go_on.set()
    until(lambda: old._connection is None and not old.running)
    with run.engine.lock:
        outstanding = run.engine.picker.outstanding(giver.host.id)
        # It may have asked for more meanwhile.
        assert due <= outstanding == run.engine.state.due(successor.number)
    ended.set()
    assert_everywhere(built.wait("b.0"), content, 1)


@pytest.mark.parametrize("what", ["digest", "checksums"])
def test_nobody_waits_for_a_piece_to_be_hashed_that_a_failed_task_will_not_get(what: str) -> None:
    manifest = Manifest((Entry("f", 3_000_000, "v1"),), directory=False)
    table = PieceTable.of(manifest)
    # A piece turned out bad after all were here, and could not be fetched again.
    store: Any = SimpleNamespace(manifest=manifest, table=table, has=lambda index: False)
    task: Any = SimpleNamespace(id="t", url="http://origin/f", pieces=len(table))
    run = Supervisor(task, "n0")
    wanted = f"sha256:{'0' * 64}"
    with ThreadPoolExecutor(1) as threads:
        try:
            if what == "digest":
                waiting = threads.submit(PrefixHash(run, store, wanted).check, wanted)
            else:
                waiting = threads.submit(OriginChecksums(run, store).check)
            run.fail(StorageFullError("the disk is full"))
            with pytest.raises(StorageFullError):
                waiting.result(timeout=HANG)
        finally:
            run.end()
