"""That a request with a cookie was meant by the page that it comes from."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from dragonfly_ray.serve.problems import forbidden
from dragonfly_ray.serve.settings import ManagerSettings

HEADER = "X-CSRF-Token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def check(connection: HTTPConnection, settings: ManagerSettings, expected: str) -> None:
    """Of whatever may change something: the right page, and the session's token. Raises `Problem` 403.

    A WebSocket of a browser cannot carry the token; it always says its origin, which has to be ours.
    """
    if connection.scope["type"] == "websocket":
        if not connection.headers.get("origin"):
            raise forbidden("a WebSocket with a cookie needs an Origin header", "cross-site")
        check_origin(connection, settings)
    elif connection.scope["method"] not in SAFE:
        check_origin(connection, settings)
        given = connection.headers.get(HEADER, "")
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise forbidden(
                f"missing or wrong {HEADER} header; send the csrf value of GET /api/v1/session", "csrf"
            )


def check_origin(connection: HTTPConnection, settings: ManagerSettings) -> None:
    """Refuses what a browser says comes from another site. Raises `Problem` 403."""
    headers = connection.headers
    if headers.get("sec-fetch-site", "same-origin").lower() not in ("same-origin", "none"):
        raise forbidden("cross-site request rejected", "cross-site")
    origin = headers.get("origin")
    if origin is None:
        return
    ours = {settings.public_url.rstrip("/").lower()} - {""}
    # Behind a proxy that ends TLS the scheme is not known here: the host is what counts.
    host = headers.get("host", "").lower()
    if origin.lower() not in ours and (not host or urlsplit(origin.lower()).netloc != host):
        raise forbidden("cross-site request rejected", "cross-site")
