"""What is raised on the way to an answer, as problem documents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve import problems
from dragonfly_ray.serve.database.db_errors import DB_UNAVAILABLE, first_line
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.web.scope import deny, response

log = logging.getLogger(__name__)
_TITLES = {404: ("not-found", "Not found"), 405: ("method-not-allowed", "Method not allowed")}
MOST_ERRORS = 20


def install(app: FastAPI) -> None:
    for kind in (
        Problem,
        DragonflyError,
        HTTPException,
        RequestValidationError,
        WebSocketRequestValidationError,
        *DB_UNAVAILABLE,
        DataError,
    ):
        # One for requests and WebSockets; the signature knows only one or the other.
        handler: Any = _answer
        app.add_exception_handler(kind, handler)


async def _answer(connection: HTTPConnection, error: Exception) -> Response | None:
    """The problem as a response; a WebSocket is told, and gets none."""
    problem = _problem(error)
    manager = getattr(connection.app.state, "manager", None)
    if problem.status == 403 and manager is not None:
        await run_in_threadpool(manager.refusals.note, connection, problem)
    if isinstance(connection, WebSocket):
        await deny(problem, connection)
        return None
    return response(problem, connection.scope)


def _problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case DragonflyError():
            return problems.of(error)
        case HTTPException():
            kind, title = _TITLES.get(error.status_code, (f"http-{error.status_code}", str(error.detail)))
            return Problem(error.status_code, kind, title, headers=error.headers)
        case RequestValidationError() | WebSocketRequestValidationError():
            return _invalid(error.errors())
        case OperationalError() | InterfaceError() | PoolTimeoutError():
            log.warning("database unavailable: %s", first_line(error))
            return Problem(
                503,
                "database",
                "Database unavailable",
                "retry; with the same Idempotency-Key the request is executed once",
                headers={"Retry-After": "2"},
            )
        case DataError():
            return problems.invalid("the request contains a text or a number that cannot be stored")
        case _:
            raise error


def _invalid(errors: Sequence[Any]) -> Problem:
    """What is wrong and where; never what was sent, which may hold a secret."""
    wrong = [
        {"where": [str(part)[:100] for part in e["loc"]], "what": e["msg"]} for e in errors[:MOST_ERRORS]
    ]
    first = wrong[0]
    return problems.invalid(f"{'.'.join(first['where'])}: {first['what']}", errors=wrong)
