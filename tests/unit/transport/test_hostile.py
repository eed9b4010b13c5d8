"""Both ends of a connection against whatever the other may say, on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.errors import ProtocolError, TransportError
from dragonfly_ray.model import Host, digest
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.parent_connection import Data, ParentConnection
from dragonfly_ray.transport.streams import Network
from tests.handshakes import as_parent, caller, parent_at
from tests.piece_bench import (
    COUNT,
    PATIENT,
    PIECE,
    SOON,
    Bench,
    fetch,
    greeted,
    lend_nothing,
    length_of,
)
from tests.waiting import until
from tests.wires import Listening

PIECES = 12
QUICK = TransportSettings(stall_timeout=5.0)
FULL = b"\xff\x0f"


@contextlib.contextmanager
def parent(network: Network, *words: bytes) -> Iterator[Host]:
    """Says `words` to its only child after the handshake, and then nothing until that goes."""

    def speak() -> None:
        with listener.accept() as wire, contextlib.suppress(OSError):
            as_parent(wire)
            wire.sendall(b"".join(words))
            wire.finish()
            wire.drain()

    with Listening(network) as listener:
        speaker = threading.Thread(target=speak)
        speaker.start()
        yield parent_at(listener.port)
        speaker.join(10)
        assert not speaker.is_alive()


def child(network: Network, of: Host) -> ParentConnection:
    return ParentConnection.open(of, caller(), QUICK, PIECES, network)


@contextlib.contextmanager
def conversation(network: Network, *words: bytes) -> Iterator[ParentConnection]:
    """A child of a parent that says `words`."""
    with parent(network, *words) as lying, contextlib.closing(child(network, lying)) as connection:
        yield connection


def items(*numbers: int) -> tuple[tuple[int, bytes], ...]:
    return tuple((n, digest(b"%d" % n)) for n in numbers)


# --- a parent's words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [
        p.Welcome(b"\xff", ()),
        p.Welcome(b"\xff" * 1000, ()),
        p.Welcome(b"\xff\x1f", ()),
        p.Welcome(FULL, items(PIECES)),
        p.Welcome(FULL, items(2**32 - 1)),
        p.Welcome(FULL, items(*range(PIECES)), 1),
        p.Welcome(FULL, items(*[1] * (PIECES + 1))),
        p.Pong(),
    ],
    ids=["short", "long", "spare bits", "digest beyond", "far beyond", "too many follow", "too many", "pong"],
)
def test_a_greeting_of_another_task_is_refused(network: Network, greeting: p.Frame) -> None:
    with parent(network, p.encode(greeting)) as lying, pytest.raises(ProtocolError):
        child(network, lying)


def test_digests_that_follow_a_greeting_are_of_the_task(network: Network) -> None:
    words = p.encode(p.Welcome(FULL, (), 1)), p.encode(p.Digests(items(PIECES)))
    with parent(network, *words) as lying, pytest.raises(ProtocolError, match="beyond"):
        child(network, lying)


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE + 1, p.MAX_PIECE])
def test_no_buffer_is_lent_for_another_length_than_the_piece_has(network: Network, length: int) -> None:
    words = p.encode(p.Welcome(FULL, ())), p.encode(p.DataHeader(5, length, bytes(32)))
    with parent(network, *words) as lying, contextlib.closing(child(network, lying)) as connection:
        connection.request(5, 1)
        with pytest.raises(ProtocolError, match=f"piece 5 has {length} bytes, expected"):
            connection.receive(lend_nothing, length_of)


@pytest.mark.parametrize("answer", [p.Busy(5, 0), p.Pong(), p.Ping(), p.Request(1, 1), p.Digests(())])
def test_words_that_no_parent_says_are_refused(network: Network, answer: p.Frame) -> None:
    """Those that cost nothing, too: with them, a parent would count as alive for ever."""
    with conversation(network, p.encode(p.Welcome(FULL, ())), p.encode(answer)) as connection:
        connection.request(5, 1)
        with pytest.raises(ProtocolError):
            connection.receive(lend_nothing, length_of)


@pytest.mark.parametrize(
    "data", [p.ManifestData(0, b"x" * 11), p.ManifestData(1, b"x"), p.ManifestData(0, b"")]
)
def test_a_manifest_is_taken_as_it_was_asked_for(network: Network, data: p.ManifestData) -> None:
    words = p.encode(p.Welcome(FULL, ())), p.encode(data)
    with conversation(network, *words) as connection, pytest.raises(ProtocolError):
        connection.manifest(10)


_index = st.one_of(st.integers(0, PIECES + 2), st.integers(0, 2**32 - 1))
_said = st.lists(st.tuples(_index, st.binary(min_size=32, max_size=32)), max_size=4).map(tuple)
_answers = st.one_of(
    st.builds(p.DataHeader, _index, st.sampled_from([0, 1, 64, 65, p.MAX_PIECE]), st.just(bytes(32))),
    st.builds(p.Busy, _index, _index),
    st.builds(p.Missing, _index),
    st.builds(p.Welcome, st.sampled_from([FULL, b"", b"\xff" * 9]), _said, st.integers(0, 3)),
    st.builds(p.Digests, _said),
    st.builds(p.ManifestData, st.integers(0, 2**63), st.binary(max_size=70)),
    st.just(p.Pong()),
).map(p.encode)
_noise = st.one_of(st.binary(max_size=80), _answers)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(welcomed=st.booleans(), words=st.lists(_noise, max_size=8))
def test_whatever_a_parent_says_a_child_takes_what_it_asked_for_or_an_error(
    network: Network, welcomed: bool, words: list[bytes]
) -> None:
    lent: list[int] = []

    def lend(index: int, length: int) -> memoryview:
        assert length == 64
        lent.append(index)
        return memoryview(bytearray(length))

    greeting = [p.encode(p.Welcome(FULL, ()))] if welcomed else []
    with contextlib.suppress(TransportError), conversation(network, *greeting, *words) as connection:
        assert len(connection.bitmap) == 2
        assert all(index < PIECES for index in connection.digests)
        connection.request(0, 6)
        for _ in range(len(words) + 1):
            answer = connection.receive(lend, lambda index: 64)
            assert not isinstance(answer, Data) or (answer.index < 6 and len(answer.view) == 64)
    assert len(lent) <= 6


# --- a child's words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        p.Have(items(COUNT)),
        p.Have(items(1, 2**32 - 1)),
        p.Have(items(*[1] * (COUNT + 1))),
        p.Corrupt(COUNT),
        p.Cancel(0, 2**32 - 1),
        p.Cancel(2**32 - 1, 2),
        p.Request(0, 0),
        p.Request(0, COUNT + 1),
        p.Request(COUNT, 1),
        p.Request(2**32 - 1, 2**32 - 1),
        p.ManifestRequest(0, 0),
        p.ManifestRequest(0, 2**32 - 1),
        p.Hello("t", "child", b""),
        p.Welcome(FULL, ()),
        p.Pong(),
    ],
    ids=lambda word: f"{type(word).__name__}",
)
def test_words_that_no_child_says_cost_their_connection_alone(bench: Bench, word: p.Frame) -> None:
    with greeted(bench, "hostile") as sock:
        sock.sendall(p.encode(word))
        until(lambda: bench.server.connections == 0, SOON)
    assert bench.task.heard == []
    assert bench.task.accused == []
    with contextlib.closing(bench.connect()) as connection:
        fetch(connection, bench.task, range(4, 8))


_place = st.one_of(st.integers(0, COUNT + 2), st.integers(0, 2**32 - 1))
_heard = st.lists(st.tuples(_place, st.binary(min_size=32, max_size=32)), max_size=4).map(tuple)
_asks = st.one_of(
    st.builds(p.Request, _place, _place),
    st.builds(p.Cancel, _place, _place),
    st.builds(p.Have, _heard),
    st.builds(p.Corrupt, _place),
    st.builds(p.ManifestRequest, st.integers(0, 2**63), _place),
    st.just(p.Ping()),
).map(p.encode)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.one_of(_asks, st.binary(max_size=60)), max_size=8))
def test_whatever_a_child_says_others_are_served_and_only_pieces_of_the_task_are_heard_of(
    bench: Bench, words: list[bytes]
) -> None:
    with greeted(bench, "hostile") as sock, contextlib.suppress(OSError):
        for word in words:
            sock.sendall(word)
    with contextlib.closing(bench.connect(settings=PATIENT)) as connection:
        fetch(connection, bench.task, range(4, 6))
    assert all(index < COUNT for _, said in bench.task.heard for index, _ in said)
    assert all(index < COUNT for index in bench.task.accused)
