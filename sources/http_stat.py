"""Looks at files of an HTTP folder: by HEAD where that is of use, else by their first byte.

A refused HEAD says nothing of the file, nor does one without a length, or with the length of no body.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import urllib3

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceError, SourceUnreachableError, SourceUnsupportedError
from dragonfly_ray.model import USUAL_LEAF
from dragonfly_ray.sources.base import Seen, together
from dragonfly_ray.sources.http_address import HttpAddress
from dragonfly_ray.sources.http_batch_head import BatchHead
from dragonfly_ray.sources.http_body import SKIP, Body, length_of
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.http_connections import let_go
from dragonfly_ray.sources.http_probe import probe
from dragonfly_ray.sources.http_reader import HttpReader
from dragonfly_ray.sources.http_validators import tells_parts, version_of
from dragonfly_ray.sources.origin_checksums import in_headers
from dragonfly_ray.sources.origin_concurrency import OriginConcurrency

HEAD_REFUSED = frozenset(range(300, 600)) - {429, 503}
"""Statuses of an answer to HEAD after which GET tells."""


class HttpStat:
    """At files of one source. Thread-safe."""

    def __init__(
        self,
        address: HttpAddress,
        client: HttpClient,
        reader: HttpReader,
        pace: OriginConcurrency,
        settings: OriginSettings,
    ) -> None:
        self._address = address
        self._client = client
        self._reader = reader
        self._pace = pace
        self._connections = settings.small_connections
        self._quick = BatchHead(reader, client.name, settings.small_connections)
        self._paced = settings.max_requests is not None
        self._head = True
        """Whether HEAD is of use: until it was refused where GET works."""
        self._head_tells = False
        """Whether one told a length: some tell of every file that nothing comes."""
        self._ranges: bool | None = None
        """Whether ranges are answered; None until one was asked for."""

    def __call__(self, paths: Sequence[str]) -> list[Seen]:
        """In order. The first refusal ends it, and its error names the file. Raises `SourceError`."""
        found: dict[int, Seen] = {}
        refused: list[int] = []
        if self._quick.fits(paths) and self._head and not self._paced:
            self._client.rest()  # each way has as many connections as there may be
            found, refused = self._looked_at_quickly(paths)
        rest = [at for at in range(len(paths)) if at not in found]
        if rest:
            self._reader.rest()
        if len(rest) > 1 and refused:
            # What was refused for one file is refused for most, or ends it all: not so many need to find that out.
            first = refused[0]
            found[first] = self._look(paths[first])
            rest.remove(first)
        if rest:
            found |= zip(
                rest, together(self._connections, rest, lambda at: self._look(paths[at])), strict=True
            )
        return self._with_ranges_tried(paths, [found[at] for at in range(len(paths))])

    def _with_ranges_tried(self, paths: Sequence[str], found: list[Seen]) -> list[Seen]:
        """HEAD may promise ranges that are refused: one of its long files tells of all."""
        promised = [at for at, seen in enumerate(found) if seen.ranges and seen.size > USUAL_LEAF]
        if promised and self._ranges is None:
            self._reader.rest()
            with _naming(path := paths[promised[0]]):
                self._ranges = self._look_by_get(path).ranges
        if promised and not self._ranges:
            return [dataclasses.replace(seen, ranges=False) for seen in found]
        return found

    def _looked_at_quickly(self, paths: Sequence[str]) -> tuple[dict[int, Seen], list[int]]:
        """By HEAD, by its place in `paths`: what went well; and the places of what did not."""
        found, refused = self._quick(paths)
        self._head_tells = self._head_tells or any(seen.size for seen in found.values())
        told = found.items() if self._head_tells else ()
        return {at: seen for at, seen in told if not _is_vague(seen)}, refused

    def _look(self, path: str) -> Seen:
        with _naming(path):
            return self._look_by_either(path)

    def _look_by_either(self, path: str) -> Seen:
        seen = self._look_by_head(path) if self._head else None
        if seen is not None:
            self._head_tells = self._head_tells or bool(seen.size)
            if self._head_tells and not _is_vague(seen):
                return seen
        seen = self._look_by_get(path)
        # HEAD was refused, or told less: it is not tried on every other file.
        self._head = self._head and not seen.size
        return seen

    def _look_by_head(self, path: str) -> Seen | None:
        """None where it is refused or tells no length."""
        self._pace.wait()
        url = self._address.file(path)
        try:
            response = self._client.get(url, allow=HEAD_REFUSED, method="HEAD", retry=False)
        except SourceUnreachableError:
            return None
        try:
            size = length_of(response, self._client.name)
            if response.status >= 300 or size is None:
                return None
            ranges = response.headers.get("Accept-Ranges", "").lower() == "bytes"
            return self._seen(response, size, ranges=ranges)
        finally:
            let_go(response)

    def _look_by_get(self, path: str) -> Seen:
        self._pace.wait()
        found = probe(self._client, self._address.file(path))
        try:
            size = self._counted(found.response) if found.size is None else found.size
            if size and found.ranges:
                self._ranges = True
            return self._seen(found.response, size, ranges=found.ranges)
        finally:
            found.response.close()

    def _counted(self, response: urllib3.BaseHTTPResponse) -> int:
        """The length of a body that only its end tells."""
        body = Body(self._client, response, None)
        buffer = memoryview(bytearray(SKIP))
        size = 0
        while count := body.readinto(buffer):
            size += count
        return size

    def _seen(self, response: urllib3.BaseHTTPResponse, size: int, *, ranges: bool) -> Seen:
        if response.url and HttpAddress.url_is_folder(response.url):
            raise SourceUnsupportedError(
                f"{self._client.name}: listed as a file, but redirects to a folder; exclude it"
            )
        version = version_of(response.headers)
        ranges = ranges and tells_parts(version)
        return Seen(size, version, ranges, in_headers(response.headers, response.status))


def _is_vague(seen: Seen) -> bool:
    """Whether it is a long file whose parts could not be told from those of another version: GET may tell more."""
    return seen.size > USUAL_LEAF and bool(seen.version) and not tells_parts(seen.version)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except SourceError as error:
        raise type(error)(f"{error} ({path})", **error.details) from None
