"""How many requests, of which kind, and how long they take."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
BEGINS = ("http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
UNMATCHED = "unmatched"
Endpoints = Callable[[], Iterable[tuple[str, str, object]]]


class RequestMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "dragonfly_manager_requests",
            "HTTP requests, by route and status.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "dragonfly_manager_request_seconds",
            "Seconds until the response began, without its streaming.",
            ("route", "method"),
            buckets=BUCKETS,
            registry=registry,
        )


class Measured:
    """The outermost middleware. `endpoints`: path template, method and endpoint of all routes."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, endpoints: Endpoints) -> None:
        self._app = app
        self._metrics = metrics
        self._endpoints = endpoints
        self._routes: dict[object, list[tuple[re.Pattern[str], str]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        told = False

        def tell(status: str) -> None:
            nonlocal told
            if not told:
                told = True
                self._tell(scope, status, time.perf_counter() - begun)

        async def noting(message: Message) -> None:
            if message["type"] in BEGINS:
                tell(_status(message))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # Nothing was answered: the client has gone, or the answer failed.
            tell("none")

    def _tell(self, scope: Scope, status: str, seconds: float) -> None:
        method = scope.get("method", "WEBSOCKET")
        method = method if method in METHODS else "other"
        route = self._route(scope)
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.seconds.labels(route, method).observe(seconds)

    def _route(self, scope: Scope) -> str:
        """The template, never the path itself: there would be no end of them."""
        if self._routes is None:
            self._routes = {}
            for path, _, endpoint in self._endpoints():
                self._routes.setdefault(endpoint, []).append((compile_path(path)[0], path))
        candidates = self._routes.get(scope.get("endpoint"), ())
        return next((path for regex, path in candidates if regex.match(scope["path"])), UNMATCHED)


def _status(message: Message) -> str:
    match message["type"]:
        case "websocket.accept":
            return "101"
        case "websocket.close":
            return "403"
        case _:
            return str(message["status"])
