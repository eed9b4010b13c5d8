"""Connections that ask the policy of URLs: for the very address that the socket gets, with no look-up after it."""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import lru_cache, partial
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.connection import allowed_gai_family

from dragonfly_ray.errors import SourceForbiddenError
from dragonfly_ray.policy import Rules, UrlPolicy, rules
from dragonfly_ray.sources.http_connections import Unanswered, pool_classes


class Forbidden(Exception):
    """Passes through libraries that retry every `OSError`; `error` is what to raise in the end."""

    def __init__(self, error: SourceForbiddenError) -> None:
        super().__init__(str(error))
        self.error = error


def forbidden_in(error: BaseException | None) -> SourceForbiddenError | None:
    """The refusal that an error comes from, if one does."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, Forbidden):
            return error.error
        error = getattr(error, "error", None) or error.__cause__ or error.__context__
    return None


# --- urllib3 ------------------------------------------------------------------------------------


class GuardedManager(urllib3.PoolManager):
    """Every URL is asked about, redirects included, and every address. Raises `Forbidden`."""

    def __init__(self, known: Rules, unanswered: Unanswered, **options: Any) -> None:
        super().__init__(**options)
        self._rules = known
        self.pool_classes_by_scheme = pool_classes(unanswered, partial(_connect, known))

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override]
        # It calls itself for every hop, with the hop's whole URL.
        try:
            self._rules.url(url)
        except SourceForbiddenError as error:
            raise Forbidden(error) from None
        return super().urlopen(method, url, redirect, **options)


def _connect(known: Rules, connection: HTTPConnection) -> socket.socket:
    """As urllib3's own, but for addresses that may be asked alone."""
    host, port = connection._dns_host, connection.port
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except UnicodeError as error:
        raise LocationParseError(f"{host}: not a valid host name") from error
    refused: SourceForbiddenError | None = None
    failed: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            known.address(str(address[0]), connection.host)
        except SourceForbiddenError as error:
            refused = error
            continue
        try:
            return _opened(connection, family, kind, protocol, address)
        except OSError as error:
            failed = error
    if isinstance(failed, TimeoutError):
        raise ConnectTimeoutError(connection, f"{connection.host}: connect timed out") from failed
    if failed is None and refused is not None:
        raise Forbidden(refused)
    raise NewConnectionError(connection, f"no connection: {failed}") from failed


def _opened(connection: HTTPConnection, family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        for option in connection.socket_options or ():
            made.setsockopt(*option)
        timeout = connection.timeout
        made.settimeout(timeout if isinstance(timeout, (int, float)) else None)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


# --- asyncio, and so every filesystem that fsspec runs on it ------------------------------------


class _GuardedLoop(asyncio.SelectorEventLoop):
    """Whatever connects on it, aiohttp among others, comes through `sock_connect` with a numeric address."""

    def __init__(self, known: Rules) -> None:
        super().__init__()
        self._rules = known

    async def sock_connect(self, sock: Any, address: Any) -> None:
        try:
            self._rules.address(str(address[0]) if isinstance(address, tuple) else "")
        except SourceForbiddenError as error:
            raise Forbidden(error) from None
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A name would be looked up in here; an address never is.
            address = (str(address[0]).partition("%")[0], *address[1:])
        await super().sock_connect(sock, address)

    async def create_unix_connection(self, *args: Any, **options: Any) -> Any:
        raise Forbidden(SourceForbiddenError("Unix sockets are blocked by URL policy"))

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> Any:
        raise Forbidden(SourceForbiddenError("datagrams are blocked by URL policy"))


@lru_cache(maxsize=16)
def guarded_loop(policy: UrlPolicy) -> asyncio.AbstractEventLoop:
    """One for all sources under this policy, running in a thread of its own."""
    loop = _GuardedLoop(rules(policy))
    threading.Thread(target=loop.run_forever, name="guarded", daemon=True).start()
    return loop
