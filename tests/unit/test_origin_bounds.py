"""Origins without end: what they say and send is held against the store before anything is built or filled."""

from __future__ import annotations

import contextlib
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings, StorageSettings
from dragonfly_ray.errors import (
    SourceBusyError,
    SourceError,
    SourceUnreachableError,
    SourceUnsupportedError,
    StorageFullError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import resolve
from dragonfly_ray.storage.store import PieceStore
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0, retries=0)
MIB = 1 << 20


@contextlib.contextmanager
def saying(*parts: bytes, endless: bytes = b"") -> Iterator[tuple[str, list[int]]]:
    """A server that answers every connection's every request with these bytes, and then for ever with `endless`.

    Yields its URL, and a list whose sum is what it has sent.
    """
    sent: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                for part in parts:
                    connection.sendall(part)
                while endless:
                    connection.sendall(endless)
                    sent.append(len(endless))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/content.bin", sent
    finally:
        listener.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PieceStore]:
    made = PieceStore(StorageSettings(root=tmp_path / "store", quota=8 * MIB))
    yield made
    made.close()


def asked(url: str, store: PieceStore) -> None:
    resolve(Source(url), Credentials(), SETTINGS, spool=store.path / "spool", room=store)


@pytest.mark.parametrize(
    "headers",
    [
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/%d\r\nContent-Length: 1\r\n\r\nx" % (1 << 52),
        b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\nx" % (1 << 52),
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/%d\r\nContent-Length: 1\r\n\r\nx" % (9 * MIB),
        b"HTTP/1.1 416 X\r\nContent-Range: bytes */%d\r\nContent-Length: 0\r\n\r\n" % (1 << 62),
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/" + b"9" * 6000 + b"\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 X\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nx",
    ],
)
def test_a_size_beyond_the_store_is_refused_before_anything_is_built(
    headers: bytes, store: PieceStore
) -> None:
    tracemalloc.start()
    try:
        with saying(headers) as (url, _), pytest.raises((StorageFullError, SourceError)) as caught:
            asked(url, store)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * MIB
    assert len(str(caught.value)) < 400


def test_the_refusal_names_size_and_limit(store: PieceStore) -> None:
    said = b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/%d\r\nContent-Length: 1\r\n\r\nx" % (9 * MIB)
    with saying(said) as (url, _), pytest.raises(StorageFullError, match=r"9,437,184 .* 8,388,608"):
        asked(url, store)


def test_a_peer_refuses_it_too_and_builds_no_table(tmp_path: Path) -> None:
    said = b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/%d\r\nContent-Length: 1\r\n\r\nx" % (1 << 52)
    with saying(said) as (url, _), contextlib.closing(Swarm(tmp_path, 1)) as swarm:
        answer = swarm.peers["n0"].queries.resolve(m.Resolve(Source(url), spec_id="s.0"))
        assert answer.kind == "storage-full", answer
        assert swarm.peers["n0"].store.tasks() == []


@pytest.mark.parametrize("framing", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_without_end_fills_the_quota_at_most(framing: bytes, store: PieceStore) -> None:
    block = b"x" * MIB
    endless = b"100000\r\n" + block + b"\r\n" if framing else block
    with saying(b"HTTP/1.1 200 X\r\n" + framing + b"\r\n", endless=endless) as (url, sent):
        with pytest.raises(StorageFullError, match="quota"):
            asked(url, store)
        assert sum(sent) < 64 * MIB
    assert list((store.path / "spool").iterdir()) == []


def test_a_body_without_length_may_be_as_long_as_the_quota(store: PieceStore) -> None:
    content = b"y" * (8 * MIB)
    with ScriptedOrigin(Behaviour(content, ranges=False, length=False)) as origin:
        found = resolve(Source(origin.url), Credentials(), SETTINGS, spool=store.path / "spool", room=store)
    assert found.spooled is not None
    assert found.spooled.stat().st_size == len(content)


def test_several_bodies_without_end_share_the_quota(store: PieceStore) -> None:
    most: list[int] = []
    with saying(b"HTTP/1.1 200 X\r\n\r\n", endless=b"x" * 65536) as (url, _):

        def one() -> None:
            with contextlib.suppress(StorageFullError):
                asked(url, store)

        threads = [threading.Thread(target=one) for _ in range(6)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with contextlib.suppress(OSError):
                most.append(sum(f.stat().st_size for f in (store.path / "spool").iterdir()))
            threads[0].join(0.01)
            threads = [t for t in threads if t.is_alive()] or threads[:1]
    # Each may have been given room at the same moment as the others.
    assert max(most) <= 8 * MIB + 6 * 256 * 1024


def test_a_peer_leaves_nothing_of_a_body_that_did_not_fit(tmp_path: Path) -> None:
    settings = Settings(storage=StorageSettings(quota=4 * MIB))
    with (
        saying(b"HTTP/1.1 200 X\r\n\r\n", endless=b"x" * MIB) as (url, _),
        contextlib.closing(Swarm(tmp_path, 1, settings=settings)) as swarm,
    ):
        answer = swarm.peers["n0"].queries.resolve(m.Resolve(Source(url), spec_id="s.0"))
        assert answer.kind == "storage-full", answer
        assert list((swarm.peers["n0"].store.path / "spool").iterdir()) == []


def _ranged(url: str, store: PieceStore) -> None:
    resolve(Source(url), Credentials(), SETTINGS, small_limit=100, room=store)


@pytest.mark.parametrize("ask", [asked, _ranged])
@pytest.mark.parametrize(
    "headers",
    [
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/50\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/50\r\n\r\nx",
        b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-0/50\r\nContent-Length: 999999999999\r\n\r\nx",
    ],
)
def test_an_answer_that_goes_on_after_its_range_is_hung_up_on(
    headers: bytes, ask: Callable[[str, PieceStore], None], store: PieceStore
) -> None:
    endless = b"100000\r\n" + b"x" * MIB + b"\r\n" if b"chunked" in headers else b"x" * MIB
    with saying(headers, endless=endless) as (url, sent):
        with contextlib.suppress(SourceError):
            ask(url, store)
        assert sum(sent) < 64 * MIB


@pytest.mark.parametrize("policy", [None, UrlPolicy(allow_private=True)])
@pytest.mark.parametrize(
    ("status", "error"), [("302 X\r\nLocation: /again", SourceError), ("500 X", SourceUnreachableError)]
)
def test_an_answer_without_end_before_another_request_is_hung_up_on(
    status: str, error: type[SourceError], policy: UrlPolicy | None
) -> None:
    again = SETTINGS.model_copy(update={"retries": 2})
    head = f"HTTP/1.1 {status}\r\n\r\n".encode()
    with saying(head, endless=b"x" * 65536) as (url, sent):
        with pytest.raises(error):
            resolve(Source(url), Credentials(), again, policy=policy)
        assert sum(sent) < 256 * MIB


@pytest.mark.parametrize(
    ("said", "most"),
    [(b"9" * 400, 86400), (b"\xc2\xb2", None), (b"Fri, 31 Dec 9999 23:59:59 GMT", 86400), (b"7", 7)],
)
def test_patience_has_an_end(said: bytes, most: float | None, store: PieceStore) -> None:
    answer = b"HTTP/1.1 429 X\r\nRetry-After: " + said + b"\r\nContent-Length: 0\r\n\r\n"
    with saying(answer) as (url, _), pytest.raises(SourceBusyError) as caught:
        asked(url, store)
    assert caught.value.retry_after == most


def test_too_many_files_of_a_local_folder_are_refused(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"f{number}").touch()
    few = SETTINGS.model_copy(update={"max_entries": 20})
    with pytest.raises(SourceUnsupportedError, match="max_entries"):
        resolve(Source(f"file://{tmp_path}"), Credentials(), few)
