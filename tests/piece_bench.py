"""An upload server with one task, and the child's end of a connection to it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.grants import GrantVerifier
from dragonfly_ray.model import digest
from dragonfly_ray.storage.task_pieces import Extent
from dragonfly_ray.transport.negotiation import CURRENT, Capabilities
from dragonfly_ray.transport.parent_connection import Data, Missing, ParentConnection
from dragonfly_ray.transport.server import UploadServer
from dragonfly_ray.transport.streams import Network
from dragonfly_ray.transport.tcp import TCP
from tests.handshakes import (
    CLUSTER_KEY,
    PARENT,
    PARENT_KEY,
    as_child,
    caller,
    parent_at,
)
from tests.wires import Wire, connect

PIECE = 256 * 1024
COUNT = 64
PATIENT = TransportSettings(stall_timeout=30.0, connect_timeout=30.0)
"""What a test that is not about stalls uses, however busy the machine is."""
SOON = 10.0
"""Seconds for what must happen by itself: less than any time-out of `PATIENT`, which would do it as well."""


class FakeTask:
    """A file of pieces; piece 3 is missing."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "content"
        self.file.write_bytes(os.urandom(PIECE * COUNT))
        self.manifest_file = folder / "manifest"
        self.manifest_file.write_bytes(os.urandom(3_000_000))
        data = self.file.read_bytes()
        self.parts = [data[i * PIECE : (i + 1) * PIECE] for i in range(COUNT)]
        self.fd = os.open(self.file, os.O_RDONLY)
        self.heard: list[tuple[str, list[tuple[int, bytes]]]] = []
        self.accused: list[int] = []
        self.unreadable: list[int] = []
        self.event = threading.Event()
        self.sent = 0

    def bitmap(self, host_id: str) -> bytes:
        return (((1 << COUNT) - 1) & ~(1 << 3)).to_bytes(COUNT // 8, "little")

    def digests(self) -> list[bytes | None]:
        return [None if i == 3 else digest(part) for i, part in enumerate(self.parts)]

    def has(self, index: int) -> bool:
        return index != 3

    def digest(self, index: int) -> bytes:
        return digest(self.parts[index])

    @contextlib.contextmanager
    def reading(self, index: int) -> Iterator[list[Extent]]:
        half = PIECE // 2
        yield [Extent(self.fd, index * PIECE, half), Extent(self.fd, index * PIECE + half, half)]

    def on_have(self, host_id: str, items: list[tuple[int, bytes]]) -> None:
        self.heard.append((host_id, items))
        self.event.set()

    def on_corrupt(self, host_id: str, index: int) -> None:
        self.accused.append(index)
        self.event.set()

    def on_unreadable(self, index: int) -> None:
        self.unreadable.append(index)

    def on_sent(self, host_id: str, nbytes: int) -> None:
        self.sent += nbytes

    def on_joined(self, host_id: str) -> None:
        pass

    def on_left(self, host_id: str) -> None:
        pass


class Bench:
    """A server with one task, `t`."""

    def __init__(
        self,
        folder: Path,
        settings: TransportSettings = PATIENT,
        network: Network = TCP,
        capabilities: Capabilities = CURRENT,
    ) -> None:
        self.network = network
        self.task = FakeTask(folder)
        self.verifier = GrantVerifier([CLUSTER_KEY.public_bytes()])
        self.server = UploadServer(
            "127.0.0.1", 0, self, settings, self.verifier, PARENT, PARENT_KEY, network, capabilities
        )
        self.server.start()

    def shared(self, task_id: str) -> FakeTask | None:
        return self.task if task_id == "t" else None

    def connect(
        self,
        host: str = "child",
        task: str = "t",
        grant: bytes | None = None,
        settings: TransportSettings = PATIENT,
        pieces: int = COUNT,
        capabilities: Capabilities = CURRENT,
    ) -> ParentConnection:
        parent = parent_at(self.server.port)
        asks = caller(host, task, grant)
        return ParentConnection.open(parent, asks, settings, pieces, self.network, capabilities)

    def close(self) -> None:
        self.server.stop()
        os.close(self.task.fd)


def take(index: int, length: int) -> memoryview:
    return memoryview(bytearray(length))


def lend_nothing(index: int, length: int) -> memoryview:
    raise AssertionError("a buffer was lent")


def length_of(index: int) -> int:
    return PIECE


def fetch(connection: ParentConnection, task: FakeTask, pieces: range) -> None:
    connection.request(pieces.start, len(pieces))
    for expected in pieces:
        answer = connection.receive(take, length_of)
        if expected == 3:
            assert answer == Missing(3)
        else:
            assert isinstance(answer, Data)
            assert answer.index == expected
            assert bytes(answer.view) == task.parts[expected]
            assert answer.digest == digest(answer.view)


def greeted(bench: Bench, host: str) -> Wire:
    """A child with a grant, that may then say what it likes."""
    wire = connect(bench.network, bench.server.port)
    as_child(wire, host)
    return wire
