"""Links of listings, as servers write them: absolute, elsewhere, escaped; and folders that show a page. Real servers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceUnsupportedError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import open_reader, resolve
from dragonfly_ray.sources.index_page import parse
from tests.listing_pages import HOST, SERVERS
from tests.nginx import Nginx

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0)
TREE = {
    "a.bin": os.urandom(700_000),
    "sub/deeper/c.bin": b"deep",
    "sub/b;c+d=(e)'!*,$&@:.bin": b"reserved",
    "sub/50% ü.txt": b"escaped",
    "sub/q?#.txt": b"query and fragment",
    "sub/a%2Fb": b"an escape that is a name",
}


def put(root: Path, files: dict[str, bytes] = TREE) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextmanager
def aiohttp_static(prefix: str, root: Path) -> Iterator[str]:
    """The address of aiohttp's own server of files, whose listings have absolute links."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_static(prefix, root, show_index=True)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def look(url: str, **patterns: tuple[str, ...]) -> Manifest:
    return resolve(Source(url, **patterns), Credentials(), SETTINGS).manifest  # type: ignore[arg-type]


def files(url: str, manifest: Manifest) -> dict[str, bytes]:
    """By their paths, as they are read."""
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, SETTINGS)
    try:
        pieces = reader.read(0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda n: None)
        data = b"".join(bytes(view) for _, view in pieces)
    finally:
        reader.close()
    return {
        e.path: data[start : start + e.size]
        for e, start in zip(manifest.entries, table.starts, strict=False)
        if e.kind == "file"
    }


# --- real servers -------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/data", "/a/b;c/(d)", "/"])
def test_absolute_links_and_folders_that_only_their_text_tells(tmp_path: Path, prefix: str) -> None:
    put(tmp_path / "root")
    with aiohttp_static(prefix, tmp_path / "root") as address:
        url = f"{address}{prefix.rstrip('/')}/"
        manifest = look(url)
        assert {e.path for e in manifest.entries if e.kind == "dir"} == {"sub", "sub/deeper"}
        assert files(url, manifest) == TREE
        assert files(f"{url}sub/", look(f"{url}sub/")) == {
            name.removeprefix("sub/"): data for name, data in TREE.items() if name.startswith("sub/")
        }


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    made: list[Nginx] = []

    def start(extra: str = "", tree: dict[str, bytes] = TREE) -> Nginx:
        tmp_path.chmod(0o755)
        server = Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True)
        put(server.root / "d", tree)
        server.start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.stop()


@pytest.mark.parametrize("extra", ["", "autoindex_format json;", "autoindex_exact_size off;"])
def test_every_legal_name_is_asked_for_as_it_is(serve: Callable[..., Nginx], extra: str) -> None:
    url = f"{serve(extra).url}/d/"
    assert files(url, look(url)) == TREE


PAGE = b"<html><head><title>Shop</title></head><body><h1>Welcome</h1><a href='a.html'>All goods</a></body></html>"


def test_a_folder_below_that_shows_a_page_is_an_error_that_names_it(serve: Callable[..., Nginx]) -> None:
    server = serve(
        "index index.html; location ~ html$ { default_type text/html; }",
        {**TREE, "sub/shop/index.html": PAGE, "sub/shop/more.bin": b"x"},
    )
    with pytest.raises(SourceUnsupportedError, match="/d/sub/shop/: an HTML page"):
        look(f"{server.url}/d/")
    with pytest.raises(SourceUnsupportedError, match="/d/sub/shop/: an HTML page"):
        look(f"{server.url}/d/sub/shop/")
    for patterns in (
        {"exclude": ("sub/shop",)},
        {"exclude": ("sub/shop/*",)},
        {"include": ("a.bin", "sub/d*")},
    ):
        found = look(f"{server.url}/d/", **patterns)
        assert {e.path for e in found.entries if e.kind == "file"} >= {"a.bin", "sub/deeper/c.bin"}


def test_a_folder_below_that_is_forbidden_is_an_error_that_names_it(serve: Callable[..., Nginx]) -> None:
    server = serve("location /d/sub/deeper/ { autoindex off; }")
    with pytest.raises(SourceAuthError, match="sub/deeper/"):
        look(f"{server.url}/d/")
    assert "a.bin" in {e.path for e in look(f"{server.url}/d/", exclude=("sub/deeper",)).entries}


def test_a_listing_at_another_path_than_its_links_say_is_an_error_that_names_it(
    serve: Callable[..., Nginx], tmp_path: Path
) -> None:
    """A proxy that puts aiohttp's pages elsewhere, and does not rewrite them."""
    put(tmp_path / "root", {"a.bin": b"a"})
    with aiohttp_static("/data", tmp_path / "root") as address:
        server = serve(f"location /d/files/ {{ proxy_pass {address}/data/; }}", {"files/x": b"x"})
        for url in (f"{server.url}/d/files/", f"{server.url}/d/"):
            with pytest.raises(
                SourceUnsupportedError, match="every link of the directory listing points outside it"
            ) as caught:
                look(url)
            assert "/d/files/" in str(caught.value)
            assert "/data/a.bin" in str(caught.value)


def test_a_file_that_leads_to_a_folder_is_no_file(serve: Callable[..., Nginx]) -> None:
    """Its link has no slash; the page behind it would be delivered instead."""
    listing = '<title>Index of /d/</title><a href="../">../</a><a href="sub">sub</a><a href="a.bin">a.bin</a>'
    server = serve("location = /d/ { default_type text/html; return 200 '" + listing + "'; }")
    with pytest.raises(SourceUnsupportedError, match=r"redirects to a folder.*\(sub\)"):
        look(f"{server.url}/d/")
    assert files(f"{server.url}/d/", look(f"{server.url}/d/", exclude=("sub",))) == {"a.bin": TREE["a.bin"]}


def test_links_with_the_query_of_their_page_are_entries(serve: Callable[..., Nginx]) -> None:
    """Some servers pass a token on so. It goes with every request, and stands in no error."""
    listing = (
        '<title>Index of /d/</title><a href="a.bin?token=hunter2">a.bin</a><a href="c.bin?v=2">c.bin</a>'
    )
    server = serve(
        "if ($arg_token != hunter2) { return 403; } "
        "location = /d/ { default_type text/html; return 200 '" + listing + "'; }"
    )
    url = f"{server.url}/d/?token=hunter2"
    assert files(url, look(url)) == {"a.bin": TREE["a.bin"]}


# --- pages --------------------------------------------------------------------------------------

HEAD = '<title>Index of /d/</title><a href="../">../</a>'


@pytest.mark.parametrize(
    "link",
    [
        "a.bin", "./a.bin", "/d/a.bin", "//host/d/a.bin", "http://host/d/a.bin", "https://host/d/a.bin",
        "http://host:8080/d/a.bin", "HTTP://HOST/d/a.bin", "%61.bin", "/%64/a%2Ebin", "/d/a.bin#top", "../d/a.bin",
        "/d/./a.bin", " a.bin\n",
    ],
)  # fmt: skip
def test_a_link_to_a_name_right_below_is_an_entry(link: str) -> None:
    for address in ("http://host/d/", "http://host/d/index.php", "http://host/d/?C=M"):
        assert [e.name for e in parse(f'{HEAD}<a href="{link}">a.bin</a>', address) or []] == ["a.bin"]


@pytest.mark.parametrize(
    "link",
    [
        "/a.bin", "//other/d/a.bin", "http://other/d/a.bin", "ftp://host/d/a.bin", "/d/sub/a.bin", "../a.bin",
        "/D/a.bin", "a.bin?raw=1", "/d%2Fa.bin", "/%2Fd/a.bin", "/d/%2e%2e/a.bin", "//host//d/a.bin", "sub%2Fa.bin",
    ],
)  # fmt: skip
def test_a_listing_of_which_every_link_was_left_out_is_no_empty_folder(link: str) -> None:
    text = "sub/a.bin" if link == "sub%2Fa.bin" else "d/a.bin" if link == "/d%2Fa.bin" else "a.bin"
    with pytest.raises(
        SourceUnsupportedError, match="every link of the directory listing points outside it"
    ) as caught:
        parse(f'{HEAD}<a href="{link}">{text}</a>', "http://host/d/")
    assert "raw=1" not in str(caught.value)


@pytest.mark.parametrize(
    "link",
    [
        '<a href="?C=N;O=D">Name</a>', '<a href="/">host</a>', '<a href="/d/">d</a>', '<a href="https://nginx.org">nginx</a>',
        '<a href="/x/">x</a><a href="/x/y/">y</a><a href="/x/y/d/">d</a>', '<a href="javascript:a.bin">a.bin</a>',
        '<a href="mailto:a.bin">a.bin</a>', '<a href="#a.bin">a.bin</a>', '<a href="http://[bad/d/a.bin">a.bin</a>',
        '<a href="https://caddyserver.com/">Caddy</a>', '<a href="/about.html">About us</a>',
    ],
)  # fmt: skip
def test_other_links_make_no_entries_of_an_empty_folder(link: str) -> None:
    address = "http://host/x/y/d/" if "/x/y" in link else "http://host/d/"
    assert parse(f"{HEAD}{link}", address) == []


def test_what_is_left_out_beside_other_names_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    page = f'{HEAD}<a href="a.bin">a.bin</a><a href="https://cdn/x/b.bin?sig=hunter2">b.bin</a><a href="c.bin">Third</a>'
    with caplog.at_level(logging.WARNING):
        assert [e.name for e in parse(page, "http://host/d/?sig=hunter3") or []] == ["a.bin"]
    assert "2 links" in caplog.text
    assert "https://cdn/x/b.bin" in caplog.text
    assert "c.bin" in caplog.text
    assert "hunter" not in caplog.text


@pytest.mark.parametrize("base", ["/d/", "http://host/d/", "https://host/d/x", "//host/d/"])
def test_links_are_relative_to_what_the_page_says(base: str) -> None:
    page = f'<base href="{base}">{HEAD}<a href="a.bin">a.bin</a>'
    assert [e.name for e in parse(page, "http://host/d/") or []] == ["a.bin"]


@pytest.mark.parametrize("base", ["/other/", "http://cdn/d/", "sub/"])
def test_links_that_are_relative_to_another_place_lead_there(base: str) -> None:
    page = f'<base href="{base}">{HEAD}<a href="a.bin">a.bin</a>'
    with pytest.raises(SourceUnsupportedError, match=r"/a\.bin"):
        parse(page, "http://host/d/")


def test_a_folder_whose_own_name_holds_an_escaped_slash() -> None:
    page = '<title>Index of /g/p/</title><a href="/g%2fp/a">a</a><a href="/g/p/b">b</a><a href="c">c</a>'
    assert {e.name for e in parse(page, "http://host/g%2Fp/") or []} == {"a", "c"}
    assert {e.name for e in parse(page, "http://host/g/p/") or []} == {"b", "c"}


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_listings_of_every_server_leave_nothing_out(server: str, caplog: pytest.LogCaptureFixture) -> None:
    path = "/service/rest/repository/browse/raw/set/" if server == "nexus3" else "/pub/set/"
    names: dict[str, Any] = {"a.bin": 1, "b;c+d.bin": 2, "e%2Ff": 3}
    page = SERVERS[server](path, names, ["sub"]).replace(HOST, "host:1")
    with caplog.at_level(logging.WARNING):
        found = parse(page, f"http://host:1{path}")
    assert {e.name for e in found or []} == {"a.bin", "b;c+d.bin", "e%2Ff", "sub"}
    assert "skipped" not in caplog.text


@pytest.mark.parametrize("name", ["a/b", "", ".", "..", "/etc/passwd", "../x"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_name_in_a_json_listing_is_left_out_and_said_so(
    name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`a/b` is not the `b` of a folder `a`."""
    odd, good = {"name": name, "type": kind}, {"name": "good", "type": "file", "size": 3}
    with caplog.at_level(logging.WARNING):
        assert [e.name for e in parse(json.dumps([odd, good])) or []] == ["good"]
    assert "skipped 1 listing entries" in caplog.text
    with pytest.raises(SourceUnsupportedError, match="without files or folders"):
        parse(json.dumps([odd]))


def test_what_is_neither_a_file_nor_a_folder_is_left_out_and_said_so(
    serve: Callable[..., Nginx], caplog: pytest.LogCaptureFixture
) -> None:
    """nginx tells of a pipe in JSON, and lists it as a file in HTML, where asking for it fails."""
    server = serve("autoindex_format json;", {"a.bin": TREE["a.bin"]})
    os.mkfifo(server.root / "d" / "pipe")
    url = f"{server.url}/d/"
    with caplog.at_level(logging.WARNING):
        assert files(url, look(url)) == {"a.bin": TREE["a.bin"]}
    assert "pipe" in caplog.text
