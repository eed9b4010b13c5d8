"""Requests for many small files, or for the headers of many, that are made at once: what each wants, and whether it got it.

Only for what goes well at the first try. A request that does not end in a plain 200 (206 for a stretch of a
file) of the right length and version is handed back, and asked for again with all the care that a single file gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

BUSY = (429, 503)
TELLING = (b"e", b"E", b"l", b"L", b"r", b"R")
"""How the headers begin that are read: ETag, Last-Modified, Retry-After."""
RANGE_TELLING = (b"c", b"C")
"""And of a stretch: Content-Range."""
BUFFER = 256 * 1024
"""Bytes that one read from a connection takes."""


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


class Many(Protocol):
    """Makes such requests. For one thread at a time. Connections are kept between calls."""

    def fetch(
        self,
        wanted: Sequence[R],
        connections: int,
        progress: Callable[[int], None],
        *,
        ends: Callable[[int], bool] = ...,
        ahead: int | None = None,
    ) -> list[R]:
        """Fills the views. Returns those that did not go well, `status` 0 where no answer came.

        After one of these whose status `ends` it (by default `BUSY`, 429 or 503) nothing further is asked. `progress`
        may raise, to end it. `ahead`: none is begun so many places after one that is still under way; None: any.
        """

    def close(self) -> None: ...


class OneByOne:
    """Where libcurl is missing: hands all back, and each is asked for alone."""

    def fetch(
        self,
        wanted: Sequence[R],
        connections: int,
        progress: Callable[[int], None],
        *,
        ends: Callable[[int], bool] = lambda status: True,
        ahead: int | None = None,
    ) -> list[R]:
        """As `Many.fetch`."""
        progress(0)
        for each in wanted:
            each.begin()
        return list(wanted)

    def close(self) -> None:
        pass
