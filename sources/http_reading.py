"""Bytes of an HTTP source: ranges, whole files, many small ones at once, each of the version that is meant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import urllib3

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceChangedError, SourceUnsupportedError
from dragonfly_ray.model import Entry, Manifest, Segment
from dragonfly_ray.policy import Rules
from dragonfly_ray.sources.base import Progress, Stream, comparable
from dragonfly_ray.sources.http_address import HttpAddress
from dragonfly_ray.sources.http_body import Body, content_range, length_of, version_of
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.many import BUSY, Head, ManyFiles, Wanted
from dragonfly_ray.sources.pace import Slots

PARTS = 2
"""Pieces of small files that are fetched at once: while one is being stored, the connections of others are busy."""


class HttpReader:
    """Of one source. `headers` go with every request for many files at once."""

    def __init__(
        self,
        address: HttpAddress,
        client: HttpClient,
        headers: Mapping[str, str],
        settings: OriginSettings,
        known: Rules | None,
    ) -> None:
        self._address = address
        self._client = client
        self._headers = headers
        self._settings = settings
        self._rules = known
        self._parallel = max(1, settings.small_connections // PARTS)
        self._many: list[ManyFiles] = []
        """Those that nobody uses now."""

    def rest(self) -> None:
        """Closes connections that nobody uses now."""
        while self._many:
            with contextlib.suppress(IndexError):  # somebody uses it again
                self._many.pop().close()

    # --- one stream -------------------------------------------------------------------------

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        """As `Adapter.stream`."""
        entry = manifest.entries[number]
        url = self._address.of(entry, directory=manifest.directory)
        whole = offset == 0 and length == entry.size
        headers = {}
        if manifest.ranges and not whole:
            headers["Range"] = f"bytes={offset}-{offset + length - 1}"
        try:
            return self._stream(url, headers, entry, offset, length, whole=whole)
        except SourceChangedError:
            # Replicas of one origin may differ for a moment, or in how they spell a version.
            return self._stream(url, headers, entry, offset, length, whole=whole)

    def _stream(
        self, url: str, headers: dict[str, str], entry: Entry, offset: int, length: int, *, whole: bool
    ) -> Stream:
        response = self._client.get(url, headers, allow=(416,))
        try:
            start = self._check(response, entry, offset)
            stream = Body(self._client, response, length, whole=response.status == 206 or whole)
            stream.skip(offset - start)
            return stream
        except BaseException:
            response.close()
            raise

    def _check(self, response: urllib3.BaseHTTPResponse, entry: Entry, offset: int) -> int:
        """Where the body starts in the entry. Raises `SourceChangedError` for another version."""
        name = f"{self._client.name} ({entry.path})"
        wanted, found = comparable(entry), version_of(response)
        if response.status == 416 or (wanted and found and found != wanted):
            raise SourceChangedError(f"{name}: has changed since it was looked at; start again")
        if response.status == 206:
            answered = content_range(response, self._client.name)
            if answered is None or answered.start != offset:
                raise SourceUnsupportedError(f"{name}: answers with another range than the one asked for")
            total, start = answered.total, offset
        else:
            total, start = length_of(response, self._client.name), 0
        if total is not None and total != entry.size:
            raise SourceChangedError(f"{name}: has {total} bytes now, not {entry.size}; start again")
        return start

    # --- many at once -----------------------------------------------------------------------

    def many(
        self, manifest: Manifest, wanted: Sequence[tuple[int, memoryview]], slots: Slots, progress: Progress
    ) -> list[int]:
        """As `Adapter.many`."""
        asked = [self._wanted(manifest.entries[number], number, view) for number, view in wanted]
        with slots.several(self._parallel) as connections:
            bad = self._fetch_many(asked, connections, progress)
        return [each.number for each in bad]

    def quick_ranges(
        self, manifest: Manifest, spans: Sequence[Segment], connections: int
    ) -> dict[int, bytes]:
        """What of a folder goes well at the first try, by its place in `spans`."""
        asked = []
        for at, span in enumerate(spans):
            entry = manifest.entries[span.entry]
            whole = span.length == entry.size
            # Where the origin has no ranges, a longer file is left to a stream that ends early.
            if whole or manifest.ranges:
                view = memoryview(bytearray(span.length))
                asked.append(self._wanted(entry, at, view, None if whole else span.offset))
        bad = {each.number for each in self._fetch_many(asked, connections, lambda _: self._client.go_on())}
        return {each.number: bytes(each.view) for each in asked if each.number not in bad}

    def heads(self, paths: Sequence[str], connections: int) -> list[Head]:
        """The headers of files of a folder, as far as all goes well at the first try: what does not ends it."""
        asked = [Head(at, self._address.file(path)) for at, path in enumerate(paths)]
        with self._one_of_many() as many:
            bad = many.fetch(asked, connections, lambda _: self._client.go_on(), ends=lambda status: True)
        refused = {each.number for each in bad}
        return [each for each in asked if each.number not in refused]

    def _fetch_many(self, asked: Sequence[Wanted], connections: int, progress: Progress) -> list[Wanted]:
        """Those that did not go well."""
        with self._one_of_many() as many:
            bad = many.fetch(asked, connections, progress)
        for each in bad:
            if each.status in BUSY:
                raise self._client.refused(each.status, each.retry_after)
        return bad

    @contextlib.contextmanager
    def _one_of_many(self) -> Iterator[ManyFiles]:
        try:
            many = self._many.pop()
        except IndexError:
            many = ManyFiles(self._headers, self._settings, self._rules)
        try:
            yield many
        except BaseException:
            many.close()
            raise
        self._many.append(many)

    def _wanted(self, entry: Entry, number: int, view: memoryview, start: int | None = None) -> Wanted:
        version = comparable(entry)

        def fits(etag: str, last_modified: str) -> bool:
            found = etag or last_modified
            return not version or not found or found == version

        return Wanted(number, self._address.file(entry.path), view, fits, start)
