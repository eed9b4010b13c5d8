"""Origins that lie, stall, change and complain: a scripted HTTP server on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Self
from urllib.parse import quote, unquote

from tests.local_server import ThreadedServer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Behaviour:
    """How the origin answers. Whatever is changed counts from the next request on."""

    content: bytes = b""
    etag: str = '"v1"'
    last_modified: str = ""
    ranges: bool = True
    length: bool = True
    status: int = 0
    """Answer everything with this, if not 0."""
    headers: dict[str, str] = field(default_factory=dict)
    truncate: int | None = None
    """Close after so many bytes of a body."""
    claim: int | None = None
    """A Content-Length that is not true."""
    stall: int | None = None
    """Say nothing more after so many bytes of a body."""
    reset: int | None = None
    """Reset the connection (RST) after so many bytes of a body."""
    redirect: str = ""
    demand: dict[str, str] = field(default_factory=dict)
    """Headers that every request must have; 401 without."""
    pace: float | None = None
    """Bytes a second of each answer, in small steps."""
    hold: float = 0.0
    """Seconds before an answer begins."""
    hold_body: float = 0.0
    """Seconds between its headers and its body."""
    before: Callable[[int], int] | None = None
    """Called with the number of the request; a status to answer with, or 0."""


class BusyOnce:
    """A `behaviour` that says once, in answer to request `number`, to be left alone for `pause` seconds."""

    def __init__(self, content: bytes, number: int = 8, pause: float = 6.0) -> None:
        self.behaviour = Behaviour(content, headers={"Retry-After": f"{pause:g}"}, before=self._complain)
        self.number, self.pause = number, pause
        self.said = 0.0

    def _complain(self, number: int) -> int:
        if number == self.number:
            self.said = time.monotonic()
            return 429
        if self.said:
            # Quick answers would let a connection have several until everybody has heard.
            self.behaviour.hold = max(0.0, self.said + self.pause / 3 - time.monotonic())
        return 0

    def assert_left_alone(self, origin: ScriptedOrigin, connections: int) -> None:
        """Whoever has not heard of it yet may have one request under way on each connection, and no more: the
        answers to these are held back. After a third of the pause all have heard. A hundredth of it is for
        clocks that are read at different places."""
        after = [at - self.said for at, _, _ in origin.requests if at > self.said]
        early = [seconds for seconds in after if seconds < 0.99 * self.pause]
        assert len(early) <= connections, early
        assert not [seconds for seconds in early if seconds > self.pause / 3], early
        assert len(after) > len(early), "it is asked again"


class ScriptedOrigin:
    """Serves `behaviour` at every path; `requests` holds (time, status, range) of each."""

    def __init__(self, behaviour: Behaviour, address: str = "127.0.0.1") -> None:
        self.behaviour = behaviour
        self.address = address
        self.active = 0
        """Answers under way."""
        self.sent = 0
        """Bytes of bodies, as they leave."""
        self.headers: list[dict[str, str]] = []
        """Of each request, names in small letters."""
        self.requests: list[tuple[float, int, str]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                with origin._lock:
                    origin.active += 1
                try:
                    origin.answer(self)
                finally:
                    with origin._lock:
                        origin.active -= 1

            do_HEAD = do_GET

        self._server = ThreadedServer((address, 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}/content.bin"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        with self._lock:
            number, before = len(self.requests), self.behaviour.before
            status = before(number) if before and not self.behaviour.status else 0
            b = replace(self.behaviour)
            lacks = any(handler.headers.get(name) != value for name, value in b.demand.items())
            status = b.status or status or (401 if lacks else 0)
            self.requests.append((time.monotonic(), status, asked))
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        if b.hold and self._stop.wait(b.hold):
            return
        if b.redirect and not handler.path.startswith("/moved"):
            handler.send_response(302)
            handler.send_header("Location", b.redirect)
            for name, value in b.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if status:
            handler.send_response(status)
            for name, value in b.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self._body(handler, b, asked)

    def _body(self, handler: BaseHTTPRequestHandler, b: Behaviour, asked: str) -> None:
        data, start, code = b.content, 0, 200
        match = _RANGE.match(asked) if b.ranges else None
        if match:
            start = int(match[1])
            end = min(len(data), int(match[2]) + 1) if match[2] else len(data)
            data, code = data[start:end], 206
        if match and not data:
            code = 416
        handler.send_response(code)
        if b.etag:
            handler.send_header("ETag", b.etag)
        if b.last_modified:
            handler.send_header("Last-Modified", b.last_modified)
        if code == 416:
            handler.send_header("Content-Range", f"bytes */{len(b.content)}")
        elif code == 206:
            handler.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{len(b.content)}")
        if b.length:
            handler.send_header("Content-Length", str(len(data) if b.claim is None else b.claim))
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if b.hold_body and self._stop.wait(b.hold_body):
            return
        cut = min(x for x in (b.truncate, b.stall, b.reset, len(data)) if x is not None)
        try:
            step = len(data) if b.pace is None else max(1, int(b.pace / 20))
            for start in range(0, cut, step):
                handler.wfile.write(data[start : min(cut, start + step)])
                with self._lock:
                    self.sent += min(cut, start + step) - start
                if b.pace is not None and self._stop.wait(step / b.pace):
                    return
            handler.wfile.flush()
            if b.stall is not None and cut < len(data):
                self._stop.wait(60)
        except OSError:
            pass
        if b.reset is not None and cut < len(data):
            reset_connection(handler)
        if cut < len(data) or b.claim is not None:
            handler.close_connection = True


def reset_connection(handler: BaseHTTPRequestHandler) -> None:
    """RST, whatever is under way on it."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())


def _closed(connection: socket.socket) -> bool:
    """Whether the other end has closed it, though its thread has not come to see that yet."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class FolderOrigin:
    """A folder whose listing tells no sizes, as Python's own server does, and who asks for what.

    `asked`: (method, path, range) of each request. `most_open`: connections that were open at once.
    """

    def __init__(self, files: dict[str, bytes], address: str = "127.0.0.1") -> None:
        self.files = files
        self.head_status = 0
        """Answer HEAD with this, if not 0."""
        self.ranges = True
        self.stall: int | None = None
        """Say nothing more after so many bytes of a file."""
        self.stopped = threading.Event()
        self.lengths = True
        """Whether answers tell their length; else they are chunked."""
        self.before: Callable[[str, str], int] | None = None
        """Called with method and path; a status to answer with, or 0."""
        self.allowed: Callable[[str, str, str], bool] | None = None
        """Called with a path, the request's X-Api-Key and its range: whether it may be read. Listings and HEAD
        always may."""
        self.asked: list[tuple[str, str, str]] = []
        self.keys: list[tuple[str, str]] = []
        """(path, X-Api-Key) of each file that was sent, whole or in part."""
        self.times: list[float] = []
        self.open: set[socket.socket] = set()
        self.most_open = 0
        self.opened = 0
        """Connections, in all."""
        self.lock = threading.Lock()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with origin.lock:
                    origin.open.add(self.connection)
                    origin.opened += 1
                    open_now = sum(not _closed(connection) for connection in origin.open)
                    origin.most_open = max(origin.most_open, open_now)

            def finish(self) -> None:
                with origin.lock:
                    origin.open.discard(self.connection)
                super().finish()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                origin.answer(self)

            def do_HEAD(self) -> None:
                origin.answer(self)

        class Server(ThreadedServer):
            def handle_error(self, request: object, address: object) -> None:
                pass  # a peer that has gone

        self._server = Server((address, 0), Handler)
        self.url = f"http://{address}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str) -> dict[str, int]:
        """Path -> how often it was asked for so."""
        with self.lock:
            return dict(Counter(path for how, path, _ in self.asked if how == method))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, asked = unquote(handler.path.lstrip("/")), handler.headers.get("Range", "")
        with self.lock:
            self.asked.append((handler.command, path, asked))
            self.times.append(time.monotonic())
        status = self.before(handler.command, path) if self.before else 0
        if handler.command == "HEAD":
            status = status or self.head_status
        if not status and path and path not in self.files:
            status = 404
        if not status and path and handler.command == "GET":
            key = handler.headers.get("X-Api-Key", "")
            if self.allowed and not self.allowed(path, key, asked):
                status = 403
            else:
                with self.lock:
                    self.keys.append((path, key))
        if status:
            self._send(handler, status, b"", {})
        elif not path:
            links = "".join(f'<li><a href="{quote(name)}">{name}</a></li>' for name in self.files)
            page = f"<title>Directory listing for /</title><ul>{links}</ul>"
            self._send(handler, 200, page.encode(), {"Content-Type": "text/html"})
        else:
            self._file(handler, self.files[path], asked)

    def _file(self, handler: BaseHTTPRequestHandler, data: bytes, asked: str) -> None:
        headers = {"ETag": f'"{zlib.crc32(data):x}"'}
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
        match = _RANGE.match(asked) if self.ranges and data else None
        if not match:
            self._send(handler, 200, data, headers)
            return
        start, end = int(match[1]), min(len(data), int(match[2] or len(data)) + 1)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send(handler, 206, data[start:end], headers)

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]
    ) -> None:
        if self.lengths:
            headers = {**headers, "Content-Length": str(len(data))}
        else:
            headers = {**headers, "Transfer-Encoding": "chunked"}
            data = b"".join((b"%x\r\n%b\r\n" % (len(data), data) if data else b"", b"0\r\n\r\n"))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            with contextlib.suppress(OSError):
                if self.stall is not None and self.stall < len(data):
                    handler.wfile.write(data[: self.stall])
                    self.stopped.wait(60)
                    return
                handler.wfile.write(data)
