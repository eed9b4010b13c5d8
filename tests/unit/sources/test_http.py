"""HTTP origins as they are: honest ones, poor ones and liars. Real sockets."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pycurl
import pytest

from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnreachableError,
)
from dragonfly_ray.model import Credentials, PieceTable, Source
from dragonfly_ray.sources import Reader, open_reader
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.reading import CONTENT, SETTINGS, look, read_all


def test_a_file_is_one_small_question_and_one_request(origin: ScriptedOrigin) -> None:
    found = look(origin.url)
    assert (found.manifest.size, found.manifest.ranges) == (len(CONTENT), True)
    assert read_all(origin.url, found.manifest) == CONTENT
    assert [asked for _, _, asked in origin.requests] == ["bytes=0-0", ""]


@pytest.mark.parametrize("end", [Reader.close, Reader.rest])
def test_a_reader_that_is_closed_or_rests_has_no_connections_though_an_error_is_remembered(
    origin: ScriptedOrigin, end: Callable[[Reader], None]
) -> None:
    manifest = look(origin.url).manifest
    table = PieceTable.of(manifest)
    reader = open_reader(Source(origin.url), Credentials(), manifest, table, SETTINGS)
    assert list(reader.read(0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda n: None))
    origin.behaviour.truncate = 10
    origin.behaviour.etag = '"other"'
    remembered: list[Exception] = []
    with pytest.raises(SourceChangedError) as caught:
        list(reader.read(0, 1, lambda i: memoryview(bytearray(table[i].length)), lambda n: None))
    remembered.append(caught.value)  # its traceback holds the answer, and that the pool
    origin.behaviour = Behaviour(CONTENT)
    assert list(reader.read(0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda n: None))
    assert connections_to(origin.port)
    end(reader)
    assert connections_to(origin.port) == []
    reader.close()


def connections_to(port: int) -> list[str]:
    """Of this process, as a client."""
    found = psutil.Process().net_connections("tcp")
    open_ones = (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)
    return [c.status for c in found if c.status in open_ones and c.raddr.port == port]


def test_the_middle_is_read_from_the_middle(origin: ScriptedOrigin) -> None:
    manifest = look(origin.url).manifest
    piece = PieceTable.of(manifest)[3]
    assert read_all(origin.url, manifest, 3, 5) == CONTENT[piece.offset : piece.offset + 2 * piece.length]


def test_small_content_comes_along(origin: ScriptedOrigin) -> None:
    assert look(origin.url, small=len(CONTENT)).content == CONTENT


def test_without_ranges_everything_is_one_stream(origin: ScriptedOrigin) -> None:
    origin.behaviour.ranges = False
    manifest = look(origin.url).manifest
    assert not manifest.ranges
    assert read_all(origin.url, manifest) == CONTENT
    assert read_all(origin.url, manifest, 5) == CONTENT[PieceTable.of(manifest)[5].offset :]


def test_without_a_length_it_is_streamed_once_to_disk(origin: ScriptedOrigin, tmp_path: Path) -> None:
    origin.behaviour.ranges = origin.behaviour.length = False
    found = look(origin.url, spool=tmp_path)
    assert found.spooled is not None
    assert found.spooled.read_bytes() == CONTENT
    assert found.manifest.size == len(CONTENT)
    assert len(origin.requests) == 1


def test_an_empty_file(origin: ScriptedOrigin) -> None:
    origin.behaviour.content = b""
    assert look(origin.url).manifest.size == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, SourceAuthError), (403, SourceAuthError), (404, SourceNotFoundError), (410, SourceNotFoundError),
     (429, SourceBusyError), (503, SourceBusyError), (500, SourceUnreachableError), (418, SourceError)],
)  # fmt: skip
def test_refusals_are_typed_and_hide_secrets(
    origin: ScriptedOrigin, status: int, error: type[SourceError]
) -> None:
    origin.behaviour.status = status
    url = origin.url.replace("http://", "http://user:hunter2@") + "?token=hunter3"
    with pytest.raises(error) as caught:
        look(url, headers={"X-Secret": "hunter4"})
    assert "hunter" not in f"{caught.value!r}{caught.value}"
    assert "\n" not in str(caught.value)


def test_patience_is_passed_on_and_never_tried_again_here(origin: ScriptedOrigin) -> None:
    origin.behaviour.status, origin.behaviour.headers = 429, {"Retry-After": "7"}
    with pytest.raises(SourceBusyError) as caught:
        look(origin.url)
    assert caught.value.retry_after == 7.0
    assert len(origin.requests) == 1


def test_a_server_error_is_tried_again(origin: ScriptedOrigin) -> None:
    origin.behaviour.before = lambda number: 502 if number < 2 else 0
    assert look(origin.url).manifest.size == len(CONTENT)


@pytest.mark.parametrize("ranges", [True, False])
def test_changed_content_is_noticed(origin: ScriptedOrigin, ranges: bool) -> None:
    origin.behaviour.ranges = ranges
    manifest = look(origin.url).manifest
    origin.behaviour.etag = '"v2"'
    with pytest.raises(SourceChangedError):
        read_all(origin.url, manifest)


def test_changed_length_is_noticed_even_without_a_version(origin: ScriptedOrigin) -> None:
    origin.behaviour.etag = ""
    manifest = look(origin.url).manifest
    origin.behaviour.content = CONTENT[:-5]
    with pytest.raises(SourceChangedError):
        read_all(origin.url, manifest, 0, 2)


def test_a_truncated_body_is_noticed(origin: ScriptedOrigin) -> None:
    manifest = look(origin.url).manifest
    origin.behaviour.truncate = 100_000
    with pytest.raises((SourceTruncatedError, SourceUnreachableError)):
        read_all(origin.url, manifest)


def test_a_wrong_length_is_noticed(origin: ScriptedOrigin) -> None:
    manifest = look(origin.url).manifest
    origin.behaviour.claim = len(CONTENT) + 10
    with pytest.raises(SourceError):
        read_all(origin.url, manifest)


def test_a_stall_ends_in_an_error(origin: ScriptedOrigin) -> None:
    manifest = look(origin.url).manifest
    origin.behaviour.stall = 300_000
    with pytest.raises(SourceUnreachableError, match="timed out"):
        read_all(origin.url, manifest, settings=SETTINGS.model_copy(update={"read_timeout": 0.5}))


def test_nobody_listens(origin: ScriptedOrigin) -> None:
    with pytest.raises(SourceUnreachableError):
        look("http://127.0.0.1:9/x")


def test_a_redirect_is_followed_and_secrets_stay_behind(origin: ScriptedOrigin) -> None:
    seen: list[str | None] = []
    with ScriptedOrigin(Behaviour(CONTENT)) as elsewhere:
        answer = elsewhere.answer

        def spy(handler: object) -> None:
            seen.append(handler.headers.get("X-Secret"))  # type: ignore[attr-defined]
            answer(handler)  # type: ignore[arg-type]

        elsewhere.answer = spy  # type: ignore[method-assign]
        origin.behaviour.redirect = f"http://localhost:{elsewhere.port}/moved/x"
        found = look(origin.url, headers={"X-Secret": "s"})
        assert found.manifest.size == len(CONTENT)
        assert seen == [None]


def curled(url: str) -> None:
    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, url)
    handle.setopt(pycurl.PROXY, "")
    handle.setopt(pycurl.WRITEFUNCTION, len)
    handle.perform()
    handle.close()


@pytest.mark.parametrize(
    "userinfo",
    ["user:pa%24s", "us%40er:p%3Aa%2Fs%25", "user", "user:", ":word", "%C3%BCser:w%C3%B6rd", "a:b:c"],
)
def test_user_and_password_in_a_url_are_sent_as_curl_sends_them(
    origin: ScriptedOrigin, userinfo: str
) -> None:
    url = origin.url.replace("http://", f"http://{userinfo}@")
    curled(url)
    sent = origin.headers[-1]["authorization"]
    origin.behaviour.demand = {"Authorization": sent}
    found = look(url)
    assert read_all(url, found.manifest) == CONTENT
    assert sent.removeprefix("Basic ") not in repr(found)


def test_user_and_password_in_a_url_open_every_file_of_a_folder(folder: FolderOrigin) -> None:
    seen: list[str] = []
    answer = folder.answer

    def spy(handler: Any) -> None:
        seen.append(handler.headers.get("Authorization", ""))
        answer(handler)

    folder.answer = spy  # type: ignore[method-assign]
    url = folder.url.replace("http://", "http://user:pa%24s@")
    manifest = look(url).manifest
    assert read_all(url, manifest) == b"".join(folder.files[n] for n in sorted(folder.files))
    assert set(seen) == {"Basic " + base64.b64encode(b"user:pa$s").decode()}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_user_and_password_in_a_url_stay_behind_at_a_redirect_elsewhere(
    origin: ScriptedOrigin, host: str
) -> None:
    with ScriptedOrigin(Behaviour(CONTENT)) as elsewhere:
        origin.behaviour.redirect = f"http://{host}:{elsewhere.port}/moved/x"
        look(origin.url.replace("http://", "http://user:hunter2@"))
        assert "authorization" in origin.headers[-1]
        assert not any("authorization" in sent for sent in elsewhere.headers)


def test_redirects_in_a_circle_end(origin: ScriptedOrigin) -> None:
    origin.behaviour.redirect = origin.url
    with pytest.raises(SourceError):
        look(origin.url)


def test_a_page_that_is_no_listing_is_refused(origin: ScriptedOrigin) -> None:
    origin.behaviour.content, origin.behaviour.headers = b"<html><h1>hello</h1></html>", {}
    found = look(origin.url.replace("content.bin", ""))
    assert not found.manifest.directory
