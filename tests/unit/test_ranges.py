"""A few bytes of each of many files, as proofs of access read them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import fsspec
import msgspec
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceChangedError
from dragonfly_ray.model import Credentials, Manifest, Segment, Source
from dragonfly_ray.sources import range_reader, resolve
from tests.origins import FolderOrigin

FILES = {f"f{i:02}": os.urandom(1 + i * 997 % 5000) for i in range(40)}


@pytest.fixture
def origin() -> Iterator[FolderOrigin]:
    with FolderOrigin(dict(FILES)) as made:
        yield made


@pytest.fixture
def memory() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name, data in FILES.items():
        files.pipe(f"/ranges/{name}", data)
    yield "memory://ranges/"
    files.rm("/ranges", recursive=True)


def found(url: str) -> Manifest:
    return resolve(Source(url), Credentials(), OriginSettings()).manifest


def some(manifest: Manifest, *, start: bool = False) -> list[Segment]:
    spans = []
    for number, entry in enumerate(manifest.entries):
        offset = 0 if start else entry.size // 3
        spans.append(Segment(number, offset, min(1024, entry.size - offset)))
    return spans


def read(url: str, manifest: Manifest, spans: list[Segment], **settings: object) -> list[bytes]:
    settled = OriginSettings(**settings)
    with range_reader(Source(url), Credentials(), settled, manifest) as reader:
        half = len(spans) // 2
        return [*reader(spans[:half]), *reader(spans[half:])]


def expected(manifest: Manifest, spans: list[Segment]) -> list[bytes]:
    return [FILES[manifest.entries[s.entry].path][s.offset : s.offset + s.length] for s in spans]


@pytest.mark.parametrize("rate", [None, 2000.0])
def test_ranges_of_an_http_folder(origin: FolderOrigin, rate: float | None) -> None:
    manifest = found(origin.url)
    spans = some(manifest)
    before = len(origin.asked)
    assert read(origin.url, manifest, spans, max_requests=rate) == expected(manifest, spans)
    asked = origin.asked[before:]
    assert len(asked) == len(spans), "one request each"
    assert all(how == "GET" for how, _, _ in asked)


def test_an_origin_without_ranges_is_read_from_the_start(origin: FolderOrigin) -> None:
    origin.ranges = False
    manifest = msgspec.structs.replace(found(origin.url), ranges=False)
    spans = some(manifest, start=True)
    assert read(origin.url, manifest, spans) == expected(manifest, spans)


def test_an_origin_that_has_lost_its_ranges_gives_the_same(origin: FolderOrigin) -> None:
    manifest = found(origin.url)
    origin.ranges = False
    spans = some(manifest)
    assert read(origin.url, manifest, spans) == expected(manifest, spans)


def test_ranges_of_a_filesystem(memory: str) -> None:
    manifest = found(memory)
    spans = some(manifest)
    assert read(memory, manifest, spans) == expected(manifest, spans)


def test_what_is_refused_is_named(origin: FolderOrigin) -> None:
    manifest = found(origin.url)
    origin.before = lambda how, path: 403 if path == "f17" else 0
    with pytest.raises(SourceAuthError, match="f17"):
        read(origin.url, manifest, some(manifest))


@pytest.mark.parametrize("status", [0, 412])
def test_another_version_is_told_apart(origin: FolderOrigin, status: int) -> None:
    manifest = found(origin.url)
    if status:
        origin.before = lambda how, path: status if path == "f17" else 0
    else:
        origin.files["f17"] = bytes(reversed(FILES["f17"]))
    with pytest.raises(SourceChangedError, match="f17"):
        read(origin.url, manifest, some(manifest))
