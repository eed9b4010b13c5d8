"""The last resort: what nobody expected is logged, and told without its contents."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.web.scope import refuse, state

log = logging.getLogger(__name__)


class Unexpected:
    """500 as a problem document. Inside the other middlewares, so that it has their headers too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            number = state(scope).get("request_id", "")
            log.error("request %s failed", number, exc_info=error)
            if begun:
                # Half an answer must not look like a whole one: the server cuts the connection.
                raise
            problem = Problem(
                500, "internal", "Internal error", f"search the manager's log for request {number}"
            )
            await refuse(problem, scope, receive, send)
