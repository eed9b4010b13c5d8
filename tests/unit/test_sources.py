"""Origins as they are: honest ones, poor ones and liars. Real sockets, no cluster."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pycurl
import pytest
from fsspec.asyn import AsyncFileSystem

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnreachableError,
    SourceUnsupportedError,
    UnsafePathError,
)
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import Reader, Resolution, Stop, open_reader, resolve
from dragonfly_ray.sources.index_page import parse
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.waiting import HANG, until

SETTINGS = OriginSettings(answer_timeout=0.5, read_timeout=0.5, connect_timeout=1.0)
CONTENT = os.urandom(3 * 1024 * 1024 + 17)


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


def look(
    url: str, spool: Path | None = None, small: int = 0, headers: dict[str, str] | None = None
) -> Resolution:
    return resolve(Source(url), Credentials({}, headers or {}), SETTINGS, small_limit=small, spool=spool)


def read_all(url: str, manifest: Manifest, first: int = 0, last: int | None = None) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, SETTINGS)
    seen: list[int] = []
    data = bytearray()
    try:
        pieces = reader.read(
            first,
            len(table) if last is None else last,
            lambda i: memoryview(bytearray(table[i].length)),
            seen.append,
        )
        for _, view in pieces:
            data += view
    finally:
        reader.close()
    assert sum(seen) == len(data)
    return bytes(data)


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
    with pytest.raises(SourceUnreachableError, match="silent"):
        read_all(origin.url, manifest)


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


# --- listings -----------------------------------------------------------------------------------

NGINX = """<html><head><title>Index of /d/</title></head><body><h1>Index of /d/</h1><hr><pre><a href="../">../</a>
<a href="sub/">sub/</a>          24-Nov-2026 12:00       -
<a href="a%20b.bin">a b.bin</a>   24-Nov-2026 12:00     1234
<a href="c..%3E">c..&gt;</a>      24-Nov-2026 12:00      5
</pre><hr></body></html>"""
PYTHON = """<title>Directory listing for /</title><h1>Directory listing for /</h1><ul>
<li><a href="a.txt">a.txt</a></li><li><a href="sub/">sub/</a></li>
<li><a href="http://evil/x">x</a></li><li><a href="/etc/passwd">p</a></li><li><a href="%2e%2e/y">y</a></li>
<li><a href="?C=N;O=D">Name</a></li></ul>"""


def test_nginx_listing() -> None:
    found = {each.name: each for each in parse(NGINX) or []}
    assert set(found) == {"sub", "a b.bin", "c..>"}
    assert (found["a b.bin"].size, found["sub"].folder) == (1234, True)


def test_links_that_lead_elsewhere_are_no_entries() -> None:
    assert {each.name for each in parse(PYTHON) or []} == {"a.txt", "sub"}


def test_nginx_json_listing() -> None:
    page = '[{"name": "a", "type": "file", "mtime": "m", "size": 3}, {"name": "d", "type": "directory"}]'
    assert [(e.name, e.folder, e.size) for e in parse(page) or []] == [("a", False, 3), ("d", True, None)]


@pytest.fixture
def folder() -> Iterator[FolderOrigin]:
    files = {f"f{i:03}": os.urandom(i * 100) for i in range(40)} | {"large": CONTENT}
    with FolderOrigin(files) as made:
        yield made


def test_files_without_a_listed_size_are_looked_at_once(folder: FolderOrigin) -> None:
    manifest = look(folder.url).manifest
    assert {e.path: e.size for e in manifest.entries} == {n: len(d) for n, d in folder.files.items()}
    assert folder.count("HEAD") == dict.fromkeys(folder.files, 1)
    assert folder.count("GET") == {"": 1, "large": 1}, "whether ranges are answered is tried once"
    assert read_all(folder.url, manifest) == b"".join(folder.files[n] for n in sorted(folder.files))


@pytest.mark.parametrize("status", [405, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_refuses_head_is_asked_for_the_first_byte(
    folder: FolderOrigin, status: int, ranges: bool
) -> None:
    folder.head_status, folder.ranges = status, ranges
    manifest = look(folder.url).manifest
    assert manifest.ranges == ranges
    assert {e.path: e.size for e in manifest.entries} == {n: len(d) for n, d in folder.files.items()}


def test_what_is_left_out_is_not_looked_at(folder: FolderOrigin) -> None:
    resolve(Source(folder.url, include=("f00*",)), Credentials(), SETTINGS)
    assert folder.count("HEAD") == {f"f{i:03}": 1 for i in range(10)}


@pytest.mark.parametrize(
    ("status", "error"), [(404, SourceNotFoundError), (403, SourceAuthError), (429, SourceBusyError)]
)
def test_a_refused_look_ends_it_at_once(folder: FolderOrigin, status: int, error: type[SourceError]) -> None:
    folder.files = {f"f{i:03}": b"x" for i in range(1000)}
    asked = threading.Event()

    def refuse(method: str, path: str) -> int:
        if path == "f010":
            asked.set()
            return status
        if path > f"f{SETTINGS.small_connections:03}":
            asked.wait(HANG)  # some threads here are slower than others
        return 0

    folder.before = refuse
    with pytest.raises(error):
        look(folder.url)
    assert len(folder.asked) < 200


def test_a_file_of_one_long_piece_needs_no_more_than_the_listing(tmp_path: Path) -> None:
    """Pieces are twice as long as usual where files are nearly as long as they."""
    sizes = {f"f{i:03}": 500_000 for i in range(600)} | {"one-piece": 800_000, "two-pieces": 1_200_000}
    with Nginx(tmp_path / "www", tmp_path / "nginx") as served:
        (served.root / "d").mkdir()
        for name, size in sizes.items():
            with (served.root / "d" / name).open("wb") as file:
                file.truncate(size)
        manifest = look(f"{served.url}/d/").manifest
        until(lambda: len(served.hits()) >= 2)  # it is logged once it was sent
        assert [hit.path for hit in served.hits() if hit.method == "HEAD"] == ["/d/two-pieces"]
    assert {e.path: e.size for e in manifest.entries} == sizes
    assert manifest.leaf == 1 << 20


def test_only_files_of_several_pieces_need_more_than_the_listing(origin: ScriptedOrigin) -> None:
    """nginx tells sizes; a range is compared with the file's own version."""
    listing = NGINX.replace("1234", str(len(CONTENT)))
    answer = origin.answer
    methods: list[tuple[str, str]] = []

    def serve(handler: Any) -> None:
        methods.append((handler.command, handler.path))
        if not handler.path.endswith("/"):
            answer(handler)
            return
        handler.send_response(200)
        page = listing if handler.path == "/d/" else NGINX.partition("<a href=")[0]
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page.encode())

    origin.answer = serve  # type: ignore[method-assign]
    url = origin.url.replace("content.bin", "d/")
    manifest = look(url).manifest
    assert [how for how, path in methods if not path.endswith("/")] == ["HEAD"]
    assert {e.path: e.version for e in manifest.entries if e.kind == "file"} == {
        "a b.bin": '"v1"', "c..>": "listed:24-Nov-2026 12:00"}  # fmt: skip
    origin.behaviour.etag = '"v2"'
    with pytest.raises(SourceChangedError):
        read_all(url, manifest, 1, 2)


def test_a_version_of_a_replica_is_asked_for_once_more(origin: ScriptedOrigin) -> None:
    manifest = look(origin.url).manifest

    def other(number: int) -> int:
        origin.behaviour.etag = '"v2"' if number == 1 else '"v1"'
        return 0

    origin.behaviour.before = other
    assert read_all(origin.url, manifest) == CONTENT
    assert len(origin.requests) == 3


# --- local files --------------------------------------------------------------------------------


def test_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1234")
    (tmp_path / "l").symlink_to("b/x")
    found = look(f"file://{tmp_path}").manifest
    assert [(e.path, e.kind, e.size) for e in found.entries] == [
        ("b", "dir", 0), ("b/x", "file", 4), ("empty", "dir", 0), ("l", "symlink", 0)]  # fmt: skip
    assert read_all(f"file://{tmp_path}", found) == b"1234"


def test_a_symlink_out_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("/etc/passwd")
    with pytest.raises(UnsafePathError, match="/l: a symlink"):
        look(f"file://{tmp_path}")


def test_a_local_file_that_changes_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(CONTENT)
    manifest = look(f"file://{file}").manifest
    file.write_bytes(CONTENT[::-1])
    with pytest.raises(SourceChangedError):
        read_all(f"file://{file}", manifest)


def test_include_and_exclude(tmp_path: Path) -> None:
    for name in ("a.bin", "b.txt", "c.bin"):
        (tmp_path / name).write_bytes(b"x")
    source = Source(f"file://{tmp_path}", include=("*.bin",), exclude=("c*",))
    found = resolve(source, Credentials(), SETTINGS)
    assert [e.path for e in found.manifest.entries] == ["a.bin"]
    with pytest.raises(SourceNotFoundError):
        resolve(Source(f"file://{tmp_path}", include=("*.nope",)), Credentials(), SETTINGS)


def test_missing_things_are_named() -> None:
    with pytest.raises(SourceNotFoundError, match="/no/such"):
        look("file:///no/such")
    with pytest.raises(SourceUnsupportedError, match="nosuch"):
        look("nosuch://x/y")


# --- many small files -----------------------------------------------------------------------------

SMALL = {f"f{i:03}": os.urandom(100 + i) for i in range(120)}


def small_folder(server: FolderOrigin) -> Manifest:
    manifest = look(server.url).manifest
    server.asked.clear()
    return manifest


def test_many_small_files_are_one_request_each_over_few_connections() -> None:
    with FolderOrigin(SMALL) as server:
        manifest = small_folder(server)
        before = server.most_open = len(server.open)
        assert read_all(server.url, manifest) == b"".join(SMALL.values())
        assert sorted(path for _, path, _ in server.asked) == sorted(SMALL)
        assert server.most_open <= before + SETTINGS.small_connections


def test_one_of_many_that_fails_once_is_asked_for_again_with_care() -> None:
    failed: list[str] = []

    def once(method: str, path: str) -> int:
        if path == "f007" and not failed:
            failed.append(path)
            return 500
        return 0

    with FolderOrigin(SMALL) as server:
        manifest = small_folder(server)
        server.before = once
        assert read_all(server.url, manifest) == b"".join(SMALL.values())
        assert len(server.asked) == len(SMALL) + 1


def test_one_of_many_that_has_another_length_is_noticed() -> None:
    with FolderOrigin(dict(SMALL)) as server:
        manifest = small_folder(server)
        server.files["f005"] = b"something else, and longer"
        with pytest.raises(SourceChangedError):
            read_all(server.url, manifest)


def test_a_busy_answer_to_one_of_many_ends_all_of_them() -> None:
    told: list[int] = []

    def busy(method: str, path: str) -> int:
        told.append(1)
        return 429 if len(told) == 10 else 0

    with FolderOrigin(SMALL) as server:
        manifest = small_folder(server)
        server.before = busy
        with pytest.raises(SourceBusyError):
            read_all(server.url, manifest)
        # Those that were under way come in; nothing is asked after the answer.
        assert len(server.asked) <= 10 + SETTINGS.small_connections


# --- looks and reads that are not wanted any more ------------------------------------------------


def test_a_slow_look_ends_when_it_is_stopped(origin: ScriptedOrigin, tmp_path: Path) -> None:
    """An answer of unknown length, of which nothing more comes."""
    origin.behaviour.content = os.urandom(1 << 20)
    origin.behaviour.ranges = origin.behaviour.length = False
    origin.behaviour.stall = 1000
    stop, ended = Stop(), threading.Event()
    patient = OriginSettings(answer_timeout=60.0, read_timeout=60.0, retries=5)

    def resolve_it() -> None:
        with pytest.raises(SourceError):
            resolve(Source(origin.url), Credentials(), patient, spool=tmp_path, stop=stop)
        ended.set()

    asked = threading.Event()

    def before(number: int) -> int:
        asked.set()
        return 0

    origin.behaviour.before = before
    thread = threading.Thread(target=resolve_it)
    thread.start()
    assert asked.wait(20)
    stop.stop()
    assert ended.wait(20)
    thread.join()
    assert len(origin.requests) == 1, "it was not tried again"
    assert not list(tmp_path.iterdir())


def test_after_a_stop_nothing_is_asked(origin: ScriptedOrigin) -> None:
    stop = Stop()
    stop.stop()
    with pytest.raises(SourceError, match="not wanted"):
        resolve(Source(origin.url), Credentials(), OriginSettings(), stop=stop)
    assert origin.requests == []


class Waiting(AsyncFileSystem):  # type: ignore[misc]
    """A filesystem on asyncio whose bytes never come."""

    protocol = "waiting"
    asked = threading.Event()

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": 100, "type": "file", "ETag": "v1"}

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        self.asked.set()
        await asyncio.Event().wait()
        return b""


def test_a_read_of_a_filesystem_on_asyncio_ends_when_it_is_stopped() -> None:
    fsspec.register_implementation("waiting", Waiting, clobber=True)
    source, credentials = Source("waiting://x/f"), Credentials()
    manifest = resolve(source, credentials, SETTINGS).manifest
    reader = open_reader(source, credentials, manifest, PieceTable.of(manifest), SETTINGS)
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(SourceError, match="not wanted"):
            list(reader.read(0, 1, lambda index: memoryview(bytearray(100)), lambda count: None))
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert Waiting.asked.wait(20)
    reader.abort()
    assert ended.wait(20)
    thread.join()
    reader.close()
