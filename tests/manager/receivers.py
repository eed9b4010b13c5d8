"""Receivers of webhooks on loopback."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from standardwebhooks import Webhook as Verifier

from tests.local_server import ThreadedServer
from tests.waiting import HANG


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, key: str) -> Any:
        """The payload, as a receiver gets it that checks the signature. Raises if it does not fit."""
        return Verifier(key).verify(self.body, self.headers)


@dataclass
class Receiver:
    """`answer`: what it says to a request, status and headers; `None`: nothing at all."""

    answer: Callable[[Received], tuple[int, dict[str, str]] | None] = lambda received: (200, {})
    url: str = ""
    port: int = 0
    requests: queue.Queue[Received] = field(default_factory=queue.Queue)
    release: threading.Event = field(default_factory=threading.Event)
    """Lets go of those that get no answer."""

    def next(self) -> Received:
        return self.requests.get(timeout=HANG)


@contextlib.contextmanager
def receiving(receiver: Receiver | None = None, port: int = 0) -> Iterator[Receiver]:
    found = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received = Received(self.path, dict(self.headers.items()), body)
            answer = found.answer(received)
            found.requests.put(received)
            if answer is None:
                found.release.wait(HANG)
                return
            status, headers = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not in the tests' output."""

    server = ThreadedServer(("127.0.0.1", port), Handler)
    found.port = server.server_address[1]
    found.url = f"http://127.0.0.1:{found.port}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.release.set()
        server.shutdown()
        server.server_close()
        thread.join(HANG)
