"""How much one request may send."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.web.scope import refuse


class BodyLimit:
    """413 for bodies above `most` bytes: by their `Content-Length`, and as they are read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            await refuse(Problem(400, "bad-length", "Bad Content-Length"), scope, receive, send)
            return
        if len(length) > 18 or int(length) > self._most:
            await refuse(self._too_large(), scope, receive, send)
            return
        await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0
        begun = False

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return message if seen <= self._most else {"type": "http.disconnect"}

        async def noting(message: Message) -> None:
            nonlocal begun
            # What the application makes of a body that breaks off is not the answer.
            if seen <= self._most or begun:
                begun = True
                await send(message)

        try:
            await self._app(scope, counting, noting)
        except Exception:
            if seen <= self._most or begun:
                raise
        if seen > self._most and not begun:
            await refuse(self._too_large(), scope, receive, send)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "body-too-large",
            "Request too large",
            f"request body exceeds {self._most} bytes",
            most=self._most,
        )
