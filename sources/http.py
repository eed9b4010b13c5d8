"""`http` and `https`: files, and folders that the server lists.

Bytes are taken as the server sends them (`Accept-Encoding: identity`, and nothing is decoded), so
that ranges mean what they say. A server that ignores ranges is read in one stream.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import ClosedPoolError, HTTPError, IncompleteRead, ReadTimeoutError
from urllib3.exceptions import ProtocolError as BrokenError

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnreachableError,
    SourceUnsupportedError,
    StorageFullError,
)
from dragonfly_ray.model import Credentials, Entry, Manifest, Segment, Source
from dragonfly_ray.policy import UrlPolicy, rules
from dragonfly_ray.sources.answers import bounded_manager, let_go
from dragonfly_ray.sources.autoindex import IndexPage, list_folder
from dragonfly_ray.sources.base import (
    Adapter,
    Progress,
    Resolution,
    Room,
    Seen,
    Share,
    Stream,
    comparable,
    parse_size,
    read_all,
    together,
)
from dragonfly_ray.sources.guard import Forbidden, GuardedManager
from dragonfly_ray.sources.index_page import content_path, looks_like_index
from dragonfly_ray.sources.many import BUSY, ManyFiles, Wanted
from dragonfly_ray.sources.offered import in_headers
from dragonfly_ray.sources.pace import Pace, Slots
from dragonfly_ray.urls import basename, redacted

PARTS = 2
"""Pieces of small files that are fetched at once: while one is being stored, the connections of others are busy."""
FIRST_PAUSE = 0.1
"""Seconds before the second try; doubles with each."""
MOST_REDIRECTS = 10
MOST_PAGE = 64 * 1024 * 1024
SKIP = 256 * 1024
_PLAINLY = {
    "ResponseError": "too many redirects",
    "NameResolutionError": "no such host; check its name",
    "NewConnectionError": "nobody listens there; check the address and the port",
    "ConnectTimeoutError": "the host does not answer",
    "SSLError": "its certificate is not trusted",
}
_PLAIN = "/:@!$&'()*+,;=~-._"
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]+|\*)")
SPOOL_STEP = 16 * 1024 * 1024
"""Bytes of the spool that room is made for at once."""
MAX_RETRY_AFTER = 24 * 3600.0
"""Seconds."""


class HttpAdapter(Adapter):
    """One URL; its connections are kept and shared by all threads."""

    def __init__(
        self,
        source: Source,
        credentials: Credentials,
        settings: OriginSettings,
        policy: UrlPolicy | None = None,
    ) -> None:
        self._source = source
        self._rules = None if policy is None else rules(policy)
        self._name = redacted(source.url)
        parts = urlsplit(source.url)
        userinfo, _, _ = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        self._url = urlunsplit(parts)
        base = parts.path if parts.path.endswith("/") else f"{parts.path}/"
        self._folders = urlunsplit(parts._replace(path=base, query=""))
        """What stands before the path of a folder in its URL."""
        self._files = urlunsplit(parts._replace(path=content_path(base), query=""))
        self._query = f"?{parts.query}" if parts.query else ""
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "dragonfly-ray", **credentials.headers}
        if userinfo and "authorization" not in {h.lower() for h in self._headers}:
            self._headers["Authorization"] = _basic(userinfo)
        mine = {name.lower() for name in credentials.headers} | {"authorization", "cookie"}
        tries = settings.retries
        self._retries = _Tries(
            total=None,
            connect=tries,
            read=tries,
            status=tries,
            other=0,
            redirect=MOST_REDIRECTS,
            # Not 429 and 503: there the whole cluster must wait, not this request alone.
            status_forcelist=(500, 502, 504),
            respect_retry_after_header=False,
            raise_on_status=False,
            backoff_factor=FIRST_PAUSE,
            # What opens this origin is nobody else's business: a redirect elsewhere goes without it.
            remove_headers_on_redirect=mine,
        )
        self._retries.go_on = self._go_on
        self._settings = settings
        self._parallel = max(1, settings.small_connections // PARTS)
        self._many: list[ManyFiles] = []
        """Those that nobody uses now."""
        self._pace = Pace(settings.max_requests)
        self._answers: weakref.WeakSet[urllib3.BaseHTTPResponse] = weakref.WeakSet()
        """Those whose bodies may be under way."""
        self._aborted = False
        options: Any = {
            "maxsize": settings.small_connections + settings.connections,
            "timeout": urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout),
        }
        self._pool = GuardedManager(self._rules, **options) if self._rules else bounded_manager(**options)

    @property
    def name(self) -> str:
        """The URL, for people."""
        return self._name

    def abort(self) -> None:
        self._aborted = True
        for answer in list(self._answers):
            # Whoever waits for its next byte is woken up. What is over already has no socket.
            with contextlib.suppress(ValueError, OSError, RuntimeError):
                answer.shutdown()

    def rest(self) -> None:
        self._close_many()
        # `clear` alone leaves their sockets to the garbage collector, which cycles and tracebacks delay.
        for key in self._pool.pools.keys():  # noqa: SIM118, it cannot be iterated
            pool = self._pool.pools.get(key)
            if pool is not None:
                pool.close()
        self._pool.clear()

    def _close_many(self) -> None:
        while self._many:
            with contextlib.suppress(IndexError):  # somebody uses it again
                self._many.pop().close()

    def close(self) -> None:
        self.rest()

    # --- resolving --------------------------------------------------------------------------

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        if urlsplit(self._url).path.endswith("/"):
            return self._resolve_page(small_limit, spool, share, room)
        response = self.get(self._url, {"Range": "bytes=0-0"}, allow=(416,))
        try:
            if response.url and urlsplit(response.url).path.endswith("/"):
                response.close()
                return self._resolve_page(small_limit, spool, share, room)
            return self._resolve_file(response, small_limit, spool, room)
        finally:
            response.close()

    def _resolve_file(
        self, response: urllib3.BaseHTTPResponse, small_limit: int, spool: Path | None, room: Room
    ) -> Resolution:
        if response.status == 416:
            size = self._total(response)
            if size:
                raise SourceUnsupportedError(f"{self._name}: refuses to send its first byte")
            return Resolution(self._single(0, response, ranges=True), b"")
        if response.status == 206:
            size = self._total(response)
            if size is None:
                raise SourceUnsupportedError(f"{self._name}: does not say how long it is")
            manifest = self._single(size, response, ranges=True)
            if size > small_limit:
                return Resolution(manifest)
            let_go(response)
            stream = self.stream(manifest, 0, 0, size)
            try:
                return Resolution(manifest, read_all(stream, size))
            finally:
                stream.close()
        length = self._length(response)
        if length is None:
            return self._spool(response, spool, room)
        manifest = self._single(length, response, ranges=False)
        if length > small_limit:
            return Resolution(manifest)
        return Resolution(manifest, read_all(_Body(self, response, length), length))

    def _spool(self, response: urllib3.BaseHTTPResponse, spool: Path | None, room: Room) -> Resolution:
        """One stream, whose end tells how long it is."""
        if spool is None:
            raise SourceUnsupportedError(f"{self._name}: does not say how long it is")
        body = _Body(self, response, None)
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
        entry = Entry(basename(self._source.url), size, version_of(response), checksum=offered)
        return Manifest((entry,), directory=False, ranges=ranges)

    def _resolve_page(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        response = self.get(self._folder_url(""), {})
        try:
            if not looks_like_index(response.headers.get("Content-Type", "")):
                return self._resolve_file(response, small_limit, spool, room)
            page = self._page(response, self._folder_url(""))
        finally:
            response.close()
        found = list_folder(self, self._source, page, share, self._settings.max_entries)
        if found is None:
            raise SourceUnsupportedError(
                f"{self._name}: is a page, not a listing; name a file, or have the server list the folder"
            )
        entries, ranges = found
        return Resolution(Manifest(entries, directory=True, ranges=ranges))

    def _page(self, response: urllib3.BaseHTTPResponse, url: str) -> IndexPage:
        data = bytearray()
        body = _Body(self, response, self._length(response))
        buffer = memoryview(bytearray(SKIP))
        while count := body.readinto(buffer):
            data += buffer[:count]
            if len(data) > MOST_PAGE:
                raise SourceUnsupportedError(f"{self._name}: its listing is longer than {MOST_PAGE} bytes")
        for hop in response.retries.history if response.retries else ():
            url = urljoin(url, hop.redirect_location or "")
        return IndexPage(data.decode(errors="replace"), url)

    def folder(self, path: str) -> IndexPage:
        """The listing of a folder below this one."""
        self._pace.wait()
        url = self._folder_url(path)
        response = self.get(url, {})
        try:
            return self._page(response, url)
        finally:
            response.close()

    def look(self, paths: Sequence[str]) -> list[Seen]:
        """Without their bytes. The first refusal ends it: nothing more is asked."""
        return together(self._settings.small_connections, paths, self._look)

    def _look(self, path: str) -> Seen:
        self._pace.wait()
        response = self.get(self._entry_url(path), {}, allow=(405, 501), method="HEAD")
        try:
            size = self._length(response)
            if response.status < 300 and size is not None:
                ranges = response.headers.get("Accept-Ranges", "").lower() == "bytes"
                return Seen(size, version_of(response), ranges, in_headers(response.headers, response.status))
        finally:
            let_go(response)
        return self._look_at_first_byte(path)

    def _look_at_first_byte(self, path: str) -> Seen:
        """For servers that do not answer HEAD, or not with the length."""
        self._pace.wait()
        response = self.get(self._entry_url(path), {"Range": "bytes=0-0"}, allow=(416,))
        try:
            ranges = response.status in (206, 416)
            size = self._total(response) if ranges else self._length(response)
            if size is None:
                raise SourceUnsupportedError(f"{self._name}{path}: does not say how long it is")
            return Seen(size, version_of(response), ranges, in_headers(response.headers, response.status))
        finally:
            response.close()

    def _folder_url(self, path: str) -> str:
        return f"{self._folders}{quote(f'{path}/' if path else '', safe=_PLAIN)}{self._query}"

    def _entry_url(self, path: str) -> str:
        return f"{self._files}{quote(path, safe=_PLAIN)}{self._query}"

    # --- reading ----------------------------------------------------------------------------

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        entry = manifest.entries[number]
        url = self._entry_url(entry.path) if manifest.directory else self._url
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
        response = self.get(url, headers, allow=(416,))
        try:
            start = self._check(response, entry, offset)
            stream = _Body(self, response, length, whole=response.status == 206 or whole)
            stream.skip(offset - start)
            return stream
        except BaseException:
            response.close()
            raise

    def many(
        self, manifest: Manifest, wanted: Sequence[tuple[int, memoryview]], slots: Slots, progress: Progress
    ) -> list[int]:
        asked = [self._wanted(manifest.entries[number], number, view) for number, view in wanted]
        with slots.several(self._parallel) as connections:
            bad = self._fetch_many(asked, connections, progress)
        return [each.number for each in bad]

    def _fetch_many(self, asked: Sequence[Wanted], connections: int, progress: Progress) -> list[Wanted]:
        """Those that did not go well."""
        try:
            many = self._many.pop()
        except IndexError:
            many = ManyFiles(self._headers, self._settings, self._rules)
        try:
            bad = many.fetch(asked, connections, progress)
        except BaseException:
            many.close()
            raise
        self._many.append(many)
        for each in bad:
            if each.status in BUSY:
                raise self._refused(each.status, each.retry_after)
        return bad

    def ranges(self, manifest: Manifest, spans: Sequence[Segment], connections: int) -> list[bytes]:
        found: dict[int, bytes] = {}
        if len(spans) > 1 and manifest.directory and self._settings.max_requests is None:
            found = self._quick_ranges(manifest, spans, connections)
        rest = [at for at in range(len(spans)) if at not in found]
        if rest:
            found |= zip(
                rest, together(connections, rest, lambda at: self._paced(manifest, spans[at])), strict=True
            )
        return [found[at] for at in range(len(spans))]

    def _quick_ranges(
        self, manifest: Manifest, spans: Sequence[Segment], connections: int
    ) -> dict[int, bytes]:
        """What goes well at the first try, by its place in `spans`."""
        asked = []
        for at, span in enumerate(spans):
            entry = manifest.entries[span.entry]
            whole = span.length == entry.size
            # Where the origin has no ranges, a longer file is left to a stream that ends early.
            if whole or manifest.ranges:
                view = memoryview(bytearray(span.length))
                asked.append(self._wanted(entry, at, view, None if whole else span.offset))
        bad = {each.number for each in self._fetch_many(asked, connections, lambda _: self._go_on())}
        return {each.number: bytes(each.view) for each in asked if each.number not in bad}

    def _paced(self, manifest: Manifest, span: Segment) -> bytes:
        self._pace.wait()
        return self.range_of(manifest, span)

    def _wanted(self, entry: Entry, number: int, view: memoryview, start: int | None = None) -> Wanted:
        version = comparable(entry)

        def fits(etag: str, last_modified: str) -> bool:
            found = etag or last_modified
            return not version or not found or found == version

        return Wanted(number, self._entry_url(entry.path), view, fits, start)

    def _check(self, response: urllib3.BaseHTTPResponse, entry: Entry, offset: int) -> int:
        """Where the body starts in the entry. Raises `SourceChangedError` for another version."""
        name = f"{self._name} ({entry.path})"
        wanted, found = comparable(entry), version_of(response)
        if response.status == 416 or (wanted and found and found != wanted):
            raise SourceChangedError(f"{name}: has changed since it was looked at; start again")
        if response.status == 206:
            match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if not match or match[1] is None or int(match[1]) != offset:
                raise SourceUnsupportedError(f"{name}: answers with another range than the one asked for")
            total = self._total(response)
            start = offset
        else:
            total, start = self._length(response), 0
        if total is not None and total != entry.size:
            raise SourceChangedError(f"{name}: has {total} bytes now, not {entry.size}; start again")
        return start

    def _total(self, response: urllib3.BaseHTTPResponse) -> int | None:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        return parse_size(match[3], self._name) if match and match[3] != "*" else None

    def _length(self, response: urllib3.BaseHTTPResponse) -> int | None:
        if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
            return None
        return parse_size(response.headers.get("Content-Length"), self._name)

    # --- requests ---------------------------------------------------------------------------

    def get(
        self, url: str, headers: dict[str, str], *, allow: tuple[int, ...] = (), method: str = "GET"
    ) -> urllib3.BaseHTTPResponse:
        """An answer of 2xx (or one in `allow`), its body unread. Tries again where that may help.

        Raises `SourceError`. A 429 or 503 is never tried again here: the whole cluster must wait.
        """
        self._go_on()
        try:
            response = self._request(method, url, {**self._headers, **headers})
        except Forbidden as refused:
            raise SourceForbiddenError(f"{self._name}: {refused.error}") from None
        except HTTPError as failure:
            raise self._failed(failure) from None
        except (ValueError, UnicodeError):
            raise SourceUnsupportedError(f"{self._name}: is no URL that can be asked for") from None
        self._answers.add(response)
        if 200 <= response.status < 300 or response.status in allow:
            try:
                self._go_on()
            except SourceError:
                response.close()
                raise
            return response
        response.close()
        raise self._refused(response.status, response.headers.get("Retry-After"))

    def _go_on(self) -> None:
        if self._aborted:
            raise SourceError(f"{self._name}: not wanted any more")

    def _request(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        while True:
            try:
                return self._pool.request(
                    method,
                    url,
                    headers=headers,
                    preload_content=False,
                    decode_content=False,
                    retries=self._retries,
                )
            except ClosedPoolError:
                pass  # `rest` came between: nothing was asked yet, and the pool has a successor

    def _refused(self, status: int, retry_after: str | None) -> SourceError:
        if status in (401, 403, 407):
            return SourceAuthError(f"{self._name}: {status}, not allowed; check the credentials or headers")
        if status == 412:
            return SourceChangedError(f"{self._name}: has changed since it was looked at; start again")
        if status in (404, 410):
            return SourceNotFoundError(f"{self._name}: {status}, not found")
        if status in (429, 503):
            after = _retry_after(retry_after)
            wait = "" if after is None else f" for {after:g} s"
            return SourceBusyError(f"{self._name}: {status}, asks for patience{wait}", retry_after=after)
        if status >= 500:
            return SourceUnreachableError(f"{self._name}: {status}, the server has failed")
        return SourceError(f"{self._name}: {status}, refused")

    def _failed(self, error: Exception) -> SourceError:
        cause: Any = error
        while getattr(cause, "reason", None) is not None and isinstance(cause.reason, Exception):
            cause = cause.reason
        if isinstance(cause, ReadTimeoutError):
            return SourceUnreachableError(f"{self._name}: silent for too long")
        if isinstance(cause, IncompleteRead):
            return SourceTruncatedError(f"{self._name}: ended too early")
        if isinstance(cause, BrokenError):
            return SourceUnreachableError(f"{self._name}: the connection broke")
        shown = _PLAINLY.get(type(cause).__name__, f"not reached ({type(cause).__name__})")
        return SourceUnreachableError(f"{self._name}: {shown}")


class _Tries(urllib3.Retry):
    """Asked before every further request: a redirect, or another try."""

    go_on: Callable[[], None] = staticmethod(lambda: None)

    def new(self, **changes: Any) -> Self:
        made = super().new(**changes)
        made.go_on = self.go_on
        return made

    def increment(self, *what: Any, **more: Any) -> Self:
        self.go_on()
        return super().increment(*what, **more)


class _Body(Stream):
    """`length` bytes of a response; None: until it ends. `whole`: the body has no more than that."""

    def __init__(
        self,
        adapter: HttpAdapter,
        response: urllib3.BaseHTTPResponse,
        length: int | None,
        *,
        whole: bool = True,
    ) -> None:
        self._adapter = adapter
        self._response = response
        self._left = length
        self._whole = whole

    def skip(self, count: int) -> None:
        """Of a server that has no ranges."""
        scratch = memoryview(bytearray(min(SKIP, count))) if count else memoryview(b"")
        while count:
            got = self._read(scratch[:count])
            if not got:
                raise SourceTruncatedError(f"{self._adapter._name}: ended too early")
            count -= got

    def readinto(self, view: memoryview) -> int:
        if self._left is not None:
            view = view[: self._left]
        count = self._read(view) if len(view) else 0
        if self._left is not None:
            self._left -= count
        return count

    def _read(self, view: memoryview) -> int:
        try:
            count = self._response.readinto(view)
            if not count:
                self._adapter._go_on()  # where no length was told, a cut stream looks like its end
            return count
        except SourceError:
            raise
        except HTTPError as error:
            raise self._adapter._failed(error) from None
        except (OSError, ValueError) as error:
            raise SourceUnreachableError(
                f"{self._adapter._name}: the connection broke ({type(error).__name__})"
            ) from None

    def close(self) -> None:
        if self._left == 0 and self._whole:
            let_go(self._response)
        else:
            self._response.close()


def _basic(userinfo: str) -> str:
    """As curl sends a URL's user and password: percent escapes stand for their bytes."""
    user, _, password = userinfo.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return f"Basic {base64.b64encode(pair).decode()}"


def version_of(response: urllib3.BaseHTTPResponse) -> str:
    """Whatever tells one content from the next; empty if the server says nothing."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


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


def _retry_after(text: str | None) -> float | None:
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return MAX_RETRY_AFTER if len(text) > 5 else min(MAX_RETRY_AFTER, float(text))
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(MAX_RETRY_AFTER, max(0.0, seconds))
