"""Connections to HTTP servers: how long an answer is waited for, who ends that, and how an answer is let go of.

The wait for an answer to begin, and a stall within one, are two things: a server may think for a while, while one
that stops in the middle of its bytes has failed. Whether the server is there at all is for TCP to find out: a
request that is not acknowledged breaks the connection, however long an answer may take.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse, HTTPResponse

DRAIN = 64 * 1024
"""Bytes of an answer that are read to keep its connection; of a longer one it is closed."""


def let_go(response: BaseHTTPResponse) -> None:
    """Keeps the connection where next to nothing is left of the answer; whoever sends without end is hung up on."""
    left = response.length_remaining
    try:
        if left is not None and left > DRAIN:
            response.close()
            return
        scratch = bytearray(left or 1)
        while count := response.readinto(scratch):
            left = None if left is None else left - count
            if left is None:
                response.close()  # nobody knows how much there is
                return
        response.release_conn()
    except (HTTPError, OSError, ValueError):
        response.close()


class Unanswered:
    """The sockets on which somebody waits for an answer to begin. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._ended = False

    @contextlib.contextmanager
    def over(self, sock: socket.socket) -> Iterator[None]:
        """While somebody waits on it."""
        with self._lock:
            self._sockets.add(sock)
            ended = self._ended
        try:
            if ended:
                _shut(sock)
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)

    def end(self) -> None:
        """Whoever waits is woken up, and whoever comes later waits for nothing."""
        with self._lock:
            self._ended = True
            sockets = list(self._sockets)
        for sock in sockets:
            _shut(sock)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        sock.shutdown(socket.SHUT_RDWR)


def body_begun(response: BaseHTTPResponse, stall: float) -> None:
    """From now on the answer may be silent for `stall` seconds at a time."""
    sock = getattr(response, "dragonfly_socket", None)
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):
            sock.settimeout(stall)


def gone(error: BaseException) -> bool:
    """Whether a time-out means that the other host is not there, and not that it has not answered yet."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT


def watching(seconds: float) -> list[tuple[int, int, int]]:
    """Options of sockets: a connection breaks where nothing is acknowledged for so long, asked or not."""
    idle = max(1, round(seconds))
    return [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle // 3)),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * idle),
    ]


def pool_classes(
    unanswered: Unanswered, connect: Callable[[HTTPConnection], socket.socket] | None = None
) -> dict[str, Any]:
    """For a `PoolManager`: by scheme. `connect` makes the sockets instead of urllib3.

    What urllib3 drains, the answers before a redirect or another try, is drained by `let_go`.
    """

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return super()._new_conn() if connect is None else connect(self)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            sock = self.sock
            with unanswered.over(sock):
                return _bounded(super().getresponse(), sock)

    class Secure(Plain, HTTPSConnection):  # the same, over TLS
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _bounded(response: HTTPResponse, sock: socket.socket) -> HTTPResponse:
    response.drain_conn = partial(let_go, response)  # type: ignore[method-assign]
    response.dragonfly_socket = sock  # type: ignore[attr-defined]
    return response
