"""Requests to a manager: one place that sends the token, tries again, and turns answers into errors."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from dragonfly_ray.errors import (
    BY_KIND,
    AccessError,
    ClusterError,
    DragonflyError,
    InvalidRequestError,
    NotRunningError,
)
from dragonfly_ray.urls import redacted

API = "/api/v1"
PROBLEM = "urn:dragonfly:problem:"
CONNECT_TIMEOUT, TIMEOUT = 5.0, 30.0
STREAM_SILENCE = 60.0
"""Seconds without a byte after which a stream is opened anew; the manager sends a sign of life more often."""
PATIENCE = 30.0
"""Seconds for which a request that may be sent twice is tried again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0
AWAY = frozenset({429, 502, 503, 504})
PAGE = 200


class Http:
    """Safe from any thread. The token is in no repr and in no error."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca: str | None = None,
        timeout: float = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = _checked(url)
        self._token = SecretStr(token)
        self._client = httpx.Client(
            base_url=self.url,
            verify=_verified(ca),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            transport=transport,
            headers={"User-Agent": "dragonfly-ray"},
        )

    def __repr__(self) -> str:
        return f"Http({self.url})"

    def close(self) -> None:
        self._client.close()

    def look(self, path: str) -> Any:
        """The JSON document at `path`; not tried again."""
        return self._once("GET", path)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON document at `path`; parameters that are None are left out."""
        return self._again("GET", path, params={k: v for k, v in params.items() if v is not None})

    def pages(self, path: str, most: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page by page."""
        cursor: str | None = None
        seen = 0
        while True:
            limit = PAGE if most is None else min(PAGE, most - seen)
            found = self.get(path, limit=limit, cursor=cursor, **params)
            yield from found["items"]
            seen += len(found["items"])
            cursor = found.get("next_cursor")
            if not cursor or (most is not None and seen >= most):
                return

    def post(self, path: str, body: object = None, *, key: str | None = None) -> Any:
        """Sent once: after an answer that was lost nobody knows whether it counted. `key`: as of `post_again`."""
        return self._once("POST", path, json=body, headers=_keyed(key))

    def post_again(self, path: str, body: object = None, *, key: str | None = None) -> Any:
        """For what may be sent twice; with a `key` the manager does it once all the same."""
        return self._again("POST", path, json=body, headers=_keyed(key))

    def delete(self, path: str) -> None:
        self._once("DELETE", path)

    @contextlib.contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[httpx.Response]:
        """An event stream. Raises as `get` does."""
        timeout = httpx.Timeout(STREAM_SILENCE, connect=CONNECT_TIMEOUT)
        with self._mapped(), self._client.stream(
            "GET", API + path, params=params, headers=self._headers() | {"Accept": "text/event-stream"}, timeout=timeout
        ) as answer:  # fmt: skip
            if not answer.is_success:
                answer.read()
                raise self._failure(answer)
            yield answer

    # --- one request ------------------------------------------------------------------------

    def _again(self, method: str, path: str, **more: Any) -> Any:
        deadline, pause = time.monotonic() + PATIENCE, FIRST_PAUSE
        while True:
            try:
                return self._once(method, path, **more)
            except (NotRunningError, ClusterError) as error:
                wait = max(pause, float(error.details.get("retry_after") or 0.0))
                if error.details.get("final") or time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _once(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        with self._mapped():
            answer = self._client.request(
                method, API + path, headers=self._headers() | dict(headers or {}), **more
            )
        if not answer.is_success:
            raise self._failure(answer)
        if answer.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            return answer.json()
        except ValueError:
            raise self._stranger(answer) from None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token.get_secret_value()}"}

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            certificate = "CERTIFICATE_VERIFY_FAILED" in str(error)
            hint = "; its certificate is not trusted: pass its CA with --ca" if certificate else ""
            raise NotRunningError(
                f"cannot connect to the manager at {self.url} ({_cause(error)}){hint}", final=certificate
            ) from None
        except httpx.HTTPError as error:
            raise NotRunningError(
                f"no response from the manager at {self.url} ({type(error).__name__})"
            ) from None
        except RuntimeError:
            if not self._client.is_closed:
                raise
            raise NotRunningError("manager client is closed", final=True) from None

    # --- answers that are errors --------------------------------------------------------------

    def _failure(self, answer: httpx.Response) -> DragonflyError:
        try:
            document = answer.json()
            kind = str(document["type"]).removeprefix(PROBLEM)
            text = str(document.get("detail") or document["title"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._stranger(answer)
        status = answer.status_code
        if status in (401, 403):
            return AccessError(f"access denied by the manager: {text}", kind=kind)
        known = BY_KIND.get(kind)
        if status in AWAY or status >= 500:
            away = known if known is not None and issubclass(known, ClusterError) else ClusterError
            return away(
                f"the manager at {self.url}: {text}", retry_after=_seconds(answer), final=status not in AWAY
            )
        refusal = (
            known if known is not None and issubclass(known, InvalidRequestError) else InvalidRequestError
        )
        return refusal(text, kind=kind)

    def _stranger(self, answer: httpx.Response) -> DragonflyError:
        """It does not speak as a manager does: a proxy in between, or something else altogether."""
        status = answer.status_code
        # So answers Ray Serve's proxy, too, when the replica that had the request dies.
        if status in AWAY or status >= 500:
            return NotRunningError(
                f"{self.url} HTTP {status}, manager unavailable; retry later", retry_after=_seconds(answer)
            )
        where = answer.headers.get("location")
        to = f" (to {redacted(where)})" if where else ""
        return NotRunningError(
            f"{self.url} HTTP {status}{to} is not a manager's response; check its URL", final=True
        )


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequestError(f"manager {redacted(url)!r}: must be http://… or https://…")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequestError(f"manager {redacted(url)!r}: must have only scheme, host, port and path")
    return url.rstrip("/")


def _verified(ca: str | None) -> ssl.SSLContext | bool:
    if not ca:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise InvalidRequestError(f"ca {ca!r}: contains no certificate") from None
    except OSError as error:
        raise InvalidRequestError(f"ca {ca!r}: {error.strerror}") from None


def _cause(error: BaseException) -> str:
    found: BaseException = error
    while found.__cause__ or found.__context__:
        found = found.__cause__ or found.__context__ or found
    return getattr(found, "strerror", None) or type(found).__name__


def _seconds(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _keyed(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}
