"""HTTP as it is met: beyond 4 GiB, IPv6 literals, redirects with secrets, files whose connections break. Real servers."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceError, SourceForbiddenError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.sources import open_reader, resolve
from tests.nginx import Nginx
from tests.origins import FolderOrigin, reset_connection

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0)
GIB = 1 << 30


def look(url: str, credentials: Credentials | None = None, policy: UrlPolicy | None = None) -> Manifest:
    return resolve(Source(url), credentials or Credentials(), SETTINGS, policy=policy).manifest


def read(
    url: str,
    manifest: Manifest,
    first: int = 0,
    last: int | None = None,
    credentials: Credentials | None = None,
    policy: UrlPolicy | None = None,
) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), credentials or Credentials(), manifest, table, SETTINGS, policy)
    try:
        pieces = reader.read(
            first,
            len(table) if last is None else last,
            lambda i: memoryview(bytearray(table[i].length)),
            lambda count: None,
        )
        return b"".join(bytes(view) for _, view in pieces)
    finally:
        reader.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    made: list[Nginx] = []

    def start(**options: Any) -> Nginx:
        tmp_path.chmod(0o755)
        server = Nginx(tmp_path / f"www{len(made)}", tmp_path / f"nginx{len(made)}", real=True, **options)
        (server.root / "d").mkdir()
        made.append(server)
        server.start()
        return server

    yield start
    for server in made:
        server.stop()


# --- beyond 4 GiB -------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [False, True], ids=["a file", "a folder"])
@pytest.mark.parametrize(
    "extra", ["", "autoindex_exact_size off;", "max_ranges 0;"], ids=["sizes", "looks", "no ranges"]
)
def test_beyond_4_gib(serve: Callable[..., Nginx], extra: str, folder: bool) -> None:
    """Sparse. Where there are no ranges its length alone is looked at."""
    server = serve(extra=extra)
    marks = {0: b"first", (1 << 32) - 2: b"across", 5 * GIB + 7: b"last"}
    with (server.root / "d" / "large").open("wb") as file:
        for at, mark in marks.items():
            file.seek(at)
            file.write(mark)
    url = f"{server.url}/d/{'' if folder else 'large'}"
    manifest = look(url)
    assert manifest.size == 5 * GIB + 11
    if extra == "max_ranges 0;":
        assert not manifest.ranges
        return
    table = PieceTable.of(manifest)
    for at, mark in marks.items():
        pieces = table.covering(at, len(mark))
        data = read(url, manifest, pieces.start, pieces.stop)
        start = at - table.cuts[pieces.start]
        assert data[start : start + len(mark)] == mark
        assert data.strip(b"\0") == mark


# --- IPv6 ---------------------------------------------------------------------------------------


def test_ipv6_literals(serve: Callable[..., Nginx]) -> None:
    server = serve(address="[::1]", extra="location = /old { return 302 http://[::1]:$server_port/d/a; }")
    files = {"a": os.urandom(700_000), "b": b"small"}
    for name, data in files.items():
        (server.root / "d" / name).write_bytes(data)
    policy = UrlPolicy(networks=("::1/128",))
    for allowed in (None, policy):
        for path, data in (("d/", b"".join(files.values())), ("d/a", files["a"]), ("old", files["a"])):
            url = f"{server.url}/{path}"
            manifest = look(url, policy=allowed)
            assert read(url, manifest, policy=allowed) == data
    with pytest.raises(SourceForbiddenError):
        look(f"{server.url}/d/a", policy=UrlPolicy())


@pytest.mark.parametrize(
    "other",
    ["http://[0:0:0:0:0:0:0:1]/a", "HTTP://[::1]:80/a", "http://user:word@[::1]/a", "http://[::1]/a#x"],
)
def test_spellings_of_an_ipv6_url(other: str) -> None:
    one = source_of("http://[::1]/a", Credentials())
    if "0:0" in other:
        assert source_of(other, Credentials()).id != one.id, "never one by guessing"
    else:
        assert source_of(other, Credentials()).id == one.id


# --- redirects ----------------------------------------------------------------------------------

SECRETS = {"X-Secret": "hunter1", "Authorization": "Bearer hunter2", "Cookie": "s=hunter3"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["another host", "another port"])
def test_what_opens_a_folder_stays_behind_where_its_files_are_elsewhere(host: str) -> None:
    """By every way to a file: a look, many at once, a range, one with care."""
    files = {f"f{i:02}": os.urandom(100 + i) for i in range(30)} | {"large": os.urandom(3 << 20)}
    credentials = Credentials({}, SECRETS)
    with FolderOrigin(files) as elsewhere, FolderOrigin(files) as folder:
        port = elsewhere.url.rstrip("/").rpartition(":")[2]
        seen: list[tuple[str, str]] = []
        kept = [0]
        answer, other = folder.answer, elsewhere.answer

        def here(handler: Any) -> None:
            kept[0] += handler.headers.get("X-Secret") == "hunter1"
            if handler.path == "/":
                answer(handler)
                return
            handler.send_response(302)
            handler.send_header("Location", f"http://{host}:{port}{handler.path}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        def there(handler: Any) -> None:
            seen.extend((handler.command, value) for value in handler.headers.values() if "hunter" in value)
            other(handler)

        folder.answer, elsewhere.answer = here, there  # type: ignore[method-assign]
        manifest = look(folder.url, credentials)
        assert read(folder.url, manifest, credentials=credentials) == b"".join(
            files[n] for n in sorted(files)
        )
        assert read(folder.url, manifest, len(PieceTable.of(manifest)) - 1, credentials=credentials)
        assert kept[0] > len(files), "they open the folder"
        assert elsewhere.asked
        assert seen == []


def test_no_error_after_a_redirect_tells_a_secret(serve: Callable[..., Nginx]) -> None:
    server = serve(extra="location /d/ { return 302 /gone?sig=hunter4; }")
    with pytest.raises(OSError, match="404") as caught:
        look(f"{server.url}/d/a?token=hunter5", Credentials({}, SECRETS))
    assert "hunter" not in f"{caught.value!r} {caught.value}"


# --- broken connections -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before the answer", "within it"])
def test_every_file_of_a_folder_comes_though_its_first_answer_is_reset(where: str) -> None:
    files = {f"f{i:02}": os.urandom(50_000 + i) for i in range(40)} | {"large": os.urandom(3 << 20)}
    with FolderOrigin(files) as folder:
        asked: Counter[tuple[str, str]] = Counter()
        answer, send = folder.answer, folder._send

        def first(handler: Any) -> bool:
            with folder.lock:
                asked[handler.command, handler.path] += 1
                return asked[handler.command, handler.path] == 1

        def early(handler: Any) -> None:
            if first(handler):
                reset_connection(handler)
            else:
                answer(handler)

        def late(handler: Any, status: int, data: bytes, headers: dict[str, str]) -> None:
            if first(handler):
                handler.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    handler.send_header(name, value)
                handler.end_headers()
                handler.wfile.write(b"" if handler.command == "HEAD" else data[:100])
                reset_connection(handler)
            else:
                send(handler, status, data, headers)

        if where == "before the answer":
            folder.answer = early  # type: ignore[method-assign]
        else:
            folder._send = late  # type: ignore[method-assign]
            asked["GET", "/"] = 1  # a listing that is cut is an error of its own
        manifest = look(folder.url)
        assert {e.path: e.size for e in manifest.entries} == {n: len(d) for n, d in files.items()}
        if where == "within it":
            with contextlib.suppress(SourceError):  # peers go on from the pieces that a broken stream brought
                read(folder.url, manifest)
        assert read(folder.url, manifest) == b"".join(files[name] for name in sorted(files))
