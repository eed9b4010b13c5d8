"""Bytes of an HTTP source: ranges, whole files, many small ones at once, each of the version that is meant."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import urllib3

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceChangedError
from dragonfly_ray.model import Entry, Manifest, Segment
from dragonfly_ray.policy import Rules
from dragonfly_ray.sources.base import Progress, Stream, comparable
from dragonfly_ray.sources.batch_requests import BUSY, Head, Many, OneByOne, Wanted
from dragonfly_ray.sources.http_address import HttpAddress
from dragonfly_ray.sources.http_body import Body, content_range, length_of
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.http_connections import let_go
from dragonfly_ray.sources.http_probe import RANGE_REFUSED
from dragonfly_ray.sources.http_validators import Match, compared
from dragonfly_ray.sources.http_without_ranges import SkippingStream, WholeAnswers
from dragonfly_ray.sources.origin_concurrency import Slots
from dragonfly_ray.sources.proxies import Choose, Proxy, directly

logger = logging.getLogger(__name__)

PARTS = 2
"""Pieces of small files that are fetched at once: while one is being stored, the connections of others are busy."""

HEADS_AHEAD = 2
"""Times as many files as there are connections are asked for, at most, before a refusal among them is known."""


class HttpReader:
    """Of one source. `headers` go with every request for many files at once."""

    def __init__(
        self,
        address: HttpAddress,
        client: HttpClient,
        headers: Mapping[str, str],
        settings: OriginSettings,
        known: Rules | None,
        choose: Choose = directly,
    ) -> None:
        self._address = address
        self._choose = choose
        self._client = client
        self._headers = headers
        self._settings = settings
        self._rules = known
        self._parallel = max(1, settings.small_connections // PARTS)
        self._many: list[Many] = []
        """Those that nobody uses now."""
        self._without_ranges: set[str] = set()
        """URLs whose ranges were refused, and which were read without."""
        self._answers = WholeAnswers(settings.connections)

    def rest(self) -> None:
        """Closes connections that nobody uses now."""
        self._answers.close()
        while self._many:
            with contextlib.suppress(IndexError):  # somebody uses it again
                self._many.pop().close()

    # --- one stream -------------------------------------------------------------------------

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        """As `Adapter.stream`."""
        entry = manifest.entries[number]
        url = self._address.of(entry, directory=manifest.directory)
        whole = offset == 0 and length == entry.size
        try:
            return self._stream(url, entry, offset, length, ranges=manifest.ranges and not whole)
        except SourceChangedError:
            # Replicas of one origin may differ for a moment, or in how they spell a version.
            return self._stream(url, entry, offset, length, ranges=manifest.ranges and not whole)

    def _stream(self, url: str, entry: Entry, offset: int, length: int, *, ranges: bool) -> Stream:
        if not ranges or url in self._without_ranges:
            return self._plain(url, entry, offset, length)
        response = self._client.get(
            url, {"Range": f"bytes={offset}-{offset + length - 1}"}, allow=RANGE_REFUSED
        )
        try:
            if not self._refused(response, entry, offset):
                return self._checked(response, url, entry, offset, length)
            let_go(response)
        except BaseException:
            response.close()
            raise
        stream = self._plain(url, entry, offset, length)
        if response.status != 500:  # which an origin with too much to do says, too
            self._without_ranges.add(url)
        return stream

    def _plain(self, url: str, entry: Entry, offset: int, length: int) -> Stream:
        """Without a range."""
        if kept := self._answers.take(url, offset):
            body, at = kept
            return SkippingStream(self._answers, url, body, at, offset, length)
        response = self._client.get(url)
        try:
            return self._checked(response, url, entry, offset, length)
        except BaseException:
            response.close()
            raise

    def _refused(self, response: urllib3.BaseHTTPResponse, entry: Entry, offset: int) -> bool:
        """Whether it is no answer to the range. Raises `SourceChangedError` where the file ends before it."""
        answered = content_range(response, self._client.name)
        if response.status == 416 and answered and answered.total not in (None, entry.size):
            raise self._changed(entry, answered.total)
        if response.status == 206:
            # A part that is only weakly the same cannot be put beside others.
            wrong = answered is None or answered.start != offset
            return wrong or self._compared(response, entry, part=True) == "weakly"
        return response.status >= 300

    def _compared(self, response: urllib3.BaseHTTPResponse, entry: Entry, *, part: bool) -> Match:
        etag, modified = response.headers.get("ETag") or "", response.headers.get("Last-Modified") or ""
        return compared(comparable(entry), etag, modified, part=part)

    def _checked(
        self, response: urllib3.BaseHTTPResponse, url: str, entry: Entry, offset: int, length: int
    ) -> Stream:
        """The stretch of the entry in an answer. Raises `SourceChangedError` for another version."""
        if self._compared(response, entry, part=length < entry.size) == "other":
            raise SourceChangedError(
                f"{self._name(entry)}: has changed since it was resolved; distribute it again"
            )
        if response.status == 206:
            answered = content_range(response, self._client.name)
            total = answered.total if answered else None
        else:
            total = length_of(response, self._client.name)
        if total is not None and total != entry.size:
            raise self._changed(entry, total)
        if response.status == 206:
            return Body(self._client, response, length)
        body = Body(self._client, response, entry.size)
        return SkippingStream(self._answers, url, body, 0, offset, length)

    def _changed(self, entry: Entry, total: int | None) -> SourceChangedError:
        return SourceChangedError(
            f"{self._name(entry)}: has {total} bytes now, not {entry.size}; distribute it again"
        )

    def _name(self, entry: Entry) -> str:
        return f"{self._client.name} ({entry.path})"

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
        """The headers of files of a folder: the first that does not go well ends it, and some were not asked for."""
        asked = [Head(at, self._address.file(path)) for at, path in enumerate(paths)]
        with self._one_of_many() as many:
            bad = many.fetch(
                asked,
                connections,
                lambda _: self._client.moved(),
                ends=lambda status: True,
                ahead=HEADS_AHEAD * connections,
            )
        self._refuse_busy(bad)
        return asked

    def _fetch_many(self, asked: Sequence[Wanted], connections: int, progress: Progress) -> list[Wanted]:
        """Those that did not go well."""
        with self._one_of_many() as many:
            bad = many.fetch(asked, connections, progress)
        self._refuse_busy(bad)
        return bad

    def _refuse_busy(self, bad: Sequence[Wanted] | Sequence[Head]) -> None:
        """In a look it is waited for instead; the rest is asked for with more care."""
        for each in bad:
            if each.status in BUSY:
                refused = self._client.refused(each.status, each.retry_after)
                if self._client.patience is None or not self._client.patience.bears(refused):
                    raise refused
                self._client.patience.hold(refused)
                return

    @contextlib.contextmanager
    def _one_of_many(self) -> Iterator[Many]:
        try:
            many = self._many.pop()
        except IndexError:
            proxy = self._choose(self._address.url)
            many = many_files(self._headers, self._settings, self._rules, proxy)
        try:
            yield many
        except BaseException:
            many.close()
            raise
        self._many.append(many)

    def _wanted(self, entry: Entry, number: int, view: memoryview, start: int | None = None) -> Wanted:
        version = comparable(entry)

        def fits(etag: str, last_modified: str) -> bool:
            part = start is not None
            match = compared(version, etag, last_modified, part=part)
            return match == "same" or (match == "weakly" and not part)

        return Wanted(number, self._address.file(entry.path), view, fits, start)


def many_files(
    headers: Mapping[str, str],
    settings: OriginSettings,
    known: Rules | None = None,
    proxy: Proxy | None = None,
) -> Many:
    """`headers` go with every request; `known`: the policy that each address is checked against."""
    try:
        from dragonfly_ray.sources.curl import ManyFiles
    except ImportError as error:
        _tell_missing(str(error))
        return OneByOne()
    return ManyFiles(headers, settings, known, proxy)


@cache
def _tell_missing(what: str) -> None:
    logger.warning(
        "small files are requested one by one, which is slow (%s): pip install 'dragonfly-ray[curl]'", what
    )
