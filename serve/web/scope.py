"""What middlewares share: a request's state, and answers that they give themselves."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from dragonfly_ray.serve.problems import MEDIA_TYPE, Problem

POLICY_VIOLATION = 1008


def state(scope: Scope) -> dict[str, Any]:
    """What routes see as `request.state`."""
    found: dict[str, Any] = scope.setdefault("state", {})
    return found


def response(problem: Problem, scope: Scope) -> JSONResponse:
    return JSONResponse(
        problem.document(str(state(scope).get("request_id", ""))),
        problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the problem; a WebSocket that is not open yet is not opened."""
    if scope["type"] == "websocket":
        await deny(problem, WebSocket(scope, receive, send))
    else:
        await response(problem, scope)(scope, receive, send)


async def deny(problem: Problem, socket: WebSocket) -> None:
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(response(problem, socket.scope))
    else:
        await socket.close(POLICY_VIOLATION, problem.title)
