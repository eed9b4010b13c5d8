"""Many small files, or the headers of many, at once over a few kept connections: libcurl, whole bodies, straight into
their buffers.

Only for what goes well at the first try. A request that does not end in a plain 200 (206 for a stretch of a
file) of the right length and version is handed back, and asked for again with all the care that a single file gets.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pycurl

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.policy import Rules
from dragonfly_ray.sources.guard import guard_handle
from dragonfly_ray.sources.proxies import Proxy
from dragonfly_ray.sources.silence import Silences

BUSY = (429, 503)
TELLING = (b"e", b"E", b"l", b"L", b"r", b"R")
"""How the headers begin that are read: ETag, Last-Modified, Retry-After."""
RANGE_TELLING = (b"c", b"C")
"""And of a stretch: Content-Range."""
BUFFER = 256 * 1024
"""Bytes that one read from a connection takes."""
WAIT = 1.0
"""Seconds after which a quiet round looks whether it is still wanted."""


class Request(Protocol):
    """What is asked for at once with others. `status` is 0 where no answer came."""

    url: str
    view: memoryview
    """What the body goes into."""
    status: int
    headers_only: bool

    @property
    def range(self) -> str:
        """As libcurl wants it; empty for the whole file."""

    def begin(self) -> None: ...

    def header(self, line: bytes) -> None: ...

    def body(self, data: bytes) -> int: ...

    def end(self, status: int) -> bool:
        """Whether all is as it should be."""


R = TypeVar("R", bound=Request)


@dataclass
class Wanted:
    """One whole file, or a stretch of one. `fits(etag, last_modified)`: whether these tell of the version that is meant."""

    number: int
    url: str
    view: memoryview
    fits: Callable[[str, str], bool]
    start: int | None = None
    """Where the stretch begins that is wanted, as long as the view; None: the whole file."""
    status: int = 0
    retry_after: str = ""
    headers_only: bool = False
    _at: int = 0
    _good: bool = False
    _headers: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        self._at, self._good, self.status = 0, False, 0
        self._headers.clear()

    def header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            self._headers.clear()
            self._good = line.split()[1:2] == ([b"200"] if self.start is None else [b"206"])
        if line[:1] not in TELLING and (self.start is None or line[:1] not in RANGE_TELLING):
            return
        name, colon, value = line.partition(b":")
        if colon:
            self._headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")

    def body(self, data: bytes) -> int:
        end = self._at + len(data)
        if not self._good:
            # An error page; or all of a file of which a little was asked for, which is not waited for.
            return len(data) if self.start is None or self._seen(len(data)) <= BUFFER else -1
        if end > len(self.view):
            return -1  # longer than it should be: libcurl gives the request up
        self.view[self._at : end] = data
        self._at = end
        return len(data)

    @property
    def range(self) -> str:
        """As libcurl wants it; empty for the whole file."""
        return "" if self.start is None else f"{self.start}-{self.start + len(self.view) - 1}"

    def _seen(self, count: int) -> int:
        self._at += count
        return self._at

    def end(self, status: int) -> bool:
        """Whether all is as it should be."""
        self.status = status
        self.retry_after = self._headers.get("retry-after", "")
        return (
            self._good
            and self._at == len(self.view)
            and (
                self.start is None
                or self._headers.get("content-range", "").startswith(f"bytes {self.range}/")
            )
            and self.fits(self._headers.get("etag", ""), self._headers.get("last-modified", ""))
        )


@dataclass
class Head:
    """The headers of one file."""

    number: int
    url: str
    status: int = 0
    retry_after: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Their names in small letters."""
    view: memoryview = field(default_factory=lambda: memoryview(b""))
    headers_only: bool = True
    range: str = ""

    def begin(self) -> None:
        self.status = 0
        self.headers.clear()

    def header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            self.headers.clear()
            return
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            key, value = name.strip().lower(), value.strip()
            self.headers[key] = f"{known}, {value}" if (known := self.headers.get(key)) else value

    def body(self, data: bytes) -> int:
        return len(data)

    def end(self, status: int) -> bool:
        self.status = status
        self.retry_after = self.headers.get("retry-after", "")
        return status == 200


class ManyFiles:
    """For one thread at a time. Connections are kept between calls, as many as the last one might use."""

    def __init__(
        self,
        headers: Mapping[str, str],
        settings: OriginSettings,
        known: Rules | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._rules = known
        self._proxy = proxy
        self._headers = [f"{name}: {value}" for name, value in headers.items()]
        self._settings = settings
        self._multi = pycurl.CurlMulti()
        self._idle: list[pycurl.Curl] = []
        self._silences = Silences(settings)

    def fetch(
        self,
        wanted: Sequence[R],
        connections: int,
        progress: Callable[[int], None],
        *,
        ends: Callable[[int], bool] = lambda status: status in BUSY,
        ahead: int | None = None,
    ) -> list[R]:
        """Fills the views. Returns those that did not go well, `status` 0 where no answer came.

        After one of these whose status `ends` it (by default `BUSY`, 429 or 503) nothing further is asked. `progress`
        may raise, to end it. `ahead`: none is begun so many places after one that is still under way; None: any.
        """
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        todo: deque[R] = deque(wanted)
        bad: list[R] = []
        active: dict[pycurl.Curl, R] = {}
        places: dict[pycurl.Curl, int] = {}
        """Where in `wanted` those are that are under way; the first of them first."""

        def room() -> bool:
            oldest = next(iter(places.values()), None)
            far = ahead is not None and oldest is not None and len(wanted) - len(todo) - oldest >= ahead
            return len(active) < connections and not far

        try:
            while todo or active:
                while todo and room():
                    place = len(wanted) - len(todo)
                    places[self._begin(todo.popleft(), active)] = place
                self._multi.perform()
                more = True
                while more:
                    left, good, failed = self._multi.info_read()
                    more = left > 0
                    for handle in [*good, *(h for h, _, _ in failed)]:
                        done = self._end(handle, active)
                        del places[handle]
                        if done.end(handle.getinfo(pycurl.RESPONSE_CODE)):
                            progress(len(done.view))
                            continue
                        bad.append(done)
                        if ends(done.status):
                            bad.extend(todo)
                            todo.clear()
                if todo and room():
                    continue  # a request that is not begun wakes nobody up
                if active:
                    self._multi.select(min(WAIT, self._silences.pause))
                    progress(0)
                    bad.extend(
                        self._end(each, active, keep=False)
                        for each in self._silences.overdue(time.monotonic())
                    )
        finally:
            for handle in list(active):
                self._end(handle, active, keep=False)
        return bad

    def close(self) -> None:
        for handle in self._idle:
            handle.close()
        self._idle.clear()
        self._multi.close()

    def _begin(self, wanted: R, active: dict[pycurl.Curl, R]) -> pycurl.Curl:
        handle = self._idle.pop() if self._idle else self._handle()
        wanted.begin()
        handle.setopt(pycurl.URL, wanted.url)
        handle.setopt(pycurl.NOBODY if wanted.headers_only else pycurl.HTTPGET, 1)
        if wanted.range:
            handle.setopt(pycurl.RANGE, wanted.range)
        else:
            handle.unsetopt(pycurl.RANGE)
        handle.setopt(pycurl.WRITEFUNCTION, wanted.body)
        handle.setopt(pycurl.HEADERFUNCTION, wanted.header)
        self._multi.add_handle(handle)
        self._silences.begin(handle, time.monotonic())
        active[handle] = wanted
        return handle

    def _end(self, handle: pycurl.Curl, active: dict[pycurl.Curl, R], *, keep: bool = True) -> R:
        self._multi.remove_handle(handle)
        self._silences.end(handle)
        if keep:
            self._idle.append(handle)
        else:
            handle.close()
        return active.pop(handle)

    def _lead(self, handle: pycurl.Curl) -> None:
        """Through the proxy that was chosen, or directly; what the variables say libcurl is not asked for."""
        handle.setopt(pycurl.PROXY, self._proxy.url if self._proxy else "")
        handle.setopt(pycurl.NOPROXY, "")
        if self._proxy and self._proxy.headers:
            handle.setopt(pycurl.PROXYUSERNAME, self._proxy.user)
            handle.setopt(pycurl.PROXYPASSWORD, self._proxy.password)

    def _handle(self) -> pycurl.Curl:
        settings = self._settings
        handle = pycurl.Curl()
        handle.setopt(pycurl.HTTPHEADER, self._headers)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.BUFFERSIZE, BUFFER)
        self._lead(handle)
        if self._rules:
            guard_handle(handle, self._rules)
        # A redirect is none of its business: what opens this origin must not follow it elsewhere.
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, int(1000 * settings.connect_timeout))
        handle.setopt(pycurl.SOCKOPTFUNCTION, self._silences.watch)
        trusted = ssl.get_default_verify_paths()
        if trusted.cafile:
            handle.setopt(pycurl.CAINFO, trusted.cafile)
        if trusted.capath:
            handle.setopt(pycurl.CAPATH, trusted.capath)
        return handle
