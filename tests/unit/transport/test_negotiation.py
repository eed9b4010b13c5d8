"""What two builds agree on, and what each does with what it does not know."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dragonfly_ray.errors import GrantError, RemoteProtocolError, TransportError
from dragonfly_ray.model import digest
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.negotiation import (
    CURRENT,
    LEAST_VERSION,
    VERSION,
    Agreed,
    Capabilities,
    Feature,
)
from dragonfly_ray.transport.parent_connection import Data, ParentConnection, Pong
from dragonfly_ray.transport.states import MAX_UNKNOWN_FRAMES
from dragonfly_ray.transport.streams import Network
from tests.handshakes import as_child, as_parent, caller, frame, hello_to, parent_at
from tests.piece_bench import COUNT, PATIENT, PIECE, SOON, Bench, fetch, lend_nothing, length_of, take
from tests.waiting import until
from tests.wires import Listening, Wire, connect

OLDER = Capabilities(VERSION - 1, LEAST_VERSION, 0)
"""A build with one version and one feature fewer."""
UNKNOWN = p.HEADER.pack(200, 0, 0, 5) + b"12345"


@pytest.mark.parametrize(
    ("one", "other", "agreed"),
    [
        (Capabilities(4, 3, 1), Capabilities(4, 3, 1), Agreed(4, Feature.ENCODINGS)),
        (Capabilities(4, 3, 1), Capabilities(3, 3, 0), Agreed(3)),
        (Capabilities(4, 3, 1), Capabilities(5, 4, 7), Agreed(4, Feature.ENCODINGS)),
        (Capabilities(4, 4, 0), Capabilities(4, 3, 1), Agreed(4)),
        (Capabilities(4, 3, 1), Capabilities(6, 5, 1), None),
        (Capabilities(4, 3, 1), Capabilities(2, 0, 0), None),
        (Capabilities(4, 3, 1), Capabilities(3, 4, 1), None),
    ],
)
def test_the_highest_common_version_and_the_common_features_are_taken(
    one: Capabilities, other: Capabilities, agreed: Agreed | None
) -> None:
    assert one.agree(other) == agreed
    assert other.agree(one) == agreed


@pytest.mark.parametrize("child", [CURRENT, OLDER], ids=["current child", "older child"])
@pytest.mark.parametrize("parent", [CURRENT, OLDER], ids=["current parent", "older parent"])
def test_neighbouring_builds_understand_each_other(
    tmp_path: Path, network: Network, child: Capabilities, parent: Capabilities
) -> None:
    bench = Bench(tmp_path, network=network, capabilities=parent)
    with contextlib.closing(bench.connect(capabilities=child)) as connection:
        assert connection.agreed == child.agree(parent)
        fetch(connection, bench.task, range(8))
        assert connection.manifest(3_000_000) == bench.task.manifest_file.read_bytes()
    bench.close()


@pytest.mark.parametrize(("capabilities", "encoding"), [(CURRENT, p.Encoding.IDENTITY), (OLDER, None)])
def test_only_whoever_understands_encodings_is_told_one(
    bench: Bench, capabilities: Capabilities, encoding: int | None
) -> None:
    with connect(bench.network, bench.server.port) as wire:
        as_child(wire, capabilities=capabilities)
        frame(wire, p.Welcome)
        wire.sendall(p.encode(p.Request(5, 1)))
        assert frame(wire, p.DataHeader) == p.DataHeader(5, PIECE, digest(bench.task.parts[5]), encoding)


def test_a_later_build_may_have_more_to_say(bench: Bench) -> None:
    later = Capabilities(VERSION + 1, VERSION, 0xFFFFFFFF)
    with connect(bench.network, bench.server.port) as wire:
        hello = p.encode(hello_to(frame(wire, p.Challenge), capabilities=later)) + b"more"
        wire.sendall(hello[:4] + (len(hello) - p.HEADER.size).to_bytes(4, "big") + hello[p.HEADER.size :])
        frame(wire, p.Accepted)


@pytest.mark.parametrize("lowered", [OLDER, Capabilities(VERSION, LEAST_VERSION, 0)])
def test_nobody_on_the_way_can_lower_what_is_agreed_on(bench: Bench, lowered: Capabilities) -> None:
    """The child signs what it was told, and the parent what it has said."""
    with connect(bench.network, bench.server.port) as wire:
        told = p.Challenge(frame(wire, p.Challenge).nonce, lowered)
        wire.sendall(p.encode(hello_to(told)))
        assert frame(wire, p.Refused).code == p.Refusal.GRANT


# --- at a parent --------------------------------------------------------------------------------


@contextlib.contextmanager
def greeted(bench: Bench, capabilities: Capabilities) -> Iterator[Wire]:
    with connect(bench.network, bench.server.port) as wire:
        as_child(wire, capabilities=capabilities)
        frame(wire, p.Welcome)
        yield wire


def test_a_child_hears_which_frame_is_not_known(bench: Bench) -> None:
    with greeted(bench, CURRENT) as wire:
        wire.sendall(UNKNOWN + p.encode(p.Ping()))
        assert frame(wire, p.Unsupported) == p.Unsupported(200)
        frame(wire, p.Pong)
        wire.sendall(p.encode(p.Unsupported(1)) + p.encode(p.Ping()))
        frame(wire, p.Pong)


def test_an_older_child_is_closed_as_its_version_has_it(bench: Bench) -> None:
    with greeted(bench, OLDER) as wire:
        wire.sendall(UNKNOWN)
        until(lambda: bench.server.connections == 0, SOON)


def test_noise_of_unknown_frames_ends_a_connection(bench: Bench) -> None:
    with greeted(bench, CURRENT) as wire:
        wire.sendall(UNKNOWN * MAX_UNKNOWN_FRAMES + p.encode(p.Ping()))
        for _ in range(MAX_UNKNOWN_FRAMES):
            frame(wire, p.Unsupported)
        frame(wire, p.Pong)
        wire.sendall(UNKNOWN)
        until(lambda: bench.server.connections == 0, SOON)


@pytest.mark.parametrize("length", [p.MAX_UNKNOWN + 1, p.MAX_FRAME])
def test_no_room_is_made_for_a_long_frame_that_is_not_known(bench: Bench, length: int) -> None:
    with greeted(bench, CURRENT) as wire:
        wire.sendall(p.HEADER.pack(200, 0, 0, length))
        until(lambda: bench.server.connections == 0, SOON)


def test_nothing_unknown_is_skipped_before_a_child_is_known(bench: Bench) -> None:
    with connect(bench.network, bench.server.port) as wire:
        wire.sendall(UNKNOWN)
        until(lambda: bench.server.connections == 0, SOON)


# --- at a child ---------------------------------------------------------------------------------


class Parent:
    """Says `words` after the greeting, and keeps what it hears."""

    def __init__(self, network: Network, capabilities: Capabilities, *words: bytes) -> None:
        self.network = network
        self._capabilities = capabilities
        self._words = b"".join(words)
        self._listener = Listening(network)
        self._thread = threading.Thread(target=self._speak)
        self.heard: list[p.Frame | p.Unknown] = []

    def _speak(self) -> None:
        with self._listener.accept() as wire, contextlib.suppress(OSError):
            as_parent(wire, capabilities=self._capabilities)
            wire.sendall(p.encode(p.Welcome(b"\xff" * (COUNT // 8), ())) + self._words)
            parser = p.Parser()
            while data := wire.recv(4096):
                self.heard += parser.feed(data)

    def __enter__(self) -> ParentConnection:
        self._thread.start()
        host = parent_at(self._listener.port)
        self._connection = ParentConnection.open(host, caller(), PATIENT, COUNT, self.network)
        return self._connection

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._thread.join(SOON)
        self._listener.__exit__()
        assert not self._thread.is_alive()


def test_a_parent_hears_which_frame_is_not_known(network: Network) -> None:
    parent = Parent(network, CURRENT, UNKNOWN, p.encode(p.Pong()))
    with parent as connection:
        connection.ping()
        assert connection.receive(lend_nothing, length_of) == Pong()
    assert parent.heard == [p.Ping(), p.Unsupported(200)]


def test_an_older_parent_says_nothing_unknown(network: Network) -> None:
    with (
        Parent(network, OLDER, UNKNOWN) as connection,
        pytest.raises(RemoteProtocolError, match="unknown frame type"),
    ):
        connection.receive(lend_nothing, length_of)


def test_a_parent_that_says_only_unknown_frames_is_not_alive_for_ever(network: Network) -> None:
    parent = Parent(network, CURRENT, UNKNOWN * (MAX_UNKNOWN_FRAMES + 1))
    with parent as connection, pytest.raises(RemoteProtocolError, match="unknown frame type"):
        connection.receive(lend_nothing, length_of)


def test_a_parent_that_does_not_know_a_frame_breaks_nothing(network: Network) -> None:
    with Parent(network, CURRENT, p.encode(p.Unsupported(4))) as connection:
        with pytest.raises(TransportError, match="does not support frame type 4") as caught:
            connection.receive(lend_nothing, length_of)
        assert not isinstance(caught.value, RemoteProtocolError)


@pytest.mark.parametrize("encoding", [1, 255])
def test_a_piece_in_an_encoding_that_was_not_agreed_on_is_refused(network: Network, encoding: int) -> None:
    head = p.encode(p.DataHeader(5, PIECE, bytes(32), encoding))
    with Parent(network, CURRENT, head) as connection:
        connection.request(5, 1)
        with pytest.raises(RemoteProtocolError, match=f"encoding {encoding}"):
            connection.receive(lend_nothing, length_of)


def test_a_piece_whose_encoding_is_not_told_is_as_it_is(network: Network) -> None:
    """And one that tells it, each right behind the other, so that their heads are read with what is before them."""
    parts = [os.urandom(PIECE) for _ in range(4)]
    words = [
        p.encode(p.DataHeader(i, PIECE, digest(part), p.Encoding.IDENTITY if i % 2 else None)) + part
        for i, part in enumerate(parts)
    ]
    with Parent(network, CURRENT, *words) as connection, ThreadPoolExecutor(1):
        connection.request(0, 4)
        for part in parts:
            answer = connection.receive(take, length_of)
            assert isinstance(answer, Data)
            assert bytes(answer.view) == part


def test_without_a_common_version_each_end_says_so(network: Network, tmp_path: Path) -> None:
    bench = Bench(tmp_path, network=network, capabilities=Capabilities(VERSION, VERSION, 0))
    with pytest.raises(TransportError, match=f"protocol version {VERSION}, this host has {LEAST_VERSION}"):
        bench.connect(capabilities=Capabilities(LEAST_VERSION, LEAST_VERSION, 0))
    with connect(network, bench.server.port) as wire:
        hello = hello_to(frame(wire, p.Challenge), capabilities=Capabilities(LEAST_VERSION, LEAST_VERSION, 0))
        wire.sendall(p.encode(hello))
        refused = frame(wire, p.Refused)
    assert refused.code == p.Refusal.VERSION
    assert f"version {LEAST_VERSION} is not supported" in refused.reason
    bench.close()


def test_a_grant_is_still_asked_for(bench: Bench) -> None:
    with pytest.raises(GrantError):
        bench.connect(grant=b"", capabilities=OLDER)
