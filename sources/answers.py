"""Connections whose answers are let go of without reading them to an end that may never come."""

from __future__ import annotations

from functools import partial
from typing import Any

import urllib3
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


class BoundedConnection(HTTPConnection):
    """What urllib3 drains, the answers before a redirect or another try, is drained by `let_go`."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        return _bounded(super().getresponse())


class BoundedSecureConnection(HTTPSConnection):
    """As `BoundedConnection`."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        return _bounded(super().getresponse())


def _bounded(response: HTTPResponse) -> HTTPResponse:
    response.drain_conn = partial(let_go, response)  # type: ignore[method-assign]
    return response


class _Pool(HTTPConnectionPool):
    ConnectionCls = BoundedConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = BoundedSecureConnection


def bounded_manager(**options: Any) -> urllib3.PoolManager:
    """A `PoolManager` with such connections."""
    made = urllib3.PoolManager(**options)
    made.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return made
