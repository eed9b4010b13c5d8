"""How often one caller may ask."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.web.address import network
from dragonfly_ray.serve.web.scope import refuse, state

PATHS = ("/api/", "/metrics")
"""What costs work; files of the console and the probes are not limited."""
KNOWN = 10_000


class RateLimit:
    """429 above the limit, and on every answer how much is left (`RateLimit-*`).

    Whoever has shown a credential that holds is counted as that user, whoever else by address, so
    that made-up tokens win nothing. Each replica counts for itself: with n replicas up to n times as
    many requests get through. Sign-ins are limited by the database instead, over all replicas.
    """

    def __init__(self, app: ASGIApp, requests: str, anonymous: str) -> None:
        self._app = app
        self._requests = parse(requests)
        self._anonymous = parse(anonymous)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._known: OrderedDict[str, str] = OrderedDict()
        """Digest of a credential -> the user that it was last seen to belong to. It only says whose
        count a request goes to: whether the credential holds is looked up each time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not scope["path"].startswith(PATHS):
            await self._app(scope, receive, send)
            return
        credential = _credential(Headers(scope=scope))
        user = self._known.get(credential, "") if credential else ""
        limit = self._requests if user else self._anonymous
        key = f"user {user}" if user else f"address {network(state(scope).get('address', ''))}"
        allowed = self._limiter.hit(limit, key)
        headers = self._headers(limit, key)
        if not allowed:
            await refuse(self._too_many(limit, headers), scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(headers)
                if credential and message["status"] == 401:
                    self._known.pop(credential, None)
            principal = state(scope).get("principal")
            if credential and isinstance(principal, Principal):
                self._learn(credential, principal.user_id)
            await send(message)

        await self._app(scope, receive, told)

    def _headers(self, limit: RateLimitItem, key: str) -> dict[str, str]:
        window = self._limiter.get_window_stats(limit, key)
        reset = max(0, math.ceil(window.reset_time - time.time()))
        return {
            "RateLimit-Limit": str(limit.amount),
            "RateLimit-Remaining": str(max(0, window.remaining)),
            "RateLimit-Reset": str(reset),
            "RateLimit-Policy": f"{limit.amount};w={limit.get_expiry()}",
        }

    def _too_many(self, limit: RateLimitItem, headers: dict[str, str]) -> Problem:
        return Problem(
            429,
            "rate-limited",
            "Too many requests",
            f"at most {limit}; try again in {headers['RateLimit-Reset']} s",
            headers=headers | {"Retry-After": headers["RateLimit-Reset"]},
        )

    def _learn(self, credential: str, user: str) -> None:
        self._known[credential] = user
        self._known.move_to_end(credential)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)


def _credential(headers: Headers) -> str:
    """A digest of what the request shows; empty: nothing."""
    shown = headers.get("authorization", "") or headers.get("cookie", "")
    return hashlib.sha256(shown.encode()).hexdigest() if shown else ""
