"""Weak and strong validators of HTTP (RFC 9110, 8.8), and files whose server tells both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceChangedError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.serve.etags import Precondition
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.sources import open_reader, resolve
from dragonfly_ray.sources.http_validators import compared, tells_parts, version_of
from dragonfly_ray.validators import validator
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0)
THEN, LATER = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"
BIG = os.urandom(3 * 1024 * 1024 + 17)


@pytest.mark.parametrize(
    ("etag", "modified", "date", "version", "parts"),
    [
        ('"v"', "", "", '"v"', True),
        ('"v"', THEN, LATER, '"v"', True),
        ('W/"v"', "", LATER, 'W/"v"', False),
        ('W/"v"', THEN, THEN, 'W/"v"', False),  # it may change within the second
        ('W/"v"', THEN, LATER, f'W/"v" {THEN}', True),
        ('W/"v"', THEN, "", 'W/"v"', False),
        ('W/"v"', "yesterday", LATER, 'W/"v"', False),
        ("", THEN, THEN, THEN, True),
        ("", "", LATER, "", False),
    ],
)
def test_what_a_version_is(etag: str, modified: str, date: str, version: str, parts: bool) -> None:
    found = version_of({"ETag": etag, "Last-Modified": modified, "Date": date})
    assert (found, tells_parts(found)) == (version, parts)
    assert (validator(found) == "strong") == (version == '"v"')


@pytest.mark.parametrize(
    ("version", "etag", "modified", "whole", "part"),
    [
        ('"v"', '"v"', "", "same", "same"),
        ('"v"', '"w"', "", "other", "other"),
        ('"v"', '"v"', THEN, "same", "same"),
        ('W/"v"', '"v"', "", "same", "same"),
        ('"v"', 'W/"v"', "", "weakly", "weakly"),
        ('"v"', 'W/"v"', THEN, "weakly", "weakly"),
        ('W/"v"', 'W/"v"', "", "weakly", "weakly"),
        ('W/"v"', 'W/"w"', "", "other", "other"),
        (f'W/"v" {THEN}', 'W/"v"', THEN, "same", "same"),
        (f'W/"v" {THEN}', '"v"', "", "same", "same"),
        (f'W/"v" {THEN}', 'W/"v"', LATER, "weakly", "other"),
        (f'W/"v" {THEN}', 'W/"w"', THEN, "other", "other"),
        (f'W/"v" {THEN}', "", THEN, "same", "same"),
        (f'W/"v" {THEN}', "", LATER, "other", "other"),
        (THEN, "", THEN, "same", "same"),
        (THEN, '"v"', THEN, "same", "same"),
        (THEN, "", LATER, "other", "other"),
        ("lately", "", "lately", "same", "same"),
        ('"v"', "", "", "same", "same"),
        ("", '"v"', THEN, "same", "same"),
        ('"v w"', 'W/"v w"', "", "weakly", "weakly"),
        ("unquoted", "W/unquoted", "", "weakly", "weakly"),
        ('"V"', '"v"', "", "other", "other"),
        ('"W/v"', '"v"', "", "other", "other"),
    ],
)
def test_weak_and_strong_comparison(version: str, etag: str, modified: str, whole: str, part: str) -> None:
    assert compared(version, etag, modified, part=False) == whole
    assert compared(version, etag, modified, part=True) == part


def test_if_match_is_compared_strongly() -> None:
    Precondition('"2", "3"').check(3)
    with pytest.raises(Problem):
        Precondition('W/"3"').check(3)


# --- nginx --------------------------------------------------------------------------------------

BY_METHOD = """etag off; set $tag '"v1"'; if ($request_method = HEAD) {{ set $tag 'W/"v1"'; }} add_header ETag $tag; {more}"""
BY_RANGE = (
    """etag off; set $tag '"v1"'; if ($http_range) {{ set $tag 'W/"v1"'; }} add_header ETag $tag; {more}"""
)
WEAK = """etag off; add_header ETag 'W/"v1"'; {more}"""
TIMELESS = "add_header Last-Modified '';"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """An nginx with two long files and a small one, and more in its configuration."""
    made: list[Nginx] = []

    def start(extra: str, **more: str) -> Nginx:
        server = Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra.format(**more), real=True)
        for name, data in (("a", BIG), ("b", b"small"), ("c", BIG[::-1])):
            file = server.root / "d" / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            os.utime(file, (1_700_000_000, 1_700_000_000))
        server.start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.stop()


def look(url: str) -> Manifest:
    return resolve(Source(url), Credentials(), SETTINGS).manifest


def read(url: str, manifest: Manifest, first: int = 0, last: int | None = None) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, SETTINGS)
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


@pytest.mark.parametrize("more", ["", TIMELESS])
@pytest.mark.parametrize("extra", [BY_METHOD, BY_RANGE, WEAK])
def test_a_file_that_is_weakly_the_same_has_not_changed(
    serve: Callable[..., Nginx], extra: str, more: str
) -> None:
    server = serve(extra, more=more)
    for path, data in (("d/", BIG + b"small" + BIG[::-1]), ("d/a", BIG)):
        url = f"{server.url}/{path}"
        manifest = look(url)
        assert read(url, manifest) == data
        table = PieceTable.of(manifest)
        middle = len(table) // 2
        assert read(url, manifest, middle) == data[table.cuts[middle] :]


def test_parts_are_put_together_where_get_tells_a_strong_validator(serve: Callable[..., Nginx]) -> None:
    assert look(f"{serve(BY_METHOD, more=TIMELESS).url}/d/").ranges


def test_parts_are_put_together_where_only_the_time_is_strong(serve: Callable[..., Nginx]) -> None:
    server = serve(WEAK, more="")
    for path, file in (("d/a", "a"), ("d/", "c")):
        url = f"{server.url}/{path}"
        manifest = look(url)
        assert manifest.ranges
        os.utime(server.root / "d" / file, (1_700_000_001, 1_700_000_001))
        with pytest.raises(SourceChangedError):
            read(url, manifest, len(PieceTable.of(manifest)) - 1)
        os.utime(server.root / "d" / file, (1_700_000_000, 1_700_000_000))


def test_no_parts_are_put_together_without_a_strong_validator(serve: Callable[..., Nginx]) -> None:
    server = serve(WEAK, more=TIMELESS)
    assert not look(f"{server.url}/d/a").ranges
    assert not look(f"{server.url}/d/").ranges


def test_another_weak_etag_is_another_version() -> None:
    with ScriptedOrigin(Behaviour(BIG, etag='W/"v1"')) as origin:
        manifest = look(origin.url)
        origin.behaviour.etag = 'W/"v2"'
        with pytest.raises(SourceChangedError):
            read(origin.url, manifest)


def test_many_small_files_are_taken_at_the_first_try_though_their_etags_are_weaker() -> None:
    files = {f"f{i:03}": os.urandom(100) for i in range(60)}
    with FolderOrigin(files) as folder:
        send = folder._send

        def weaken(handler: object, status: int, data: bytes, headers: dict[str, str]) -> None:
            if handler.command == "HEAD" and "ETag" in headers:  # type: ignore[attr-defined]
                headers["ETag"] = f"W/{headers['ETag']}"
            send(handler, status, data, headers)  # type: ignore[arg-type]

        folder._send = weaken  # type: ignore[method-assign]
        manifest = look(folder.url)
        assert read(folder.url, manifest) == b"".join(files.values())
        assert folder.count("GET") == {"": 1} | dict.fromkeys(files, 1)
