"""HTTP client of webhooks: posts signed events, only to addresses that the URL policy allows."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from dragonfly_ray.errors import SourceForbiddenError
from dragonfly_ray.policy import Rules, UrlPolicy
from dragonfly_ray.serve.database.tables import now

CONNECT_TIMEOUT = 5.0
TIMEOUT = 15.0
"""Seconds for all of it: who answers a byte at a time does not hold us up for ever."""
AGENT = "dragonfly-ray-webhooks"
Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status`: None where there was no answer. `asked`: seconds that the receiver wants to be left alone."""

    status: int | None
    error: str
    seconds: float
    asked: float = 0.0

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookClient:
    """For one event loop. Redirects are not followed, bodies of answers not read."""

    def __init__(
        self, policy: UrlPolicy, *, timeout: float = TIMEOUT, resolve: Resolve | None = None
    ) -> None:
        self._timeout = timeout
        rules = Rules(policy)
        self._rules = rules
        self._client = httpx.AsyncClient(
            transport=_Guarded(rules, resolve or _resolved),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            follow_redirects=False,
            trust_env=False,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Never raises for what is the receiver's fault."""
        begun = time.monotonic()
        status, asked = None, 0.0
        try:
            self._rules.url(url)
            async with asyncio.timeout(self._timeout):
                sent = {"content-type": "application/json", "user-agent": AGENT, **headers}
                async with self._client.stream("POST", url, headers=sent, content=body) as answer:
                    status, asked = answer.status_code, _asked(answer)
            error = _meaning(status)
        except SourceForbiddenError as refused:
            error = str(refused)
        except TimeoutError:
            error = f"timed out after {self._timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as failed:
            error = f"{type(failed).__name__}: {failed}"
        return Outcome(status, error[:500], time.monotonic() - begun, asked)

    async def close(self) -> None:
        await self._client.aclose()


class _Guarded(httpx.AsyncBaseTransport):
    """Resolves a name itself and connects to the very addresses that it has checked: between a check of a name
    and a connection to it the name may come to mean something else."""

    def __init__(self, rules: Rules, resolve: Resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._inner = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.raw_host.decode("ascii")
        failed: httpx.TransportError | None = None
        for address in await self._allowed(host, request.url.port or 0):
            # `Host` was set from the name already; the certificate is compared with it as well.
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions | {"sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error
        raise failed or httpx.ConnectError(f"{host}: host name not found (DNS)")

    async def _allowed(self, host: str, port: int) -> list[str]:
        """Raises `SourceForbiddenError` where there are addresses, but none that may be asked."""
        allowed, refused = [], None
        for address in await self._resolve(host, port):
            try:
                self._rules.address(address, host)
                allowed.append(address)
            except SourceForbiddenError as error:
                refused = error
        if not allowed and refused is not None:
            raise refused
        return allowed

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _resolved(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise httpx.ConnectError(f"{host}: {error.strerror}") from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _meaning(status: int) -> str:
    if 200 <= status < 300:
        return ""
    return f"HTTP {status}" + (", redirects are not followed" if 300 <= status < 400 else "")


def _asked(answer: httpx.Response) -> float:
    """`Retry-After`: seconds, or a date."""
    given = answer.headers.get("retry-after", "")
    if given.isascii() and given.isdigit():
        return float(given[:9])
    try:
        return max(0.0, (parsedate_to_datetime(given) - now()).total_seconds())
    except (TypeError, ValueError):
        return 0.0
