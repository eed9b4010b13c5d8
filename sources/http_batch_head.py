"""Looks at many files of an HTTP folder at once: the headers of each, as far as all goes well at the first try."""

from __future__ import annotations

from collections.abc import Sequence

from dragonfly_ray.sources.base import Seen, parse_size
from dragonfly_ray.sources.batch_requests import Head
from dragonfly_ray.sources.http_reader import HttpReader
from dragonfly_ray.sources.http_validators import tells_parts, version_of
from dragonfly_ray.sources.origin_checksums import in_headers

FEW = 8
"""Fewer files are looked at one by one: that is as quick."""


class BatchHead:
    """Of one source. What it leaves out is for a look with more care, which knows what a refusal means."""

    def __init__(self, reader: HttpReader, name: str, connections: int) -> None:
        self._reader = reader
        self._name = name
        self._connections = connections
        self._useful = True
        """Until one did not go well: most servers answer all alike."""

    def fits(self, paths: Sequence[str]) -> bool:
        """Whether it is of use for so many."""
        return self._useful and len(paths) >= FEW

    def __call__(self, paths: Sequence[str]) -> tuple[dict[int, Seen], list[int]]:
        """By its place in `paths`; and the places of those that were asked for and did not go well.

        Raises `SourceError` for a size that cannot be one, and once aborted.
        """
        refused: list[int] = []
        found: dict[int, Seen] = {}
        for head in self._reader.heads(paths, self._connections):
            if head.status != 200:
                refused += [head.number] if head.status else []
                continue
            seen = _seen(head, self._name)
            if seen is not None:
                found[head.number] = seen
        self._useful = len(found) == len(paths)
        return found, refused


def _seen(head: Head, name: str) -> Seen | None:
    """None where the headers do not tell how long the file is."""
    headers = head.headers
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return None
    size = parse_size(headers.get("content-length"), name)
    if size is None:
        return None
    version = version_of(
        {
            "ETag": headers.get("etag", ""),
            "Last-Modified": headers.get("last-modified", ""),
            "Date": headers.get("date", ""),
        }
    )
    ranges = headers.get("accept-ranges", "").lower() == "bytes" and tells_parts(version)
    return Seen(size, version, ranges, in_headers(headers, head.status))
