"""Folders that HTTP servers list."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.sources import resolve
from dragonfly_ray.sources.index_page import parse
from tests.nginx import Nginx
from tests.origins import FolderOrigin, ScriptedOrigin
from tests.reading import CONTENT, SETTINGS, look, read_all
from tests.waiting import HANG, until

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
