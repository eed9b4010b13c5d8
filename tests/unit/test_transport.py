"""The piece protocol, the upload server and the child's end, on real sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.errors import GrantError, ProtocolError, StalledError, TransportError
from dragonfly_ray.grants import GrantIssuer, GrantVerifier, SigningKey
from dragonfly_ray.model import digest
from dragonfly_ray.storage.task_store import Extent
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.child import MAX_QUEUE
from dragonfly_ray.transport.connection import Busy, Data, Missing, ParentConnection, Pong
from dragonfly_ray.transport.limiter import RateLimiter
from dragonfly_ray.transport.server import HELLO_TIMEOUT, UploadServer
from tests.handshakes import (
    CHILD_KEY,
    CLUSTER_KEY,
    ISSUER,
    PARENT,
    PARENT_KEY,
    a_grant,
    as_child,
    as_parent,
    caller,
    parent_at,
)
from tests.waiting import until

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

    def __init__(self, folder: Path, settings: TransportSettings = PATIENT) -> None:
        self.task = FakeTask(folder)
        self.verifier = GrantVerifier([CLUSTER_KEY.public_bytes()])
        self.server = UploadServer("127.0.0.1", 0, self, settings, self.verifier, PARENT, PARENT_KEY)
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
    ) -> ParentConnection:
        parent = parent_at(self.server.port)
        return ParentConnection.open(parent, caller(host, task, grant), settings, pieces)

    def close(self) -> None:
        self.server.stop()
        os.close(self.task.fd)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


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


# --- the codec ----------------------------------------------------------------------------------

_index = st.integers(0, 2**32 - 1)
_digest = st.binary(min_size=32, max_size=32)
_items = st.lists(st.tuples(_index, _digest), max_size=5).map(tuple)
_proof = st.binary(min_size=64, max_size=64)
_frames = st.one_of(
    st.builds(p.Challenge, _digest, st.just(p.VERSION), _index),
    st.builds(p.Hello, st.text(max_size=70), st.text(max_size=40), st.binary(max_size=300), _digest, _proof),
    st.builds(p.Accepted, _proof),
    st.builds(p.Welcome, st.binary(max_size=40), _items),
    st.builds(p.Welcome, st.binary(min_size=1, max_size=40), _items, st.integers(0, 8)),
    st.builds(p.Digests, _items),
    st.builds(p.Refused, st.text(max_size=40), st.sampled_from(p.Refusal)),
    st.builds(p.Request, _index, _index),
    st.builds(p.Cancel, _index, _index),
    st.builds(p.Busy, _index, _index),
    st.builds(p.Have, _items),
    st.builds(p.Corrupt, _index),
    st.builds(p.Missing, _index),
    st.builds(p.ManifestRequest, st.integers(0, 2**63), _index),
    st.builds(p.ManifestData, st.integers(0, 2**63), st.binary(max_size=100)),
    st.builds(p.DataHeader, _index, st.integers(0, p.MAX_PIECE), _digest),
    st.just(p.Ping()),
    st.just(p.Pong()),
)


@settings(max_examples=300)
@given(st.lists(_frames, max_size=6), st.data())
def test_frames_survive_any_cutting_of_the_stream(frames: list[p.Frame], data: st.DataObject) -> None:
    stream = b"".join(p.encode(frame) for frame in frames)
    parser, found, at = p.Parser(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += parser.feed(stream[at : at + step])
        at += step
    assert found == frames


@settings(max_examples=1000)
@given(st.binary(max_size=400))
def test_hostile_bytes_only_ever_raise_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        p.Parser().feed(data)


@settings(max_examples=500)
@given(st.integers(0, 17), st.binary(max_size=200))
def test_hostile_bodies_only_ever_raise_a_protocol_error(kind: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        p.Parser().feed(p.HEADER.pack(kind, 0, 0, len(body)) + body)


@pytest.mark.parametrize("header", [(200, 0, 0, 5), (0, 0, 0, 0), (13, 1, 0, 0), (13, 0, 1, 0)])
def test_a_frame_that_is_not_known_is_refused_by_its_header(header: tuple[int, int, int, int]) -> None:
    with pytest.raises(ProtocolError, match="unknown type"):
        p.Parser().feed(p.HEADER.pack(*header))


@pytest.mark.parametrize(
    ("kind", "length"), [(4, 7), (4, 9), (10, 41), (12, 0), (13, 1), (3, 514), (9, p.MANIFEST_CHUNK + 9)]
)
def test_a_length_that_a_frame_cannot_have_is_refused_by_its_header(kind: int, length: int) -> None:
    with pytest.raises(ProtocolError, match=f"of {length} bytes"):
        p.Parser().feed(p.HEADER.pack(kind, 0, 0, length))


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError):
        p.Parser().feed(p.HEADER.pack(6, 0, 0, p.MAX_FRAME + 1))


# --- conversations ------------------------------------------------------------------------------


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
    ours, theirs = socket.socketpair()
    with contextlib.closing(ParentConnection(ours, "parent", PATIENT, COUNT)) as connection, theirs:
        ours.settimeout(10.0)
        theirs.sendall(p.encode(then))
        with pytest.raises(ProtocolError, match="2 digests of its greeting are missing"):
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
    sendfile = os.sendfile

    def bad_sector(out: int, source: int, offset: int, count: int) -> int:
        if offset == 7 * PIECE + PIECE // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sendfile(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", bad_sector)
    with contextlib.closing(bench.connect("other")) as other:
        with contextlib.closing(bench.connect()) as connection:
            connection.request(7, 1)
            with pytest.raises(TransportError):
                connection.receive(take, length_of)
        fetch(other, bench.task, range(8, 9))
    assert bench.task.unreadable == [7]


def test_a_connection_that_breaks_says_nothing_of_the_file(bench: Bench) -> None:
    for _ in range(20):
        with greeted(bench, "child") as sock:
            sock.sendall(p.encode(p.Request(4, 40)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: bench.server.connections == 0, SOON)
    assert bench.task.unreadable == []


def greeted(bench: Bench, host: str) -> socket.socket:
    """A child with a grant, that may then say what it likes."""
    sock = socket.create_connection(("127.0.0.1", bench.server.port), timeout=10)
    as_child(sock, host)
    return sock


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


def test_a_child_that_only_talks_is_closed_as_stuck(tmp_path: Path) -> None:
    bench = Bench(tmp_path, TransportSettings(stall_timeout=0.2))

    def closed() -> bool:
        with contextlib.suppress(OSError):
            sock.sendall(p.encode(p.Have(())))
        return bench.server.connections == 0

    with greeted(bench, "talker") as sock:
        sock.sendall(p.encode(p.Request(4, 60)))
        until(closed, SOON)
    bench.close()


def test_a_rate_limit_slows_pieces_but_stalls_nobody(tmp_path: Path) -> None:
    rate = PIECE // 2  # a piece takes twice the stall time-out
    bench = Bench(tmp_path, TransportSettings(upload_rate=rate))
    with contextlib.closing(bench.connect(settings=TransportSettings(stall_timeout=1.0))) as connection:
        started = time.monotonic()
        fetch(connection, bench.task, range(4, 7))
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


@pytest.mark.parametrize(
    "answer", [p.DataHeader(7, p.MAX_PIECE, bytes(32)), Missing(7), Busy(0, 2**32 - 1), Busy(6, 2)]
)
def test_a_parent_answers_only_what_it_was_asked(answer: p.Frame) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def parent() -> None:
            sock, _ = listener.accept()
            with sock:
                as_parent(sock)
                sock.sendall(p.encode(p.Welcome(b"\xff", ())) + p.encode(answer))
                while sock.recv(4096):
                    pass

        lying = pool.submit(parent)
        fake = parent_at(listener.getsockname()[1])
        with contextlib.closing(ParentConnection.open(fake, caller(), PATIENT, 8)) as connection:
            connection.request(5, 2)
            with pytest.raises(ProtocolError, match="unasked"):
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


def test_what_is_cancelled_is_not_sent_and_is_answered_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, TransportSettings(upload_rate=4 * PIECE))
    with contextlib.closing(bench.connect()) as connection:
        connection.request(4, 20)
        connection.cancel(12, 12)
        answers = [connection.receive(take, length_of) for _ in range(20)]
        assert sorted(a.index for a in answers if isinstance(a, Data)) == list(range(4, 12))
        assert sorted(a.first for a in answers if isinstance(a, Busy)) == list(range(12, 24))
        fetch(connection, bench.task, range(24, 26))
    bench.close()


def test_frames_that_come_together_with_pieces_are_told_apart() -> None:
    """However the stream is cut: a head that was read with the piece before it is not lost."""
    parts = [os.urandom(length) for length in (700_001, 5, 100_000, 1)]
    frames: list[bytes] = []
    for index, part in enumerate(parts):
        frames += [p.encode(p.DataHeader(index, len(part), digest(part))), part]
        frames += [p.encode(p.Pong()), p.encode(p.Missing(index + 10)), p.encode(p.Busy(index + 20, 2))]
    stream = b"".join(frames)
    for cut in (len(stream), 65_536, 997):
        ours, theirs = socket.socketpair()
        connection = ParentConnection(ours, "parent", PATIENT, COUNT)
        ours.settimeout(10.0)
        connection._pinged = len(parts)
        connection._asked.update([*range(4), *range(10, 14), *range(20, 25), *range(21, 24)])

        def send(theirs: socket.socket = theirs, cut: int = cut) -> None:
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
        theirs.close()


def test_a_parent_that_trickles_does_not_stall() -> None:
    """Less than what is worth waking up for, again and again, each in good time."""
    settings = TransportSettings(stall_timeout=1.5)
    content = bytes(range(256)) * 800
    sent = threading.Event()

    def parent(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            as_parent(sock)
            header = p.DataHeader(0, len(content), digest(content))
            sock.sendall(p.encode(p.Welcome(b"\x01", ())) + p.encode(header))
            for start in range(0, len(content), 20_000):
                sock.sendall(content[start : start + 20_000])
                sent.wait(0.2)
            while sock.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(parent, listener)
        fake = parent_at(listener.getsockname()[1])
        with contextlib.closing(ParentConnection.open(fake, caller(), settings, 1)) as connection:
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


def test_a_parent_that_stalls_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = TransportSettings(stall_timeout=0.4)
        with pytest.raises(StalledError):
            ParentConnection.open(parent_at(silent.getsockname()[1]), caller(), settings, 1)


def test_the_next_endpoint_is_tried(bench: Bench) -> None:
    ParentConnection.open(parent_at(9, bench.server.port), caller(), PATIENT, COUNT).close()


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


# --- strangers ----------------------------------------------------------------------------------


def tampered() -> bytes:
    good = a_grant()
    return good[:-1] + bytes([good[-1] ^ 1])


@pytest.mark.parametrize(
    "grant",
    [b"", b"x" * 100, tampered(), a_grant("somebody-else"), a_grant(task="other"), a_grant(ttl=-3600.0),
     GrantIssuer(SigningKey.generate()).issue("t", "child", CHILD_KEY.public_bytes(), "default", 60),
     a_grant(key=SigningKey.generate()), ISSUER.issue("t", "child", b"short", "default", 60)],
    ids=["none", "noise", "tampered", "other host", "other task", "expired", "other cluster", "other key", "no key"],
)  # fmt: skip
def test_nobody_gets_in_without_a_grant(bench: Bench, grant: bytes) -> None:
    with pytest.raises(GrantError):
        bench.connect(grant=grant)


def test_a_task_that_is_not_here_is_said_so(bench: Bench) -> None:
    with pytest.raises(TransportError, match="unknown task"):
        bench.connect(task="u")


def test_ten_thousand_strangers_and_noise_cost_a_closed_connection_each(bench: Bench) -> None:
    hello = p.encode(p.Hello("t", "child", b"no grant"))
    noise = os.urandom(300)
    address = ("127.0.0.1", bench.server.port)
    for number in range(10_000):
        with socket.create_connection(address) as sock, contextlib.suppress(OSError):
            sock.sendall(hello if number % 10 else noise)
    with contextlib.closing(bench.connect()) as connection:
        fetch(connection, bench.task, range(4, 12))
    deadline = time.monotonic() + 30
    while bench.server.connections > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert bench.server.connections == 0


def test_who_says_nothing_is_closed(bench: Bench) -> None:
    address = ("127.0.0.1", bench.server.port)
    slow = [socket.create_connection(address) for _ in range(200)]
    try:
        for sock in slow:
            sock.sendall(b"\x01")
        with contextlib.closing(bench.connect()) as connection:
            fetch(connection, bench.task, range(4, 12))
        for sock in slow:
            sock.settimeout(10 * HELLO_TIMEOUT)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(100):  # the challenge
                    pass
    finally:
        for sock in slow:
            sock.close()


def test_stop_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    bench = Bench(tmp_path)
    connections = [bench.connect(f"c{n}") for n in range(5)]
    for connection in connections:
        connection.request(4, 20)
    bench.close()
    for connection in connections:
        connection.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads


# --- limits and keys ----------------------------------------------------------------------------


def test_the_limiter_keeps_to_its_rate() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    limiter = RateLimiter(1_000_000, clock=lambda: now[0], sleep=sleep)
    for _ in range(100):
        limiter.take(100_000)
    assert 9.0 < now[0] <= 10.0


def test_a_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    key = SigningKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(path).public_bytes() == key.public_bytes()
    assert key.private_bytes().hex() not in repr(key)
