"""An origin that paces every connection: a threaded HTTP server with ranges, for one folder.

    python -m tests.paced --address 127.0.0.1 --port 8080 --rate 2000000 --log FILE ROOT

The kernel does the pacing, by `SO_MAX_PACING_RATE` on each accepted socket, so it holds for every
byte of every request. (nginx's `limit_rate` grants each request a second's worth at once.)
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_PACING_RATE = 47
"""SO_MAX_PACING_RATE of Linux; the socket module does not name it."""
CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class PacedServer(ThreadingHTTPServer):
    """`rate`: bytes a second of each connection. Every answer is a line in `log`: bytes, method, path."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], root: Path, rate: int, log: Path | None = None) -> None:
        super().__init__(address, _Handler)
        self.root = root
        self._rate = rate
        self._log = log
        self._lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        accepted.setsockopt(socket.SOL_SOCKET, MAX_PACING_RATE, self._rate)
        return accepted, address

    def answered(self, sent: int, method: str, path: str) -> None:
        if self._log:
            with self._lock, self._log.open("a") as log:
                log.write(f"{sent} {method} {path}\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PacedServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.server.root / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            start, end, status = 0, found.st_size, 200
            if asked := _RANGE.fullmatch(self.headers.get("Range", "")):
                start = int(asked[1])
                end = min(found.st_size, int(asked[2]) + 1) if asked[2] else found.st_size
                status = 206 if start < end else 416
            self.send_response(status)
            self.send_header("ETag", f'"{found.st_mtime_ns:x}-{found.st_size:x}"')
            self.send_header("Last-Modified", self.date_time_string(int(found.st_mtime)))
            self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{found.st_size}")
            elif status == 416:
                self.send_header("Content-Range", f"bytes */{found.st_size}")
            self.send_header("Content-Length", str(0 if status == 416 else end - start))
            self.end_headers()
            sent = 0
            try:
                if self.command == "GET" and status != 416:
                    self.wfile.flush()
                    while start + sent < end:
                        at = start + sent
                        sent += os.sendfile(self.connection.fileno(), file.fileno(), at, min(CHUNK, end - at))
            except OSError:
                self.close_connection = True
            self.server.answered(sent, self.command, self.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True, help="bytes a second of each connection")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    with PacedServer((options.address, options.port), options.root, options.rate, options.log) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
