"""A server before another one: passes requests on that have what is demanded, and refuses the others."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.local_server import LocalServer

Demand = Callable[[str, Mapping[str, str]], bool]
"""Path with query, and headers with names in small letters: whether it may pass."""
_OF_ONE_HOP = ("connection", "transfer-encoding", "content-length", "server", "date")


class Front(LocalServer):
    """`asked`: (method, path, whether it passed) of each request."""

    def __init__(
        self, behind: str, demand: Demand, *, status: int = 403, body: bytes = b"", kind: str = "text/plain"
    ) -> None:
        """`status`, `body` and `kind`, its content type, are of the refusals."""
        self.asked: list[tuple[str, str, bool]] = []
        address = urlsplit(behind).netloc
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                good = demand(self.path, {name.lower(): value for name, value in self.headers.items()})
                front.asked.append((self.command, self.path, good))
                if not good:
                    self._answer(status, {"Content-Type": kind}, body)
                    return
                onward = http.client.HTTPConnection(address, timeout=30)
                try:
                    # Under its own name: signatures are of that.
                    onward.request(self.command, self.path, headers=dict(self.headers))
                    answer = onward.getresponse()
                    self._answer(answer.status, dict(answer.getheaders()), answer.read())
                finally:
                    onward.close()

            do_HEAD = do_GET

            def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response(status)
                length = str(len(body))
                for name, value in headers.items():
                    if name.lower() == "content-length" and self.command == "HEAD":
                        length = value
                    elif name.lower() not in _OF_ONE_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        super().__init__(Handler)
