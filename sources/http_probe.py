"""The first request for a file, for its first byte: how long the file is, and whether it is read in ranges.

A refused range says nothing of the file: it is asked for once without.
"""

from __future__ import annotations

from dataclasses import dataclass

import urllib3

from dragonfly_ray.sources.http_body import content_range, length_of
from dragonfly_ray.sources.http_client import HttpClient
from dragonfly_ray.sources.http_connections import let_go

RANGE_REFUSED = frozenset(range(400, 500)) - {408, 425, 429} | {500, 501}
"""Statuses of an answer to a range after which it is asked for once without."""
FIRST_BYTE = {"Range": "bytes=0-0"}


@dataclass(frozen=True, slots=True)
class Probe:
    """An answer, its body unread. `size`: of the whole file; None where only its end tells."""

    response: urllib3.BaseHTTPResponse
    size: int | None
    ranges: bool
    """If so, the body is the first byte alone, or nothing; else it is the whole file."""


def probe(client: HttpClient, url: str) -> Probe:
    """Raises `SourceError`, as `HttpClient.get` does for a request without a range."""
    response = client.get(url, FIRST_BYTE, allow=RANGE_REFUSED)
    try:
        found = content_range(response, client.name)
        if response.status == 206 and found and found.start == 0 and found.total is not None:
            return Probe(response, found.total, ranges=True)
        if response.status == 416 and found and found.total == 0:
            return Probe(response, 0, ranges=True)
        if response.status < 300 and response.status != 206:
            return Probe(response, length_of(response, client.name), ranges=False)
    except BaseException:
        response.close()
        raise
    let_go(response)
    response = client.get(url)
    return Probe(response, length_of(response, client.name), ranges=False)
