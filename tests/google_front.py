"""Google's front before a storage emulator, in what it does to encodings; the emulator leaves them alone.

As documented under "Transcoding of gzip-compressed files": an object of `Content-Encoding: gzip` is sent as it is
stored to whoever accepts gzip, ranges included. To others it is unpacked on the way, whole, whatever range was asked
for, and without its length. Other encodings are sent as they are.
"""

from __future__ import annotations

import contextlib
import gzip
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.local_server import LocalServer

_MEDIA = re.compile(r"/download(/storage/v1/b/[^/]+/o/[^/?]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class GoogleFront(LocalServer):
    """`packs`: whether it packs what is stored as it is, for those that accept gzip. `unpacked`: objects that left
    it unpacked."""

    def __init__(self, emulator: str) -> None:
        self.packs = False
        self.unpacked: list[str] = []
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                media = _MEDIA.match(self.path)
                if media and "alt=media" in self.path:
                    front._media(self, emulator, media[1])
                else:
                    front._told(self, emulator)

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(Handler)

    def _told(self, handler: BaseHTTPRequestHandler, emulator: str) -> None:
        """What it tells of objects, packed for those that accept it."""
        answer = httpx.get(f"{emulator}{handler.path}", headers={"Accept-Encoding": "identity"})
        data, headers = answer.content, {"Content-Type": "application/json"}
        if _accepts_gzip(handler):
            data, headers = gzip.compress(data), {**headers, "Content-Encoding": "gzip"}
        _send(handler, answer.status_code, data, {**headers, "Content-Length": str(len(data))})

    def _media(self, handler: BaseHTTPRequestHandler, emulator: str, place: str) -> None:
        told: dict[str, Any] = httpx.get(f"{emulator}{place}").json()
        if "name" not in told:
            _send(handler, 404, b"", {"Content-Length": "0"})
            return
        with httpx.stream("GET", f"{emulator}/download{place}?alt=media") as answer:
            stored = b"".join(answer.iter_raw())
        encoding = told.get("contentEncoding") or "identity"
        headers = {
            "X-Goog-Stored-Content-Encoding": encoding,
            "X-Goog-Generation": str(told.get("generation")),
        }
        if encoding == "gzip" and not _accepts_gzip(handler):
            self.unpacked.append(urlsplit(place).path)
            headers["Warning"] = "214 UploadServer gunzipped"
            handler.close_connection = True
            _send(handler, 200, gzip.decompress(stored), {**headers, "Connection": "close"})
            return
        if encoding == "identity" and self.packs and _accepts_gzip(handler):
            data = gzip.compress(stored)
            _send(
                handler, 200, data, {**headers, "Content-Encoding": "gzip", "Content-Length": str(len(data))}
            )
            return
        if encoding != "identity":
            headers["Content-Encoding"] = encoding
        status, asked = 200, _RANGE.fullmatch(handler.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(int(asked[2]) + 1, len(stored))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(stored)}"
            status, stored = 206, stored[start:end]
        _send(handler, status, stored, {**headers, "Content-Length": str(len(stored))})


def _accepts_gzip(handler: BaseHTTPRequestHandler) -> bool:
    return "gzip" in handler.headers.get("Accept-Encoding", "")


def _send(handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # who asked has gone
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)
