"""Parents that answer wrongly, slowly or no more; connections that replace each other."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.errors import ProtocolError, StalledError, TransportError
from dragonfly_ray.model import digest
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.child_connection import MAX_QUEUE
from dragonfly_ray.transport.parent_connection import Busy, Data, Missing, ParentConnection, Pong
from dragonfly_ray.transport.states import State
from dragonfly_ray.transport.streams import Network
from tests.handshakes import (
    as_parent,
    caller,
    parent_at,
)
from tests.piece_bench import (
    COUNT,
    PATIENT,
    PIECE,
    SOON,
    Bench,
    FakeTask,
    fetch,
    lend_nothing,
    length_of,
    take,
)
from tests.wires import Listening, Wire


@pytest.mark.parametrize(
    "answer", [p.DataHeader(7, p.MAX_PIECE, bytes(32)), Missing(7), Busy(0, 2**32 - 1), Busy(6, 2)]
)
def test_a_parent_answers_only_what_it_was_asked(network: Network, answer: p.Frame) -> None:
    with Listening(network) as listener, ThreadPoolExecutor(1) as pool:

        def parent() -> None:
            with listener.accept() as wire:
                as_parent(wire)
                wire.sendall(p.encode(p.Welcome(b"\xff", ())) + p.encode(answer))
                wire.drain()

        lying = pool.submit(parent)
        fake = parent_at(listener.port)
        with contextlib.closing(ParentConnection.open(fake, caller(), PATIENT, 8, network)) as connection:
            connection.request(5, 2)
            with pytest.raises(ProtocolError, match="unrequested reply"):
                connection.receive(lend_nothing, length_of)
        lying.result(10)


def test_a_child_that_asks_for_too_much_is_told_so(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as connection:
        for _ in range(8):
            connection.request(4, 60)
        busy = pieces = 0
        while busy + pieces < 480:
            answer = connection.receive(take, length_of)
            if isinstance(answer, Busy):
                busy += answer.count
            else:
                assert isinstance(answer, Data)
                pieces += 1
        assert busy > 0
        assert pieces >= MAX_QUEUE - 60


def test_what_is_cancelled_is_not_sent_and_is_answered_all_the_same(tmp_path: Path, network: Network) -> None:
    bench = Bench(tmp_path, TransportSettings(upload_rate=4 * PIECE), network)
    with contextlib.closing(bench.connect()) as connection:
        connection.request(4, 20)
        connection.cancel(12, 12)
        answers = [connection.receive(take, length_of) for _ in range(20)]
        assert sorted(a.index for a in answers if isinstance(a, Data)) == list(range(4, 12))
        assert sorted(a.first for a in answers if isinstance(a, Busy)) == list(range(12, 24))
        fetch(connection, bench.task, range(24, 26))
    bench.close()


def test_frames_that_come_together_with_pieces_are_told_apart(network: Network) -> None:
    """However the stream is cut: a head that was read with the piece before it is not lost."""
    parts = [os.urandom(length) for length in (700_001, 5, 100_000, 1)]
    frames: list[bytes] = []
    for index, part in enumerate(parts):
        frames += [p.encode(p.DataHeader(index, len(part), digest(part))), part]
        frames += [p.encode(p.Pong()), p.encode(p.Missing(index + 10)), p.encode(p.Busy(index + 20, 2))]
    stream = b"".join(frames)
    for cut in (len(stream), 65_536, 997):
        listener = Listening(network)
        connection = ParentConnection(
            network.connect("127.0.0.1", listener.port, 10.0, 10.0), "parent", PATIENT, COUNT
        )
        theirs = listener.accept()
        connection._machine.state = State.OPEN
        connection._pinged = len(parts)
        connection._asked.update([*range(4), *range(10, 14), *range(20, 25), *range(21, 24)])

        def send(theirs: Wire = theirs, cut: int = cut) -> None:
            for at in range(0, len(stream), cut):
                theirs.sendall(stream[at : at + cut])

        sender = threading.Thread(target=send)
        sender.start()
        for index, part in enumerate(parts):
            counted: list[int] = []
            data = connection.receive(take, lambda i: len(parts[i]), counted.append)
            assert isinstance(data, Data)
            assert (data.index, bytes(data.view)) == (index, part)
            assert sum(counted) == len(part), "every byte is accounted for, however early it was read"
            assert connection.receive(take, length_of) == p.Pong()
            assert connection.receive(take, length_of) == Missing(index + 10)
            assert connection.receive(take, length_of) == Busy(index + 20, 2)
        sender.join()
        connection.close()
        theirs.stream.close()
        listener.__exit__()


def test_a_parent_that_trickles_does_not_stall(network: Network) -> None:
    """Less than what is worth waking up for, again and again, each in good time."""
    settings = TransportSettings(stall_timeout=3.0)
    content = bytes(range(256)) * 800
    sent = threading.Event()

    def parent(listener: Listening) -> None:
        with listener.accept() as sock:
            as_parent(sock)
            header = p.DataHeader(0, len(content), digest(content))
            sock.sendall(p.encode(p.Welcome(b"\x01", ())) + p.encode(header))
            for start in range(0, len(content), 20_000):
                sock.sendall(content[start : start + 20_000])
                sent.wait(0.4)
            sock.drain()

    with Listening(network) as listener, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(parent, listener)
        fake = parent_at(listener.port)
        with contextlib.closing(ParentConnection.open(fake, caller(), settings, 1, network)) as connection:
            connection.request(0, 1)
            answer = connection.receive(take, lambda index: len(content))
            assert isinstance(answer, Data)
            assert bytes(answer.view) == content
        slow.result(10)


def test_a_parent_that_dies_is_noticed_at_once(bench: Bench) -> None:
    connection = bench.connect()
    connection.request(4, 60)
    bench.server.stop()
    with pytest.raises(TransportError):
        while True:
            connection.receive(take, length_of)
    connection.close()


def test_a_parent_that_stalls_is_given_up(network: Network) -> None:
    with Listening(network) as silent:
        settings = TransportSettings(stall_timeout=0.4)
        with pytest.raises(StalledError):
            ParentConnection.open(parent_at(silent.port), caller(), settings, 1, network)


def test_the_next_endpoint_is_tried(bench: Bench) -> None:
    ParentConnection.open(parent_at(9, bench.server.port), caller(), PATIENT, COUNT, bench.network).close()


def test_the_newer_connection_of_a_host_wins(bench: Bench) -> None:
    first = bench.connect()
    with contextlib.closing(bench.connect()) as second:
        with pytest.raises(TransportError):
            first.receive(take, length_of)
        fetch(second, bench.task, range(4, 8))
    first.close()


def test_a_late_word_of_a_replaced_connection_is_not_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be closed while a piece is being sent on it."""
    busy, go_on, greeting, spoken = (threading.Event() for _ in range(4))
    first, shared = bench.connect(), bench.shared

    def on_sent(host_id: str, nbytes: int) -> None:
        busy.set()
        go_on.wait(SOON)

    def slowly(task_id: str) -> FakeTask | None:
        greeting.set()
        spoken.wait(SOON)
        return shared(task_id)

    monkeypatch.setattr(bench.task, "on_sent", on_sent)
    monkeypatch.setattr(bench, "shared", slowly)
    with contextlib.closing(first), ThreadPoolExecutor(1) as pool:
        first.request(4, 1)
        assert busy.wait(SOON)
        connecting = pool.submit(bench.connect)
        assert greeting.wait(SOON)
        first.have([(9, bytes(32))])
        spoken.set()
        with contextlib.closing(connecting.result(SOON)) as second:
            second.have([(10, bytes(32))])
            second.ping()
            assert second.receive(take, length_of) == Pong()
            assert bench.task.heard == [("child", [(10, bytes(32))])]
            go_on.set()
            fetch(second, bench.task, range(4, 8))
