"""What real peers ask of each other, as their engines' logs tell it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings, Settings, TransportSettings
from dragonfly_ray.peer.download import TaskDownload
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.origin_workers import OriginWorkers
from dragonfly_ray.scheduling.download.event_log import Event
from dragonfly_ray.scheduling.download.lease_queue import FIRST_BACKOFF_S, MAX_BACKOFF_S
from dragonfly_ray.sources import Reader
from dragonfly_ray.storage.task_pieces import Extent, TaskPieces
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import MIB, PIECES, assert_everywhere
from tests.waiting import HANG, until

ANSWERS = {"answered", "missing", "cached"}


@dataclass(frozen=True)
class Fetched:
    """By a host, of two others: one has everything, the other one the first half."""

    events: tuple[Event, ...]
    whole: str
    pieces: int


def run_of(built: Swarm, node: str) -> TaskDownload:
    """The only one that it has, or has had a moment ago."""
    found: list[TaskDownload] = []

    def begun() -> bool:
        found[:] = built.peers[node]._runs.values()
        return bool(found)

    until(begun)
    (run,) = found
    return run


def events_of(built: Swarm, node: str, spec_id: str = "s.0") -> tuple[Event, ...]:
    """What its engine has heard and answered, once it is over: the last thousand at least."""
    run = run_of(built, node)
    built.wait(spec_id)
    return run.engine.state.dump().events


@pytest.fixture
def fetched(origin: Nginx, swarm: Callable[..., Swarm], content: bytes) -> Fetched:
    (origin.root / "some").write_bytes(content[: 8 * MIB])
    built = swarm(3, settings=Settings(transport=TransportSettings(upload_rate=4_000_000)))
    built.distribute(f"{origin.url}/some", "a.0", nodes=["n0", "n1"])
    (half,) = built.peers["n1"].store.tasks()
    pieces = half.task.pieces
    for piece in range(pieces // 2, pieces):
        half.discard(piece)
    built.submit(f"{origin.url}/some", "b.0", nodes=["n2"])
    events = events_of(built, "n2", "b.0")
    assert_everywhere(built.wait("b.0"), content[: 8 * MIB], 1)
    assert sum(each.name == "answered" for each in events) >= pieces
    return Fetched(events, built.peers["n0"].host.id, pieces)


def test_what_few_have_is_asked_for_first(fetched: Fetched) -> None:
    hosts: dict[object, str] = {}
    asked: list[int] = []
    for each in fetched.events:
        if each.name == "connected":
            hosts[each.arguments[0]] = each.arguments[1]
        elif each.name == "next_request" and len(set(hosts.values())) == 2:
            asked += [piece for piece in each.answer if hosts[each.arguments[0]] == fetched.whole]
    early = asked[: fetched.pieces // 4]
    assert len(early) == fetched.pieces // 4
    assert min(early) >= fetched.pieces // 2, "the other one has the first half, too"


def test_no_more_is_due_on_a_connection_than_its_pipeline_holds(fetched: Fetched) -> None:
    due: Counter[object] = Counter()
    for each in fetched.events:
        if each.name == "next_request":
            due[each.arguments[0]] += len(each.answer)
        elif each.name in ANSWERS:
            due[each.arguments[0]] -= 1
        elif each.name == "busy":
            due[each.arguments[0]] -= each.arguments[2]
        assert max(due.values(), default=0) <= TransportSettings().pipeline


def test_what_is_new_is_passed_on_before_all_is_here(origin: Nginx, swarm: Callable[..., Swarm]) -> None:
    origin.restart("limit_rate 1m;")  # 16 s in all
    built = swarm(3, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    built.submit(f"{origin.url}/big")
    until(lambda: built.pieces("n1") >= PIECES // 16)
    assert built.pieces("n0") < PIECES


def test_what_waits_at_a_slow_reader_is_given_back(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.restart("limit_rate 2m;")
    over, begin = threading.Event(), OriginWorkers._open

    def late(self: OriginWorkers) -> Reader:
        if self._engine.context.node_name == "n0":
            over.wait(20.0)
        return begin(self)

    monkeypatch.setattr(OriginWorkers, "_open", late)
    built = swarm(3, settings=Settings(origin=OriginSettings(connections=1)))
    built.submit(f"{origin.url}/big")
    run = run_of(built, "n0")
    try:
        until(
            lambda: run.engine.picker.done, why=lambda: f"{run.engine.picker.missing.bit_count()} are missing"
        )
        reports = [each.answer for each in run.engine.state.dump().events if each.name == "take_report"]
        assert [piece for part in reports for piece in part.taken.pending.released]
    finally:
        over.set()
    assert_everywhere(built.wait(), content, 3)


def test_an_origin_that_fails_is_left_alone_for_a_while(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 2m;")
    built = swarm(2)
    built.submit(f"{origin.url}/big")
    until(lambda: origin.sent("/big") > len(content) // 8)
    origin.stop()
    again = threading.Timer(1.5, origin.start, [""])
    again.start()
    events = events_of(built, "n0")
    again.join()
    assert_everywhere(built.wait(), content, 2)
    failures, until_when = 0, 0.0
    for each in events:
        if each.name == "origin_failed":
            failures += 1
            pause = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failures - 1))
            until_when = max(until_when, each.arguments[0] + pause)
        elif each.name == "origin_read":
            failures = 0
        elif each.name == "next_origin_run" and each.answer[0]:
            assert each.arguments[1] >= until_when, "a tenth of a second, then twice as long each time"
    assert until_when, "it has failed"


def test_a_piece_that_two_parents_give_at_once_counts_once(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (origin.root / "some").write_bytes(content[: 4 * MIB])
    built = swarm(2)
    built.distribute(f"{origin.url}/some", "a.0", nodes=["n0"])
    keep, entered, write, there = Engine._keep, TaskPieces._alone_at, TaskPieces._write, Counter[int]()

    def twice(self: Engine, index: int, view: memoryview, found: bytes, *, parent: str = "") -> None:
        with ThreadPoolExecutor(2) as threads:
            for each in [threads.submit(keep, self, index, view, found, parent=parent) for _ in range(2)]:
                each.result(HANG)

    @contextlib.contextmanager
    def alone_at(self: TaskPieces, index: int) -> Iterator[bool]:
        there[index] += 1
        with entered(self, index) as missing:
            yield missing

    def slowly(self: TaskPieces, index: int, data: memoryview) -> None:
        until(lambda: there[index] == 2)
        write(self, index, data)

    monkeypatch.setattr(Engine, "_keep", twice)
    monkeypatch.setattr(TaskPieces, "_alone_at", alone_at)
    monkeypatch.setattr(TaskPieces, "_write", slowly)
    view = built.distribute(f"{origin.url}/some", "b.0", nodes=["n1"])
    assert_everywhere(view, content[: 4 * MIB], 1)
    assert view["nodes"]["n1"]["bytes_peers"] == 4 * MIB


class Damaged:
    """What a peer shares, with other bytes in every piece than it promises."""

    def __init__(self, honest: Any, folder: Path) -> None:
        self._honest = honest
        self._file = folder / "other"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[list[Extent]]:
        with self._honest.reading(index) as extents:
            length = sum(extent.length for extent in extents)
        self._file.write_bytes(b"\x07" * length)
        with self._file.open("rb") as file:
            yield [Extent(file.fileno(), 0, length)]


def test_what_is_not_as_promised_is_not_kept(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, tmp_path: Path
) -> None:
    built = swarm(3, settings=Settings(transport=TransportSettings(upload_rate=16_000_000)))
    built.distribute(f"{origin.url}/big", "a.0", nodes=["n0", "n1"])
    damaged = built.peers["n0"]
    shared = damaged.shared
    damaged.shared = lambda task: (found := shared(task)) and Damaged(found, tmp_path)  # type: ignore[assignment,method-assign,return-value]
    built.submit(f"{origin.url}/big", "b.0", nodes=["n2"])
    events = events_of(built, "n2", "b.0")
    assert_everywhere(built.wait("b.0"), content, 1)
    answered = [each for each in events if each.name == "answered"]
    wrong = [each.answer[0] for each in answered if each.arguments[2] != each.arguments[3]]
    assert wrong
    assert set(wrong) == {"corrupt"}
