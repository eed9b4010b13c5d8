"""Bodies of HTTP answers as streams, and what an answer's headers tell of them."""

from __future__ import annotations

import re
from typing import NamedTuple

import urllib3
from urllib3.exceptions import HTTPError

from dragonfly_ray.errors import SourceChangedError, SourceError, SourceTruncatedError, SourceUnreachableError
from dragonfly_ray.sources.base import Stream, parse_size
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.http_connections import let_go

SKIP = 256 * 1024
"""Bytes that are read at once of what nobody wants."""
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]+|\*)")


class ContentRange(NamedTuple):
    """Of an answer to a range: where it starts, and how long the file is; None where it does not say."""

    start: int | None
    total: int | None


def content_range(response: urllib3.BaseHTTPResponse, name: str) -> ContentRange | None:
    """None without such a header. Raises `SourceUnsupportedError` for a length that cannot be one."""
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if not match:
        return None
    total = parse_size(match[3], name) if match[3] != "*" else None
    return ContentRange(None if match[1] is None else int(match[1]), total)


def length_of(response: urllib3.BaseHTTPResponse, name: str) -> int | None:
    """The length of the body; None where only its end tells."""
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    return parse_size(response.headers.get("Content-Length"), name)


class Body(Stream):
    """`length` bytes of a response; None: until it ends. `whole`: the body has no more than that.

    Where the response does not say that itself, one that goes on raises `SourceChangedError`.
    """

    def __init__(
        self,
        client: HttpClient,
        response: urllib3.BaseHTTPResponse,
        length: int | None,
        *,
        whole: bool = True,
    ) -> None:
        self._client = client
        self._response = response
        self._left = length
        self._whole = whole
        self.asks = True
        self._checks_end = whole and length is not None and length_of(response, client.name) is None

    @property
    def ended(self) -> bool:
        """All of it was read."""
        return self._left == 0

    def skip(self, count: int) -> None:
        """Reads so many bytes that nobody wants."""
        scratch = memoryview(bytearray(min(SKIP, count))) if count else memoryview(b"")
        while count:
            got = self.readinto(scratch[:count])
            if not got:
                raise SourceTruncatedError(f"{self._client.name}: truncated, fewer bytes than announced")
            count -= got

    def readinto(self, view: memoryview) -> int:
        if self._left is not None:
            view = view[: self._left]
        count = self._read(view) if len(view) else 0
        if self._left is not None:
            self._left -= count
            if count and not self._left and self._checks_end and self._read(memoryview(bytearray(1))):
                raise SourceChangedError(
                    f"{self._client.name}: longer than when it was resolved; distribute it again"
                )
        return count

    def _read(self, view: memoryview) -> int:
        try:
            # A read goes on until the view is full: the first byte by itself tells that the body has begun.
            count = self._response.readinto(view[:1] if self.asks else view)
            if count and self.asks:
                self.asks = False
                self._client.begun(self._response)
                count += self._response.readinto(view[1:]) if len(view) > 1 else 0
            if not count:
                self._client.go_on()  # where no length was told, a cut stream looks like its end
            elif self._client.patience:
                self._client.patience.answered()
            return count
        except SourceError:
            raise
        except HTTPError as error:
            raise self._client.failed(error) from None
        except (OSError, ValueError) as error:
            raise SourceUnreachableError(
                f"{self._client.name}: connection lost ({type(error).__name__})"
            ) from None

    def close(self) -> None:
        if self._left == 0 and self._whole:
            let_go(self._response)
        else:
            self._response.close()
