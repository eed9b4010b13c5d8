"""Origins that refuse a range, or HEAD, and give the file to whoever asks for it plainly: a real nginx."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceChangedError, SourceError, SourceNotFoundError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Segment, Source
from dragonfly_ray.sources import open_reader, range_reader, resolve
from tests.nginx import Nginx
from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.waiting import until

SETTINGS = OriginSettings(read_timeout=60.0, connect_timeout=60.0)
BIG = os.urandom(3 * 1024 * 1024 + 17)
FILES = {"a.bin": BIG, "b.bin": b"small", "empty": b"", "sub/c.bin": BIG[:1000], "sub/long": BIG[::-1]}
ANY_RANGE = "if ($http_range) {{ return {status}; }}"
LATER_RANGES = 'if ($http_range !~ "^(bytes=0-0)?$") {{ return {status}; }}'
HEAD = "if ($request_method = HEAD) {{ return {status}; }}"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Nginx]]:
    """An nginx with `FILES`, and more in its configuration."""
    made: list[Nginx] = []

    def start(extra: str) -> Nginx:
        server = Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True)
        for path, data in FILES.items():
            file = server.root / "d" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        server.start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.stop()


def look(url: str, small: int = 0) -> Manifest:
    return resolve(Source(url), Credentials(), SETTINGS, small_limit=small).manifest


def read(url: str, manifest: Manifest, runs: list[tuple[int, int]] | None = None) -> list[bytes]:
    """The bytes of runs of pieces, by one reader; without runs all at once."""
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, SETTINGS)
    try:
        return [
            b"".join(
                bytes(view)
                for _, view in reader.read(
                    first, last, lambda i: memoryview(bytearray(table[i].length)), lambda count: None
                )
            )
            for first, last in runs or [(0, len(table))]
        ]
    finally:
        reader.close()


# --- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 412, 416, 500, 501])
@pytest.mark.parametrize("small", [0, 1 << 30])
def test_a_file_whose_ranges_are_refused_is_read_without(
    serve: Callable[[str], Nginx], status: int, small: int
) -> None:
    url = f"{serve(ANY_RANGE.format(status=status)).url}/d/a.bin"
    found = resolve(Source(url), Credentials(), SETTINGS, small_limit=small)
    assert (found.manifest.size, found.manifest.ranges) == (len(BIG), False)
    assert found.content == (BIG if small else None)
    assert read(url, found.manifest) == [BIG]


def test_an_empty_file_whose_ranges_are_refused_is_empty_because_it_says_so(
    serve: Callable[[str], Nginx],
) -> None:
    server = serve(ANY_RANGE.format(status=416))
    assert look(f"{server.url}/d/empty").size == 0
    until(lambda: len(server.hits()) == 2)
    assert [(hit.status, hit.range) for hit in server.hits()] == [(416, "bytes=0-0"), (200, "-")]


def test_an_empty_file_is_asked_for_once(serve: Callable[[str], Nginx]) -> None:
    server = serve("")
    assert look(f"{server.url}/d/empty").size == 0
    until(lambda: bool(server.hits()))
    assert [hit.range for hit in server.hits()] == ["bytes=0-0"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 416, 501])
def test_ranges_that_are_refused_when_pieces_are_read(serve: Callable[[str], Nginx], status: int) -> None:
    server = serve(LATER_RANGES.format(status=status))
    url = f"{server.url}/d/a.bin"
    manifest = look(url)
    assert manifest.ranges
    last = len(PieceTable.of(manifest))
    runs = [(0, 2), (2, 5), (9, 12), (5, 9), (12, last)]
    assert read(url, manifest, runs) == [b"".join(read(url, manifest, [run])) for run in runs]
    table = PieceTable.of(manifest)
    assert read(url, manifest, runs) == [BIG[table.cuts[a] : table.cuts[b]] for a, b in runs]


def test_a_reader_goes_on_in_the_same_answer(serve: Callable[[str], Nginx]) -> None:
    """Else a file of a thousand pieces would leave the origin hundreds of times."""
    server = serve(LATER_RANGES.format(status=403))
    url = f"{server.url}/d/a.bin"
    manifest = look(url)
    pieces = len(PieceTable.of(manifest))
    until(lambda: len(server.hits()) == 1)
    assert b"".join(read(url, manifest, [(n, n + 1) for n in range(pieces)])) == BIG
    until(lambda: len(server.hits()) == 3)
    assert [(hit.status, hit.range) for hit in server.hits()][1:] == [(403, "bytes=0-131071"), (200, "-")]
    assert server.hits()[-1].sent == len(BIG)


@pytest.mark.parametrize("status", [403, 416])
def test_files_of_a_folder_whose_ranges_are_refused(serve: Callable[[str], Nginx], status: int) -> None:
    """The listing tells sizes, HEAD tells that there are ranges."""
    server = serve(ANY_RANGE.format(status=status))
    url = f"{server.url}/d/"
    manifest = look(url)
    assert not manifest.ranges, "it is one stream a file, which all share"
    assert {e.path: e.size for e in manifest.entries if e.kind == "file"} == {
        p: len(d) for p, d in FILES.items()
    }
    pieces = len(PieceTable.of(manifest))
    whole = b"".join(FILES[path] for path in sorted(FILES))
    assert b"".join(read(url, manifest, [(n, n + 1) for n in range(pieces)])) == whole
    spans = [Segment(0, 2_000_000, 100), Segment(len(manifest.entries) - 1, 7, 1000), Segment(1, 1, 3)]
    with range_reader(Source(url), Credentials(), SETTINGS, manifest) as ranges:
        found = ranges(spans)
    assert found == [FILES[manifest.entries[s.entry].path][s.offset : s.offset + s.length] for s in spans]


@pytest.mark.parametrize("status", [400, 403, 404, 416, 500])
@pytest.mark.parametrize("head", [200, 405])
def test_files_that_are_looked_at_and_whose_ranges_are_refused(status: int, head: int) -> None:
    with FolderOrigin(FILES_FLAT) as folder:
        folder.head_status = 0 if head == 200 else head
        folder.before = Ranges(folder, status)
        manifest = look(folder.url)
        assert {e.path: e.size for e in manifest.entries} == {p: len(d) for p, d in FILES_FLAT.items()}
        assert read(folder.url, manifest) == [b"".join(FILES_FLAT[path] for path in sorted(FILES_FLAT))]


def test_a_file_that_became_shorter_has_changed_and_is_not_taken_for_a_refusal(
    serve: Callable[[str], Nginx],
) -> None:
    server = serve("")
    manifest = look(f"{server.url}/d/a.bin")
    (server.root / "d" / "a.bin").write_bytes(b"short")
    with pytest.raises(SourceChangedError):
        read(f"{server.url}/d/a.bin", manifest, [(9, 10)])
    until(lambda: len(server.hits()) == 3)
    assert [hit.status for hit in server.hits()] == [206, 416, 416]


def test_what_is_refused_without_a_range_too_is_refused(serve: Callable[[str], Nginx]) -> None:
    server = serve("location /d/a.bin { return 403; }")
    with pytest.raises(SourceAuthError, match="403"):
        look(f"{server.url}/d/a.bin")
    with pytest.raises(SourceNotFoundError, match="404"):
        look(f"{server.url}/d/none")
    until(lambda: len(server.hits()) == 4)


# --- HEAD ---------------------------------------------------------------------------------------

FILES_FLAT = {path.replace("/", "-"): data for path, data in FILES.items()}


class Ranges:
    """Refuses every range to a file of `folder`."""

    def __init__(self, folder: FolderOrigin, status: int) -> None:
        self._folder, self._status = folder, status

    def __call__(self, method: str, path: str) -> int:
        with self._folder.lock:
            asked = next(r for m, p, r in reversed(self._folder.asked) if (m, p) == (method, path))
        return self._status if asked else 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 418, 500, 501, 502, 504])
def test_a_server_that_refuses_head_gives_its_files(serve: Callable[[str], Nginx], status: int) -> None:
    """nginx's own page tells sizes: its long files are looked at for their versions."""
    server = serve(HEAD.format(status=status))
    url = f"{server.url}/d/"
    manifest = look(url)
    assert manifest.ranges
    assert {e.path: e.size for e in manifest.entries if e.kind == "file"} == {
        p: len(d) for p, d in FILES.items()
    }
    assert read(url, manifest) == [b"".join(FILES[path] for path in sorted(FILES))]


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize("ranges", [True, False])
def test_head_is_not_tried_on_every_file(status: int, ranges: bool) -> None:
    files = {f"f{i:03}": os.urandom(i + 1) for i in range(300)}
    with FolderOrigin(files) as folder:
        folder.head_status, folder.ranges = status, ranges
        manifest = look(folder.url)
        assert {e.path: e.size for e in manifest.entries} == {n: len(d) for n, d in files.items()}
        assert sum(folder.count("HEAD").values()) <= SETTINGS.small_connections + 1
        assert read(folder.url, manifest) == [b"".join(files[n] for n in sorted(files))]


@pytest.mark.parametrize("others", [0, 100])
def test_a_head_that_tells_the_length_of_no_body_is_no_verdict(others: int) -> None:
    """As of some frameworks."""
    files = {"a": b"x" * 5000, "b": b"", "c": BIG} | {f"d{n}": b"y" * n for n in range(others)}
    with FolderOrigin(files) as folder:
        send = folder._send

        def empty(handler: object, status: int, data: bytes, headers: dict[str, str]) -> None:
            short = handler.command == "HEAD"  # type: ignore[attr-defined]
            send(handler, status, b"" if short else data, headers)  # type: ignore[arg-type]

        folder._send = empty  # type: ignore[method-assign]
        manifest = look(folder.url)
        assert {e.path: e.size for e in manifest.entries} == {n: len(d) for n, d in files.items()}


def test_a_server_that_hangs_up_on_head_gives_its_files() -> None:
    files = {f"f{i:03}": os.urandom(i + 1) for i in range(100)}
    with FolderOrigin(files) as folder:
        answer = folder.answer

        def hang_up(handler: Any) -> None:
            if handler.command == "HEAD":
                handler.close_connection = True
            else:
                answer(handler)

        folder.answer = hang_up  # type: ignore[method-assign]
        manifest = look(folder.url)
        assert {e.path: e.size for e in manifest.entries} == {n: len(d) for n, d in files.items()}


def test_a_length_that_is_never_told_refuses_no_folder() -> None:
    files = {"a": b"x" * 5000, "b": b"", "c": BIG}
    with FolderOrigin(files) as folder:
        folder.ranges = folder.lengths = False
        manifest = look(folder.url)
        assert [e.size for e in manifest.entries] == [5000, 0, len(BIG)]
        assert read(folder.url, manifest) == [b"".join(files.values())]
        folder.files["c"] = BIG + b"more"
        with pytest.raises(SourceChangedError):
            read(folder.url, manifest)


def test_a_file_that_neither_head_nor_get_finds_is_an_error_that_says_so(
    serve: Callable[[str], Nginx],
) -> None:
    server = serve("location ~ long { return 404; }")
    with pytest.raises(SourceError, match="404") as caught:
        look(f"{server.url}/d/")
    assert "sub/long" in str(caught.value)


# --- answers that are none to the range ---------------------------------------------------------

MANGLED = {
    "no Content-Range": {},
    "another range": {"Content-Range": f"bytes 7-{len(BIG) + 6}/{len(BIG) + 7}"},
    "no length": {"Content-Range": "bytes 0-0/*"},
    "no unit": {"Content-Range": f"0-0/{len(BIG)}"},
    "several parts": {"Content-Type": "multipart/byteranges; boundary=x"},
}


@pytest.mark.parametrize("when", [0, 1], ids=["at the first look", "when pieces are read"])
@pytest.mark.parametrize("mangled", MANGLED.values(), ids=MANGLED)
def test_a_file_whose_ranges_are_answered_with_something_else(mangled: dict[str, str], when: int) -> None:
    with ScriptedOrigin(Behaviour(BIG)) as origin:
        answer = origin.answer

        def odd(handler: Any) -> None:
            if len(origin.requests) < when or "Range" not in handler.headers:
                answer(handler)
                return
            handler.send_response(206)
            for name, value in {"ETag": '"v1"', "Content-Length": "5", **mangled}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(b"bytes")

        origin.answer = odd  # type: ignore[method-assign]
        manifest = look(origin.url)
        assert (manifest.size, manifest.ranges) == (len(BIG), bool(when))
        table = PieceTable.of(manifest)
        assert read(origin.url, manifest, [(3, 5), (0, 2)] if when else None) == (
            [BIG[table.cuts[3] : table.cuts[5]], BIG[: table.cuts[2]]] if when else [BIG]
        )
