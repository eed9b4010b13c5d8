"""What every carrier of bytes promises, those in tests included; and that connections need no more than that."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dragonfly_ray.transport.memory import MemoryNetwork
from dragonfly_ray.transport.parent_connection import ParentConnection
from dragonfly_ray.transport.streams import FileUnreadableError, Listener, Network, Stream
from dragonfly_ray.transport.tcp import TCP
from tests.layered import DeflatedNetwork
from tests.piece_bench import COUNT, SOON, Bench, fetch
from tests.waiting import until

SHORT = 0.2
Pair = tuple[Stream, Stream]


@pytest.fixture(params=["tcp", "memory", "deflated tcp", "deflated memory"])
def network(request: pytest.FixtureRequest) -> Network:
    below: Network = TCP if request.param.endswith("tcp") else MemoryNetwork()
    return DeflatedNetwork(below) if request.param.startswith("deflated") else below


@pytest.fixture
def listener(network: Network) -> Iterator[Listener]:
    made = network.listen("127.0.0.1", 0)
    yield made
    made.close()


def connected(network: Network, listener: Listener, timeout: float = SOON) -> Pair:
    """(the end that connected, the end that was accepted)."""
    ours = network.connect("127.0.0.1", listener.port, SOON, timeout)
    with contextlib.closing(network.poller()) as poller:
        poller.add(listener)
        assert [tuple(each) for each in poller.poll(SOON)] == [(listener, True, False)]
        poller.remove(listener)
    return ours, listener.accept()


@pytest.fixture
def ends(network: Network, listener: Listener) -> Iterator[Pair]:
    made = connected(network, listener)
    yield made
    for end in made:
        end.close()


def send_all(stream: Stream, data: bytes) -> None:
    view = memoryview(data)
    while view:
        with contextlib.suppress(BlockingIOError):
            view = view[stream.send(view) :]


def receive(stream: Stream, count: int, network: Network) -> bytes:
    """`count` bytes, or what came until the other end closed."""
    found = bytearray()
    with contextlib.closing(network.poller()) as poller:
        poller.add(stream)
        while len(found) < count and poller.poll(SOON):
            buffer = memoryview(bytearray(min(7777, count - len(found))))
            got = stream.recv_into([buffer[:10], buffer[10:]])
            if not got:
                break
            found += buffer[:got]
        poller.remove(stream)
    return bytes(found)


def fill(stream: Stream) -> int:
    """Sends until no more is taken."""
    taken, noise = 0, random.Random(1).randbytes(64 * 1024)
    with contextlib.suppress(BlockingIOError, TimeoutError):
        while True:
            taken += stream.send(noise)
    return taken


def test_bytes_come_in_order_both_ways(ends: Pair, network: Network) -> None:
    ours, theirs = ends
    there, back = os.urandom(3_000_001), os.urandom(500_003)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(send_all, ours, there)
        assert receive(theirs, len(there), network) == there
        pool.submit(send_all, theirs, back)
        found = bytearray()
        while len(found) < len(back):
            buffer = memoryview(bytearray(100_000))
            found += buffer[: ours.recv_into([buffer])]
        assert bytes(found) == back


def test_an_accepted_stream_never_waits(ends: Pair) -> None:
    _, theirs = ends
    with pytest.raises(BlockingIOError):
        theirs.recv_into([memoryview(bytearray(1))])
    assert fill(theirs) > 0
    with pytest.raises(BlockingIOError):
        theirs.send(os.urandom(1 << 20))


def test_a_connected_stream_waits_for_its_time_out(network: Network, listener: Listener) -> None:
    ours, theirs = connected(network, listener, SHORT)
    with contextlib.closing(ours), contextlib.closing(theirs):
        with pytest.raises(TimeoutError):
            ours.recv_into([memoryview(bytearray(1))])
        assert fill(ours) > 0
        with pytest.raises(TimeoutError):
            ours.send(os.urandom(1 << 20))


def test_few_bytes_are_had_after_the_time_out(network: Network, listener: Listener) -> None:
    """However many are worth waking up for."""
    ours, theirs = connected(network, listener, SHORT)
    with contextlib.closing(ours), contextlib.closing(theirs):
        send_all(theirs, b"few")
        buffer = memoryview(bytearray(100))
        assert ours.recv_into([buffer], 50) == 3
        assert bytes(buffer[:3]) == b"few"


def test_a_file_is_sent_and_its_faults_are_not_the_streams(
    ends: Pair, network: Network, tmp_path: Path
) -> None:
    ours, theirs = ends
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file, ThreadPoolExecutor(1) as pool:
        came = pool.submit(receive, theirs, 90_000, network)
        offset = 10_000
        while offset < len(content):
            offset += ours.send_file(file.fileno(), offset, len(content) - offset)
        assert came.result(SOON) == content[10_000:]
        assert ours.send_file(file.fileno(), len(content), 10) == 0
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(FileUnreadableError):
        ours.send_file(folder, 0, 10)
    os.close(folder)
    send_all(ours, b"well")
    assert receive(theirs, 4, network) == b"well"


def test_what_was_sent_before_the_end_is_read_and_then_the_end(ends: Pair, network: Network) -> None:
    ours, theirs = ends
    assert not theirs.info().ended
    send_all(ours, b"last words")
    ours.close()
    until(lambda: theirs.info().ended, SOON)
    assert receive(theirs, 100, network) == b"last words"
    with pytest.raises(OSError):
        while True:
            theirs.send(os.urandom(100_000))


def test_whoever_waits_goes_on_when_either_end_is_shut_down(network: Network, listener: Listener) -> None:
    for number in (0, 1):
        ends = connected(network, listener)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ends[0].recv_into, [memoryview(bytearray(1))])
            ends[number].shutdown()
            assert waiting.result(SOON) == 0
        for end in ends:
            end.close()


def test_what_the_other_end_has_not_taken_is_told(ends: Pair, network: Network) -> None:
    _, theirs = ends
    until(lambda: theirs.info().unsent == 0, SOON)
    fill(theirs)
    assert theirs.info().unsent > 0


def test_a_poller_tells_what_can_go_on(ends: Pair, network: Network) -> None:
    ours, theirs = ends
    with contextlib.closing(network.poller()) as poller:
        poller.add(theirs)
        assert poller.poll(0.0) == []
        poller.watch(theirs, read=True, write=True)
        assert [tuple(each) for each in poller.poll(SOON)] == [(theirs, False, True)]
        fill(theirs)
        send_all(ours, b"word")
        until(lambda: [tuple(each) for each in poller.poll(0.0)] == [(theirs, True, False)], SOON)
        assert theirs.recv_into([memoryview(bytearray(2))]) == 2
        assert poller.poll(SOON)[0].readable, "the rest is there still"
        assert theirs.recv_into([memoryview(bytearray(2))]) == 2
        poller.watch(theirs, read=False)
        send_all(ours, b"more")
        assert poller.poll(0.0) == []
        poller.watch(theirs)
        assert poller.poll(SOON)[0].readable
        poller.remove(theirs)
        poller.remove(theirs)
        assert poller.poll(0.0) == []


def test_a_poller_is_woken_from_another_thread(network: Network) -> None:
    with contextlib.closing(network.poller()) as poller, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(poller.poll, 10 * SOON)
        poller.wake()
        assert waiting.result(SOON) == []


def test_where_nobody_listens_nobody_is_reached(network: Network, listener: Listener) -> None:
    port = listener.port
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        network.connect("127.0.0.1", port, SOON, SOON)


def fetch_all(connection: ParentConnection, bench: Bench) -> None:
    for first in range(0, COUNT, 16):
        fetch(connection, bench.task, range(first, first + 16))


def test_whole_connections_run_on_any_of_them(network: Network, tmp_path: Path) -> None:
    """Whatever a layer holds back, decodes ahead or cannot send by itself."""
    bench, before = Bench(tmp_path, network=network), threading.active_count()
    with (
        contextlib.closing(bench.connect()) as connection,
        contextlib.closing(bench.connect("other")) as other,
    ):
        assert connection.manifest(3_000_000) == bench.task.manifest_file.read_bytes()
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(fetch_all, each, bench) for each in (connection, other)]:
                done.result(10 * SOON)
        connection.have([(1, bytes(32))])
        assert bench.task.event.wait(SOON)
        connection.corrupt(5)
        until(lambda: bench.task.accused == [5], SOON)
    until(lambda: bench.server.connections == 0, SOON)
    bench.close()
    assert threading.active_count() < before
