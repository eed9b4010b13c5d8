"""A manifest from neighbours of which some trickle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.errors import TransportError
from dragonfly_ray.model import Endpoint, Entry, Host, Manifest, PieceTable, digest
from dragonfly_ray.peer.manifests import fetch_manifest, manifest_of
from dragonfly_ray.peer.supervisor import Supervisor
from dragonfly_ray.scheduling import stragglers
from tests.waiting import HANG

MANIFEST = Manifest(tuple(Entry(f"{n}", 1000, "v") for n in range(1000)), directory=True)
DATA = MANIFEST.encode()


class Trickling:
    """Some bytes at a time, for ever, or until it is stopped."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def manifest(self, size: int, progress: Callable[[int], None]) -> bytes:
        assert size == len(DATA)
        self.begun.set()
        over = threading.Event()
        for _ in range(int(100 * HANG)):
            progress(1)
            over.wait(0.01)
        raise AssertionError("nobody stopped it")

    def close(self) -> None:
        pass


class Quick:
    def manifest(self, size: int, progress: Callable[[int], None]) -> bytes:
        progress(size)
        return DATA

    def close(self) -> None:
        pass


TASK: Any = SimpleNamespace(
    id="t", url="http://h/", manifest_size=len(DATA), manifest_digest=digest(DATA),
    pieces=len(PieceTable.of(MANIFEST)),
)  # fmt: skip


def fetched(threads: Supervisor, *parents: Trickling | Quick) -> Manifest:
    known = [
        m.Neighbour(Host(f"h{i}", f"n{i}", (Endpoint("10.0.0.1", i),)), manifest=True)
        for i in range(len(parents))
    ]

    def connect(neighbour: m.Neighbour) -> Any:
        return parents[int(neighbour.host.id[1:])]

    return manifest_of(
        TASK, b"", lambda: fetch_manifest(threads, lambda: known, connect, threads.stopping.is_set, 60.0)
    )


def test_one_that_trickles_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "WINDOW_S", 0.1)
    slow = [Trickling(), Trickling()]
    assert fetched(Supervisor(TASK, "n0"), *slow, Quick()) == MANIFEST
    assert all(each.begun.is_set() for each in slow)


def test_a_cancel_ends_it() -> None:
    slow = Trickling()
    threads = Supervisor(TASK, "n0")
    ended = threading.Event()

    def fetch() -> None:
        with pytest.raises(TransportError, match="no longer needed"):
            fetched(threads, slow)
        ended.set()

    threading.Thread(target=fetch, daemon=True).start()
    assert slow.begun.wait(HANG)
    threads.end()
    assert ended.wait(HANG / 3)
