"""Requests to an HTTP origin: asked again where that may help, and refusals as typed errors."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import urllib3
from urllib3.exceptions import ClosedPoolError, HTTPError, IncompleteRead, ProxyError, ReadTimeoutError
from urllib3.exceptions import ProtocolError as BrokenError

from dragonfly_ray.backoff import PASSING
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnreachableError,
    SourceUnsupportedError,
)
from dragonfly_ray.policy import Rules
from dragonfly_ray.sources import permanent_failures
from dragonfly_ray.sources.guarded_connect import Forbidden, GuardedManager
from dragonfly_ray.sources.http_connections import Unanswered, body_begun, gone, watching
from dragonfly_ray.sources.object_store_errors import MAX_BODY, STATUSES, refusal
from dragonfly_ray.sources.proxies import Choose, ProxyingManager, directly
from dragonfly_ray.sources.stat_retry import Retry

FIRST_PAUSE = 0.1
"""Seconds before the second try; doubles with each."""
MAX_REDIRECTS = 10
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_PROXY_AUTH = "HTTP 407, proxy authentication required; check HTTP_PROXY and HTTPS_PROXY on the node"
_PLAINLY = {
    "ResponseError": "too many redirects",
    "NameResolutionError": "no such host; check its name",
    "NewConnectionError": "connection refused; check the address and the port",
    "ConnectTimeoutError": "connect timed out",
    "SSLError": "TLS certificate not trusted",
    "LocationParseError": "no such host; check its name",
}


class HttpClient:
    """One origin's connections, kept and shared by all threads.

    `name`: the source, for errors. `headers` go with every request; those in `secret` stay behind at a redirect to
    another host.
    """

    def __init__(
        self,
        name: str,
        headers: Mapping[str, str],
        secret: Collection[str],
        settings: OriginSettings,
        known: Rules | None,
        choose: Choose = directly,
    ) -> None:
        self.name = name
        self._headers = dict(headers)
        tries = settings.retries
        self._retries = _Tries(
            total=None,
            connect=tries,
            read=tries,
            status=tries,
            other=0,
            redirect=MAX_REDIRECTS,
            # Not 429 and 503: there the whole cluster must wait, not this request alone.
            status_forcelist=(500, 502, 504),
            respect_retry_after_header=False,
            raise_on_status=False,
            backoff_factor=FIRST_PAUSE,
            # What opens this origin is nobody else's business: a redirect elsewhere goes without it.
            remove_headers_on_redirect=secret,
        )
        self._retries.go_on = self.go_on
        self._once = self._retries.new(read=0, status=0, status_forcelist=())
        self._answers: weakref.WeakSet[urllib3.BaseHTTPResponse] = weakref.WeakSet()
        """Those whose bodies may be under way."""
        self._aborted = False
        self.patience: Retry | None = None
        """With an origin that fails in the middle of a look."""
        options: Any = {
            "maxsize": settings.small_connections + settings.connections,
            "timeout": urllib3.Timeout(connect=settings.connect_timeout, read=settings.answer_timeout),
            "socket_options": watching(settings.read_timeout),
        }
        self._stall = settings.read_timeout
        self._unanswered = Unanswered()
        if known:
            self._pool: urllib3.PoolManager = GuardedManager(known, self._unanswered, **options)
        else:
            self._pool = ProxyingManager(self._unanswered, choose, **options)

    def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        allow: Collection[int] = (),
        method: str = "GET",
        retry: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """An answer of 2xx (or one in `allow`), its body unread. Tries again where that may help.

        Not with `retry=False`, but to connect: for what has another way.

        Raises `SourceError`. A 429 or 503 is never tried again here: the whole cluster must wait.
        """
        if self.patience is None:
            return self._get(url, headers or {}, allow, method, retry=retry)
        passing = PASSING if retry else (SourceBusyError,)
        return self.patience.ask(lambda: self._get(url, headers or {}, allow, method, retry=retry), passing)

    def _get(
        self, url: str, headers: Mapping[str, str], allow: Collection[int], method: str, *, retry: bool
    ) -> urllib3.BaseHTTPResponse:
        self.go_on()
        try:
            response = self._request(
                method, url, {**self._headers, **headers}, self._retries if retry else self._once
            )
        except Forbidden as refused:
            raise SourceForbiddenError(f"{self.name}: {refused.error}") from None
        except HTTPError as failure:
            raise self.failed(failure) from None
        except (ValueError, UnicodeError):
            raise SourceUnsupportedError(f"{self.name}: not a valid URL") from None
        self._answers.add(response)
        if 200 <= response.status < 300 or response.status in allow:
            try:
                self.go_on()
            except SourceError:
                response.close()
                raise
            return response
        told = _told(response, self.name)
        response.close()
        if told:
            raise told
        raise self.refused(response.status, response.headers.get("Retry-After"))

    def _request(
        self, method: str, url: str, headers: dict[str, str], retries: urllib3.Retry
    ) -> urllib3.BaseHTTPResponse:
        while True:
            try:
                return self._pool.request(
                    method,
                    url,
                    headers=headers,
                    preload_content=False,
                    decode_content=False,
                    retries=retries,
                )
            except ClosedPoolError:
                pass  # `rest` came between: nothing was asked yet, and the pool has a successor

    def go_on(self) -> None:
        """Raises `SourceError` once the work was aborted."""
        if self._aborted:
            raise SourceError(f"{self.name}: read cancelled")

    def abort(self) -> None:
        """From any thread: what is under way ends with an error, and nothing more is asked."""
        self._aborted = True
        if self.patience:
            self.patience.end()
        self._unanswered.end()
        for answer in list(self._answers):
            # Whoever waits for its next byte is woken up. What is over already has no socket.
            with contextlib.suppress(ValueError, OSError, RuntimeError):
                answer.shutdown()

    def moved(self) -> None:
        """The origin has said something. Raises `SourceError` once the work was aborted."""
        self.go_on()
        if self.patience:
            self.patience.answered()

    def begun(self, response: urllib3.BaseHTTPResponse) -> None:
        """Its body has begun: from now on a silence is a stall."""
        body_begun(response, self._stall)

    def rest(self) -> None:
        """Closes connections that nobody uses now."""
        # `clear` alone leaves their sockets to the garbage collector, which cycles and tracebacks delay.
        for manager in self._pool.managers if isinstance(self._pool, ProxyingManager) else [self._pool]:
            for key in manager.pools.keys():  # noqa: SIM118, it cannot be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
            manager.clear()

    def refused(self, status: int, retry_after: str | None) -> SourceError:
        """What an answer with this status means."""
        if status == 407:
            return SourceAuthError(f"{self.name}: {_PROXY_AUTH}")
        if status in (401, 403):
            return SourceAuthError(
                f"{self.name}: HTTP {status}, access denied; check the credentials or headers"
            )
        if status == 412:
            return SourceChangedError(f"{self.name}: has changed since it was resolved; distribute it again")
        if status in (404, 410):
            return SourceNotFoundError(f"{self.name}: HTTP {status}, not found")
        if status in (429, 503):
            after = permanent_failures.retry_after(retry_after)
            told = "" if after is None else f", Retry-After {after:g} s"
            return SourceBusyError(f"{self.name}: HTTP {status}{told}", retry_after=after)
        if status >= 500 or status in permanent_failures.AGAIN:
            final = {"final": True} if status in permanent_failures.NEVER else {}
            return SourceUnreachableError(f"{self.name}: HTTP {status}, server error", **final)
        return SourceError(f"{self.name}: HTTP {status}, refused")

    def failed(self, error: Exception) -> SourceError:
        """What an error of urllib3 means."""
        cause: Any = error
        while getattr(cause, "reason", None) is not None and isinstance(cause.reason, Exception):
            cause = cause.reason
        if isinstance(cause, ReadTimeoutError):
            return SourceUnreachableError(
                f"{self.name}: timed out (origin.answer_timeout, origin.read_timeout)"
            )
        if isinstance(cause, ProxyError):
            return self._proxy_failed(cause)
        if isinstance(cause, IncompleteRead):
            return SourceTruncatedError(f"{self.name}: truncated, fewer bytes than announced")
        if isinstance(cause, BrokenError):
            return SourceUnreachableError(f"{self.name}: connection lost")
        shown = _PLAINLY.get(type(cause).__name__, f"unreachable ({type(cause).__name__})")
        final = {"final": True} if permanent_failures.final(error) else {}
        return SourceUnreachableError(f"{self.name}: {shown}", **final)

    def _proxy_failed(self, error: ProxyError) -> SourceError:
        match = _TUNNEL.search(str(error.original_error))
        if match is None:
            return SourceUnreachableError(
                f"{self.name}: the node's proxy is unreachable; "
                f"check HTTP_PROXY, HTTPS_PROXY and NO_PROXY on the node"
            )
        status = int(match[1])
        if status == 407:
            return SourceAuthError(f"{self.name}: {_PROXY_AUTH}")
        if status >= 500 or status == 429:
            return SourceUnreachableError(f"{self.name}: HTTP {status} from the node's proxy")
        return SourceAuthError(f"{self.name}: the node's proxy refused the request (HTTP {status})")


class _Tries(urllib3.Retry):
    """Asked before every further request: a redirect, or another try."""

    go_on: Callable[[], None] = staticmethod(lambda: None)

    def new(self, **changes: Any) -> Self:
        made = super().new(**changes)
        made.go_on = self.go_on
        return made

    def increment(self, *what: Any, **more: Any) -> Self:
        self.go_on()
        error = more.get("error")
        if isinstance(error, ReadTimeoutError) and not gone(error):
            raise error  # it has had all the time for an answer that it gets
        return super().increment(*what, **more)


def _told(response: urllib3.BaseHTTPResponse, name: str) -> SourceError | None:
    """What an object store says of its refusal."""
    if response.status not in STATUSES:
        return None
    body = bytearray()
    if "xml" in response.headers.get("Content-Type", ""):
        part = bytearray(MAX_BODY)
        with contextlib.suppress(HTTPError, OSError, ValueError):
            while len(body) < MAX_BODY and (count := response.readinto(part)):
                body += part[:count]
    return refusal(name, response.status, response.headers, bytes(body))
