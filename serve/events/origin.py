"""Where a browser's WebSocket comes from: cookies are sent with it from anywhere, so this has to be asked."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from dragonfly_ray.serve.accounts.principal import Principal
from dragonfly_ray.serve.problems import forbidden


def check(connection: HTTPConnection, principal: Principal, public_url: str) -> None:
    """Raises `Problem` for a cookie's caller whose page is not the manager's own."""
    if principal.via != "session":
        return
    origin = urlsplit(connection.headers.get("origin", ""))
    allowed = {connection.headers.get("host", "").lower(), urlsplit(public_url).netloc.lower()} - {""}
    if origin.scheme not in ("http", "https") or origin.netloc.lower() not in allowed:
        raise forbidden("this page may not open a stream here", "foreign-origin")
