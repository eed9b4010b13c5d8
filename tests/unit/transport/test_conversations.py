"""What an upload server and a child say to each other, on real sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.errors import ProtocolError, TransportError
from dragonfly_ray.model import digest
from dragonfly_ray.storage.task_pieces import Extent
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.memory import pair
from dragonfly_ray.transport.parent_connection import Busy, Data, Missing, ParentConnection
from dragonfly_ray.transport.states import State
from dragonfly_ray.transport.streams import Network, Stream
from dragonfly_ray.transport.tcp import TcpStream
from tests.piece_bench import (
    COUNT,
    PATIENT,
    PIECE,
    SOON,
    Bench,
    fetch,
    greeted,
    length_of,
    take,
)
from tests.waiting import until


def test_pieces_arrive_intact(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as connection:
        assert connection.bitmap == bench.task.bitmap("child")
        assert connection.digests[0] == digest(bench.task.parts[0])
        started = time.monotonic()
        for first in range(0, COUNT, 8):
            fetch(connection, bench.task, range(first, first + 8))
        rate = PIECE * COUNT / (time.monotonic() - started) / 1e6
        print(f"{rate:.0f} MB/s on one connection, each piece hashed twice")
    # It is counted after the bytes have left, so the last of them may be here first.
    until(lambda: bench.task.sent == PIECE * (COUNT - 1), SOON)


def test_many_children_at_once(bench: Bench) -> None:
    def child(number: int) -> None:
        with contextlib.closing(bench.connect(f"child{number}")) as connection:
            for first in range(0, COUNT, 16):
                fetch(connection, bench.task, range(first, first + 16))

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(child, range(40)))


def test_news_and_accusations_reach_the_parent(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as connection:
        connection.have([(1, digest(b"1")), (2, digest(b"2"))])
        assert bench.task.event.wait(10)
        assert bench.task.heard == [("child", [(1, digest(b"1")), (2, digest(b"2"))])]
        bench.task.event.clear()
        fetch(connection, bench.task, range(5, 6))
        connection.corrupt(5)
        assert bench.task.event.wait(10)
        assert bench.task.accused == [5]
        connection.ping()
        assert connection.receive(take, length_of) == p.Pong()


def test_the_manifest_travels_on_the_same_port(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as connection:
        assert connection.manifest(3_000_000) == bench.task.manifest_file.read_bytes()


def test_a_holder_of_a_very_large_task_greets_in_as_many_frames_as_it_takes(bench: Bench) -> None:
    count = 200_000
    said = [digest(b"%d" % i) for i in range(count)]
    bench.task.digests = lambda: list(said)  # type: ignore[method-assign]
    bench.task.bitmap = lambda host_id: b"\xff" * (count // 8)  # type: ignore[method-assign]
    with contextlib.closing(bench.connect(pieces=count)) as connection:
        assert connection.digests == dict(enumerate(said))
        assert connection.bitmap == b"\xff" * (count // 8)
        connection.request(4, 1)
        answer = connection.receive(take, length_of)
        assert isinstance(answer, Data)


@pytest.mark.parametrize(
    "then", [p.Pong(), p.Digests(()), p.Digests(tuple((i, bytes(32)) for i in range(3)))]
)
def test_a_greeting_that_does_not_keep_its_count_is_refused(then: p.Frame) -> None:
    ours, theirs = pair(10.0, 10.0)
    with contextlib.closing(ParentConnection(ours, "parent", PATIENT, COUNT)) as connection:
        connection._machine.state = State.GREETED
        theirs.send(p.encode(then))
        with pytest.raises(ProtocolError, match="2 digests of its WELCOME are missing"):
            connection._take_digests(2)


def test_only_of_what_it_was_sent_may_a_child_complain(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as connection:
        for index in (4, 6, 63):
            connection.corrupt(index)
        fetch(connection, bench.task, range(5, 6))
        connection.corrupt(5)
        assert bench.task.event.wait(SOON)
    assert bench.task.accused == [5]


def test_what_a_file_cut_short_has_lost_is_said_to_be_missing(bench: Bench) -> None:
    os.truncate(bench.task.file, 10 * PIECE + 1)
    with contextlib.closing(bench.connect()) as connection:
        connection.request(8, 4)
        answers = [connection.receive(take, length_of) for _ in range(4)]
        assert [a.index for a in answers if isinstance(a, Data)] == [8, 9]
        assert [a.index for a in answers if isinstance(a, Missing)] == [10, 11]
        fetch(connection, bench.task, range(4, 6))  # the connection goes on
    assert bench.task.unreadable == [10, 11]


@pytest.mark.parametrize(
    ("code", "answer"), [(errno.EIO, Missing(7)), (errno.ENOENT, Missing(7)), (errno.EMFILE, Busy(7, 1))]
)
def test_a_file_that_cannot_be_opened_costs_no_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int, answer: p.Frame
) -> None:
    reading = bench.task.reading

    @contextlib.contextmanager
    def broken(index: int) -> Iterator[list[Extent]]:
        if index == 7:
            raise OSError(code, os.strerror(code))
        with reading(index) as extents:
            yield extents

    monkeypatch.setattr(bench.task, "reading", broken)
    with contextlib.closing(bench.connect()) as connection:
        connection.request(7, 1)
        assert connection.receive(take, length_of) == answer
        fetch(connection, bench.task, range(8, 9))
    assert bench.task.unreadable == ([7] if isinstance(answer, Missing) else []), (
        "short of descriptors: not lost"
    )


def test_an_error_within_a_piece_withdraws_it_and_ends_that_connection_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sendfile, pread = os.sendfile, os.pread

    def bad_sector(at: int) -> None:
        if at == 7 * PIECE + PIECE // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def by_kernel(out: int, source: int, offset: int, count: int) -> int:
        bad_sector(offset)
        return sendfile(out, source, offset, count)

    def by_copy(source: int, count: int, offset: int) -> bytes:
        if count > 1:  # not what is tried before the piece is promised
            bad_sector(offset)
        return pread(source, count, offset)

    monkeypatch.setattr(os, "sendfile", by_kernel)
    monkeypatch.setattr(os, "pread", by_copy)
    with contextlib.closing(bench.connect("other")) as other:
        with contextlib.closing(bench.connect()) as connection:
            connection.request(7, 1)
            with pytest.raises(TransportError):
                connection.receive(take, length_of)
        fetch(other, bench.task, range(8, 9))
    assert bench.task.unreadable == [7]


def reset(stream: Stream) -> None:
    """What is under way is thrown away when it is closed."""
    if isinstance(stream, TcpStream):
        stream._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_a_connection_that_breaks_says_nothing_of_the_file(bench: Bench) -> None:
    for _ in range(20):
        with greeted(bench, "child") as sock:
            sock.sendall(p.encode(p.Request(4, 40)))
            reset(sock.stream)
    until(lambda: bench.server.connections == 0, SOON)
    assert bench.task.unreadable == []


def test_a_manifest_asked_for_out_of_bounds_costs_that_connection_alone(bench: Bench) -> None:
    with greeted(bench, "hostile") as sock:
        sock.sendall(p.encode(p.ManifestRequest(2**63, 10)))
        until(lambda: bench.server.connections == 0, SOON)
    with contextlib.closing(bench.connect()) as connection:
        fetch(connection, bench.task, range(4, 8))


def test_a_child_that_never_reads_is_closed_before_it_costs_memory(bench: Bench) -> None:
    with greeted(bench, "hostile") as sock:
        with contextlib.suppress(OSError):
            for _ in range(50):
                sock.sendall(p.encode(p.Request(4, 60)) * 4000)
        until(lambda: bench.server.connections == 0, SOON)


def test_a_child_that_only_talks_is_closed_as_stuck(tmp_path: Path, network: Network) -> None:
    bench = Bench(tmp_path, TransportSettings(stall_timeout=0.2), network)

    def closed() -> bool:
        with contextlib.suppress(OSError):
            sock.sendall(p.encode(p.Have(())))
        return bench.server.connections == 0

    with greeted(bench, "talker") as sock:
        sock.sendall(p.encode(p.Request(4, 60)))
        until(closed, SOON)
    bench.close()


def test_a_rate_limit_slows_pieces_but_stalls_nobody(tmp_path: Path, network: Network) -> None:
    rate = PIECE // 4  # a piece takes longer than the stall time-out
    bench = Bench(tmp_path, TransportSettings(upload_rate=rate), network)
    with contextlib.closing(bench.connect(settings=TransportSettings(stall_timeout=2.5))) as connection:
        started = time.monotonic()
        fetch(connection, bench.task, range(4, 6))
        assert time.monotonic() - started > 3.0
    bench.close()


def test_whoever_joined_leaves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[str] = []
    left: list[str] = []
    monkeypatch.setattr(bench.task, "on_joined", joined.append)
    monkeypatch.setattr(bench.task, "on_left", left.append)
    for number in range(20):
        with greeted(bench, f"h{number}") as sock:
            sock.sendall(p.encode(p.Request(4, 60)))
            sock.recv(1000)
    until(lambda: bench.server.connections == 0, SOON)
    assert sorted(left) == sorted(joined)
