"""Buckets that list without end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.sources import resolve
from tests.local_server import ThreadedServer

ENOUGH = 60
"""Pages after which the server stops, so that a client that does not is found out and not waited for."""
FEW = OriginSettings(max_entries=2500)


def s3_page(number: int, count: int) -> tuple[str, bytes]:
    keys = "".join(
        f"<Contents><Key>top/{number:04}-{n:04}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-11-01T00:00:00.000Z</LastModified></Contents>"
        for n in range(count)
    )
    more = "true" if number < ENOUGH else "false"
    return "application/xml", (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
        f"<Prefix>top/</Prefix><KeyCount>{count}</KeyCount><IsTruncated>{more}</IsTruncated>"
        f"<NextContinuationToken>t{number}</NextContinuationToken>{keys}</ListBucketResult>"
    ).encode()


def gcs_page(number: int, count: int) -> tuple[str, bytes]:
    items = [
        {
            "kind": "storage#object",
            "name": f"top/{number:04}-{n:04}",
            "bucket": "b",
            "size": "1",
            "generation": "1",
        }
        for n in range(count)
    ]
    page: dict[str, object] = {"kind": "storage#objects", "items": items}
    if number < ENOUGH:
        page["nextPageToken"] = f"t{number}"
    return "application/json", json.dumps(page).encode()


@contextmanager
def endless(page: Callable[[int, int], tuple[str, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """A store whose every listing goes on; the address, and what was listed."""
    listed: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            kind, body, status = "text/plain", b"", 404
            if "list-type" in query or self.path.partition("?")[0].endswith("/o"):
                most = int((query.get("max-keys") or query.get("maxResults") or ["1000"])[0])
                listed.append(self.path)
                kind, body = page(len(listed), min(1000, most))
                status = 200
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

    server = ThreadedServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", listed
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "page", "options"),
    [
        ("s3://b/top/", s3_page, {"key": "k", "secret": "s"}),
        ("gs://b/top/", gcs_page, {"token": "anon"}),
    ],
)
def test_a_bucket_without_end_is_left_when_it_is_too_much(
    url: str,
    page: Callable[[int, int], tuple[str, bytes]],
    options: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with endless(page) as (address, listed):
        with pytest.raises(SourceUnsupportedError, match="max_entries"):
            resolve(Source(url), Credentials(storage_options=options | {"endpoint_url": address}), FEW)
        assert len(listed) < 10
