"""What an HTTP source is: a file or a folder, how long, which version, and whether it is read in ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urljoin

import urllib3

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceUnsupportedError, StorageFullError
from dragonfly_ray.model import Entry, Manifest, Source
from dragonfly_ray.names import from_bytes
from dragonfly_ray.sources.autoindex import IndexPage, list_folder
from dragonfly_ray.sources.base import Resolution, Room, Seen, Share, read_all
from dragonfly_ray.sources.http_address import HttpAddress
from dragonfly_ray.sources.http_body import SKIP, Body, length_of
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.http_connections import let_go
from dragonfly_ray.sources.http_probe import Probe, probe
from dragonfly_ray.sources.http_reader import HttpReader
from dragonfly_ray.sources.http_stat import HttpStat
from dragonfly_ray.sources.http_validators import tells_parts, version_of
from dragonfly_ray.sources.index_page import looks_like_index
from dragonfly_ray.sources.origin_checksums import in_headers
from dragonfly_ray.sources.origin_concurrency import OriginConcurrency
from dragonfly_ray.urls import basename

MAX_PAGE = 64 * 1024 * 1024
"""Bytes of one page of a listing."""
SPOOL_STEP = 16 * 1024 * 1024
"""Bytes of the spool that room is made for at once."""


class HttpResolver:
    """Of one source."""

    def __init__(
        self,
        source: Source,
        address: HttpAddress,
        client: HttpClient,
        reader: HttpReader,
        pace: OriginConcurrency,
        settings: OriginSettings,
    ) -> None:
        self._source = source
        self._address = address
        self._client = client
        self._reader = reader
        self._pace = pace
        self._settings = settings
        self._looks = HttpStat(address, client, reader, pace, settings)

    @property
    def name(self) -> str:
        """The URL, for people."""
        return self._client.name

    @property
    def connections(self) -> int:
        """As many as may be open at once."""
        return self._settings.small_connections

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        if self._address.is_folder:
            return self._resolve_page(small_limit, spool, share, room)
        found = probe(self._client, self._address.url)
        try:
            if found.response.url and HttpAddress.url_is_folder(found.response.url):
                found.response.close()
                return self._resolve_page(small_limit, spool, share, room)
            return self._resolve_file(found, small_limit, spool, room)
        finally:
            found.response.close()

    # --- a file -----------------------------------------------------------------------------

    def _resolve_file(self, found: Probe, small_limit: int, spool: Path | None, room: Room) -> Resolution:
        response, size = found.response, found.size
        if size is None:
            return self._spool(response, spool, room)
        # Nothing would tell parts of one content from parts of another: without a strong validator it is one stream.
        manifest = self._single(
            size, response, ranges=found.ranges and tells_parts(version_of(response.headers))
        )
        if size > small_limit:
            return Resolution(manifest)
        if not found.ranges:
            return Resolution(manifest, read_all(Body(self._client, response, size), size))
        let_go(response)
        if not size:
            return Resolution(manifest, b"")
        stream = self._reader.stream(manifest, 0, 0, size)
        try:
            return Resolution(manifest, read_all(stream, size))
        finally:
            stream.close()

    def _spool(self, response: urllib3.BaseHTTPResponse, spool: Path | None, room: Room) -> Resolution:
        """One stream, whose end tells how long it is."""
        if spool is None:
            raise SourceUnsupportedError(f"{self.name}: the server does not report its size")
        body = Body(self._client, response, None)
        buffer = memoryview(bytearray(SKIP))
        size = granted = 0
        with tempfile.NamedTemporaryFile(dir=spool, delete=False) as file:
            path = Path(file.name)
            try:
                while count := body.readinto(buffer):
                    if size + count > granted:
                        granted += _make_room(room, count, min(size, SPOOL_STEP))
                    file.write(buffer[:count])
                    size += count
            except BaseException:
                path.unlink()
                raise
        return Resolution(self._single(size, response, ranges=False), spooled=path)

    def _single(self, size: int, response: urllib3.BaseHTTPResponse, *, ranges: bool) -> Manifest:
        offered = in_headers(response.headers, response.status) if size else ""
        entry = Entry(basename(self._source.url), size, version_of(response.headers), checksum=offered)
        return Manifest((entry,), directory=False, ranges=ranges)

    # --- a folder ---------------------------------------------------------------------------

    def _resolve_page(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        url = self._address.folder("")
        response = self._client.get(url)
        try:
            if not looks_like_index(response.headers.get("Content-Type", "")):
                found = Probe(response, length_of(response, self.name), ranges=False)
                return self._resolve_file(found, small_limit, spool, room)
            page = self._page(response, url)
        finally:
            response.close()
        listed = list_folder(self, self._source, page, share, self._settings.max_entries)
        if listed is None:
            raise SourceUnsupportedError(
                f"{self.name}: an HTML page, not a directory listing; "
                f"give a file's URL, or enable directory listing on the server"
            )
        entries, ranges = listed
        return Resolution(Manifest(entries, directory=True, ranges=ranges))

    def _page(self, response: urllib3.BaseHTTPResponse, url: str) -> IndexPage:
        data = bytearray()
        body = Body(self._client, response, length_of(response, self.name))
        buffer = memoryview(bytearray(SKIP))
        while count := body.readinto(buffer):
            data += buffer[:count]
            if len(data) > MAX_PAGE:
                raise SourceUnsupportedError(f"{self.name}: directory listing exceeds {MAX_PAGE} bytes")
        for hop in response.retries.history if response.retries else ():
            url = urljoin(url, hop.redirect_location or "")
        return IndexPage(from_bytes(bytes(data)), url)

    def folder(self, path: str) -> IndexPage:
        """The listing of a folder below this one."""
        self._pace.wait()
        url = self._address.folder(path)
        response = self._client.get(url)
        try:
            return self._page(response, url)
        finally:
            response.close()

    def look(self, paths: Sequence[str]) -> list[Seen]:
        """At files of this folder, without their bytes. The first refusal ends it: nothing more is asked."""
        return self._looks(paths)


def _make_room(room: Room, least: int, wished: int) -> int:
    """Of the spool: how many bytes may be written. Raises `StorageFullError`."""
    if wished > least:
        try:
            room.spool_more(wished)
        except StorageFullError:
            pass  # the end may be nearer than that
        else:
            return wished
    room.spool_more(least)
    return least
