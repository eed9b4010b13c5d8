"""Folders, whichever server lists them; and pages that list nothing, or without end."""

from __future__ import annotations

import html
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import hypothesis
import pytest
from hypothesis import strategies as st

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceError, SourceUnsupportedError, StorageFullError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import Boundless, open_reader, resolve
from dragonfly_ray.sources import autoindex as walk
from dragonfly_ray.sources.index_page import parse
from tests.listing_pages import HOST, SERVERS, TELL_SIZES, TREE, Template
from tests.local_server import ThreadedServer

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0)
Answer = Callable[[str], tuple[str, bytes] | None]
"""Path -> content type and body; None: not found."""


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a server, and (method, path) of what it is asked for."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append((self.command, path))
            found = answer(path)
            kind, body = found or ("text/plain", b"")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("ETag", f'"{len(body)}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

    server = ThreadedServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def tree(template: Template, top: str, files: str, host: list[str]) -> Answer:
    """`TREE` at `top`, with the contents at `files`."""

    def answer(path: str) -> tuple[str, bytes] | None:
        if path.startswith(files) and (data := TREE.get(path.removeprefix(files))) is not None:
            return "application/octet-stream", data
        if not path.startswith(top) or not path.endswith("/"):
            return None
        below = [
            (n.removeprefix(path.removeprefix(top)), d)
            for n, d in TREE.items()
            if n.startswith(path.removeprefix(top))
        ]
        own = {n: len(d) for n, d in below if "/" not in n}
        page = template(path, own, sorted({n.partition("/")[0] for n, _ in below if "/" in n}))
        return "text/html; charset=utf-8", page.replace(HOST, host[0]).encode()

    return answer


def read_all(url: str, manifest: Manifest) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, SETTINGS)
    try:
        pieces = reader.read(0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda n: None)
        return b"".join(bytes(view) for _, view in pieces)
    finally:
        reader.close()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("top", ["/pub/set one/", "/"])
def test_a_folder_is_what_its_server_lists(server: str, top: str) -> None:
    files = top
    if server == "nexus3":
        top, files = "/service/rest/repository/browse/raw/set/", "/repository/raw/set/"
    host = [""]
    with serving(tree(SERVERS[server], top, files, host)) as (address, asked):
        host[0] = address
        url = f"http://{address}{top.replace(' ', '%20')}"
        manifest = resolve(Source(url), Credentials(), SETTINGS).manifest
        assert {e.path: e.size for e in manifest.entries if e.kind == "file"} == {
            n: len(d) for n, d in TREE.items()
        }
        assert {e.path for e in manifest.entries if e.kind == "dir"} == {"sub", "sub/deeper", "with space"}
        assert read_all(url, manifest) == b"".join(TREE[n] for n in sorted(TREE))
        assert ("HEAD" in {method for method, _ in asked}) == (server not in TELL_SIZES)


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_an_empty_folder_is_empty(server: str) -> None:
    path = "/service/rest/repository/browse/raw/set/" if server == "nexus3" else "/pub/set/"
    assert parse(SERVERS[server](path, {}, []), f"http://host{path}") == []


def test_listings_in_json() -> None:
    nginx = '[{"name": "a", "type": "file", "mtime": "m", "size": 3}, {"name": "d", "type": "directory"}]'
    caddy = json.dumps(
        [{"name": "a", "size": 3, "url": "./a", "mod_time": "m", "mode": 420, "is_dir": False, "is_symlink": False},
         {"name": "d/", "size": 4096, "url": "./d/", "mod_time": "m", "mode": 2147484141, "is_dir": True, "is_symlink": False}]
    )  # fmt: skip
    for page in (nginx, caddy):
        assert [(e.name, e.folder, e.size) for e in parse(page) or []] == [("a", False, 3), ("d", True, None)]


# --- what is no listing -------------------------------------------------------------------------

NO_LISTINGS = {
    "a site": '<title>Welcome</title><h1>Welcome</h1><a href="a.html">a.html</a> <a href="/">Home</a>',
    "documentation": '<title>Index of terms</title><h1>Index of terms</h1><a href="../">Up</a> <a href="a.html">Alpha</a>',
    "a book": '<title>Contents of this book</title><a href="one.html">Chapter one</a><a href="two.html">two.html</a>',
    "an empty page": "",
    "an error": "<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>",
    "a sign-in": '<title>Sign in</title><form action="login"><a href="forgot">forgot</a></form><a href="../">Up</a>',
    "names of others": '<title>x</title><a href="../">../</a><a href="a">a</a><a href="b">something else</a>',
    "a list of nothing": '[{"title": "x"}]',
    "JSON": '{"name": "a"}',
    "broken JSON": '[{"name": "a", "type": "file"',
    "an endless comment": "<title>Index of /</title><!-- " + "x" * 200_000,
}


@pytest.mark.parametrize("page", NO_LISTINGS.values(), ids=NO_LISTINGS)
def test_a_page_that_lists_nothing_is_an_error_that_names_it(page: str) -> None:
    kind = "application/json" if page[:1] in ("[", "{") else "text/html"
    with (
        serving(lambda path: (kind, page.encode())) as (address, _),
        pytest.raises(SourceUnsupportedError, match=f"{address}/docs/"),
    ):
        resolve(Source(f"http://{address}/docs/"), Credentials(), SETTINGS)


def test_a_folder_whose_own_page_is_no_listing_is_named_and_not_left_empty() -> None:
    def answer(path: str) -> tuple[str, bytes]:
        return "text/html", (
            SERVERS["nginx"]("/", {"a": 1}, ["shop"]) if path == "/" else "<h1>Shop</h1>"
        ).encode()

    with serving(answer) as (address, _), pytest.raises(SourceUnsupportedError, match="shop/: an HTML page"):
        resolve(Source(f"http://{address}/"), Credentials(), SETTINGS)


def test_links_that_lead_elsewhere_are_no_entries() -> None:
    page = (
        '<title>Index of /d/</title><a href="../">../</a><a href="good">good</a><a href="./also">also</a>'
        '<a href="http://evil/d/x">x</a><a href="/etc/passwd">passwd</a><a href="%2e%2e/y">y</a><a href="?C=N">Name</a>'
        '<a href="javascript:x">x</a><a href="//evil/d/z">z</a><a href="sub/deep">deep</a><a href="%2Fetc">/etc</a>'
        '<a href="/d/path">path</a><a href="http://HOST/d/whole">whole</a><a href="http://[bad/d/z">z</a><a href="#top">top</a>'
    )
    found = parse(page, "http://host/d/")
    assert found is not None
    assert {each.name for each in found} == {"good", "also", "path", "whole"}


@hypothesis.given(st.text("aé7%2Fe.~+@&=()'*-", min_size=1, max_size=8), st.sampled_from(["", "/"]))
def test_a_name_alone_means_what_its_whole_address_means(name: str, end: str) -> None:
    pages = [
        f'<title>Index of /d/</title><a href="{html.escape(prefix + name + end)}">x</a>'
        for prefix in ("", "http://host/d/")
    ]
    relative, absolute = (parse(page, "http://host/d/") for page in pages)
    assert relative == absolute


def test_links_are_resolved_against_the_address_after_a_redirect() -> None:
    page = SERVERS["jetty"]("/real/", {"a": 3}, []).encode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/alias/"):
                self.send_response(302)
                self.send_header("Location", f"/real/{self.path.removeprefix('/alias/')}")
            else:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
            body = page if self.path == "/real/" else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadedServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/alias/"
        manifest = resolve(Source(url), Credentials(), SETTINGS).manifest
        assert [(e.path, e.size) for e in manifest.entries] == [("a", 3)]
    finally:
        server.shutdown()
        server.server_close()


# --- bounds -------------------------------------------------------------------------------------


class Small(Boundless):
    def capacity(self) -> int:
        return 10_000_000


@pytest.mark.parametrize("size", [-1, -(1 << 62), 1 << 63, 10**30, 1.5, "7", True])
def test_a_size_that_is_none_is_refused_and_hides_no_other(size: object) -> None:
    rows = [{"name": "big", "type": "file", "size": 100}, {"name": "odd", "type": "file", "size": size}]
    with (
        serving(lambda path: ("application/json", json.dumps(rows).encode())) as (address, _),
        pytest.raises(SourceUnsupportedError),
    ):
        resolve(Source(f"http://{address}/"), Credentials(), SETTINGS)


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    rows = [{"name": f"f{n}", "type": "file", "size": 200_000} for n in range(60)]
    with (
        serving(lambda path: ("application/json", json.dumps(rows).encode())) as (address, _),
        pytest.raises(StorageFullError, match="12,000,000"),
    ):
        resolve(Source(f"http://{address}/"), Credentials(), SETTINGS, room=Small())


def test_folders_of_one_level_are_asked_for_at_once() -> None:
    """Each answer waits until four are wanted: one after the other, none would ever come."""
    together = threading.Barrier(4)

    def answer(path: str) -> tuple[str, bytes] | None:
        if path != "/":
            together.wait(20)
        own = {"file": 3} if path != "/" else {}
        folders = [f"d{n}" for n in range(12)] if path == "/" else []
        return "text/html", SERVERS["nginx"](path, own, folders).encode()

    with serving(answer) as (address, asked):
        settings = SETTINGS.model_copy(update={"read_timeout": 20.0})
        manifest = resolve(Source(f"http://{address}/"), Credentials(), settings).manifest
    assert [e.path for e in manifest.entries if e.kind == "file"] == sorted(f"d{n}/file" for n in range(12))
    assert len(asked) == 13


def test_folders_without_end_are_refused() -> None:
    with serving(lambda path: ("text/html", SERVERS["nginx"](path, {}, ["again"]).encode())) as (
        address,
        asked,
    ):
        with pytest.raises(SourceUnsupportedError, match=str(walk.MAX_DEPTH)):
            resolve(Source(f"http://{address}/"), Credentials(), SETTINGS)
        assert len(asked) <= walk.MAX_DEPTH + 1


def test_names_without_end_are_refused() -> None:
    few = SETTINGS.model_copy(update={"max_entries": 50})
    wide = [f"d{n}" for n in range(7)]
    with serving(lambda path: ("text/html", SERVERS["nginx"](path, {}, wide).encode())) as (address, asked):
        with pytest.raises(SourceUnsupportedError, match="max_entries"):
            resolve(Source(f"http://{address}/"), Credentials(), few)
        assert len(asked) < 60
    many = {f"f{n}": 1 for n in range(60)}
    with serving(lambda path: ("text/html", SERVERS["nginx"](path, many, []).encode())) as (address, asked):
        with pytest.raises(SourceUnsupportedError, match="max_entries"):
            resolve(Source(f"http://{address}/"), Credentials(), few)
        assert [method for method, _ in asked] == ["GET"], "nothing is looked at"


def test_bytes_of_listings_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_LISTING", 100_000)
    page = SERVERS["nginx"]("/", {}, ["x", "y"]).encode() + b" " * 30_000
    with serving(lambda path: ("text/html", page)) as (address, asked):
        with pytest.raises(SourceUnsupportedError, match="100,000"):
            resolve(Source(f"http://{address}/"), Credentials(), SETTINGS)
        assert len(asked) < 6


@pytest.mark.parametrize(
    "unit", ['<a href="a">a</a>', '<a href="/">', "[[],", "<!", "<a ", "&#", "<![", "</"]
)
def test_a_hostile_page_costs_little_memory(unit: str) -> None:
    page = "<title>Index of /</title>" + unit * (2_000_000 // len(unit))
    if unit.startswith("["):
        page = unit * (2_000_000 // len(unit))
    tracemalloc.start()
    try:
        parse(page, "http://host/", 1000)
    except SourceError:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 40_000_000
