"""The wait for an answer to begin, and a stall within one, are two things."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceError, SourceUnreachableError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import Stop, open_reader, resolve
from dragonfly_ray.sources.http_connections import Unanswered, watching
from dragonfly_ray.sources.proxies import ProxyingManager, directly
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.waiting import HANG, until

CONTENT = os.urandom(700_000)
SMALL = {f"f{number:03}": os.urandom(3000) for number in range(30)}
SLOW = 1.5
"""Seconds before every answer."""
THINKS = OriginSettings(answer_timeout=20 * SLOW, read_timeout=SLOW / 1.5, retries=0)
"""Bears a slow answer, and no stall of that length."""
HASTY = OriginSettings(answer_timeout=SLOW / 4, read_timeout=20 * SLOW, retries=2)
"""The other way round."""


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT, hold=SLOW)) as made:
        yield made


def read(url: str, settings: OriginSettings, manifest: Manifest) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, settings)
    data = bytearray(table.size)
    try:
        for index, view in reader.read(
            0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda _: None
        ):
            data[table[index].offset : table[index].offset + len(view)] = view
    finally:
        reader.close()
    return bytes(data)


def test_a_file_whose_every_answer_begins_late_comes(origin: ScriptedOrigin) -> None:
    found = resolve(Source(origin.url), Credentials(), THINKS).manifest
    assert read(origin.url, THINKS, found) == CONTENT
    assert len(origin.requests) == 2, "nothing was asked for again"


def test_a_folder_whose_every_answer_begins_late_comes() -> None:
    """The listing, a HEAD for each file, and many small files at once."""
    with FolderOrigin(dict(SMALL)) as folder:
        late = threading.Event()

        def before(method: str, path: str) -> int:
            late.wait(SLOW)
            return 0

        folder.before = before
        found = resolve(Source(folder.url), Credentials(), THINKS).manifest
        assert read(folder.url, THINKS, found) == b"".join(SMALL[name] for name in sorted(SMALL))
        assert set(folder.count("GET").values()) == set(folder.count("HEAD").values()) == {1}


def test_a_body_that_begins_late_is_an_answer_that_begins_late(origin: ScriptedOrigin) -> None:
    """The headers come at once, as from a gateway that asks others."""
    found = resolve(Source(origin.url), Credentials(), THINKS).manifest
    origin.behaviour.hold, origin.behaviour.hold_body = 0.0, SLOW
    assert read(origin.url, THINKS, found) == CONTENT


@pytest.mark.parametrize("small", [False, True])
def test_a_stall_within_an_answer_is_not_borne_for_that(small: bool) -> None:
    size = 3000 if small else 700_000
    files = {f"f{number}": os.urandom(size) for number in range(3)}
    stalls = OriginSettings(answer_timeout=3600.0, read_timeout=0.2, retries=0)
    with FolderOrigin(files) as folder:
        found = resolve(Source(folder.url), Credentials(), OriginSettings()).manifest
        folder.stall = size // 2
        with pytest.raises(SourceError):
            read(folder.url, stalls, found)


def test_an_answer_that_does_not_begin_in_time_is_waited_for_once(origin: ScriptedOrigin) -> None:
    """Whoever gives up asks no second time by itself: the cluster decides who asks again, and when."""
    with pytest.raises(SourceUnreachableError, match="timed out"):
        resolve(Source(origin.url), Credentials(), HASTY)
    assert len(origin.requests) == 1


def test_many_small_files_that_are_not_answered_are_given_up() -> None:
    with FolderOrigin(dict(SMALL)) as folder:
        found = resolve(Source(folder.url), Credentials(), OriginSettings()).manifest
        ended = threading.Event()

        def before(method: str, path: str) -> int:
            ended.wait(60)
            return 0

        folder.before = before
        with pytest.raises(SourceUnreachableError):
            read(folder.url, HASTY, found)
        ended.set()


def test_the_wait_for_an_answer_ends_when_it_is_stopped(origin: ScriptedOrigin) -> None:
    origin.behaviour.hold = 600.0
    stop, failed = Stop(), list[SourceError]()

    def resolve_it() -> None:
        with pytest.raises(SourceError) as error:
            resolve(Source(origin.url), Credentials(), OriginSettings(answer_timeout=600.0), stop=stop)
        failed.append(error.value)

    thread = threading.Thread(target=resolve_it)
    thread.start()
    until(lambda: origin.active)
    stop.stop()
    thread.join(HANG)
    assert "read cancelled" in str(failed[0])
    assert len(origin.requests) == 1


def test_a_host_that_is_not_there_any_more_is_noticed_by_its_silence_to_tcp(origin: ScriptedOrigin) -> None:
    """However long an answer may take. The kernel does it; here, that it is told to."""
    origin.behaviour.hold = 0.0
    pool = ProxyingManager(Unanswered(), directly, socket_options=watching(7.0))
    response = pool.request("GET", origin.url, preload_content=False)
    sock = response.dragonfly_socket  # type: ignore[attr-defined]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    response.close()
