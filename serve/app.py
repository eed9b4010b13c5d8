"""The application: a plain FastAPI factory, which Ray Serve, uvicorn and tests run alike."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve import problems, routes
from dragonfly_ray.serve.accounts.gate import gate
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.problems import Problem, ProblemDocument
from dragonfly_ray.serve.settings import ManagerSettings

log = logging.getLogger(__name__)
_PROBLEM = {"model": ProblemDocument, "description": "A problem document (RFC 9457)."}
_TITLES = {404: ("not-found", "Not found"), 405: ("method-not-allowed", "Method not allowed")}


def create_app(settings: ManagerSettings, cluster: Cluster) -> FastAPI:
    """The manager as an ASGI application. Its lifespan opens the database and starts what runs beside requests."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        manager = Manager.build(settings, cluster)
        app.state.manager = manager
        manager.start()
        try:
            yield
        finally:
            manager.stop()

    app = FastAPI(
        title="dragonfly-ray manager",
        version="1",
        summary="Files and directories onto the nodes of a Ray cluster.",
        lifespan=lifespan,
        dependencies=[Depends(gate)],
        responses=dict.fromkeys(("4XX", "5XX"), _PROBLEM),
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(DragonflyError, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)
    routes.include(app)
    return app


def answer(problem: Problem, request: Request) -> JSONResponse:
    return JSONResponse(
        problem.document(getattr(request.state, "request_id", "")),
        problem.status,
        headers=problem.headers,
        media_type=problems.MEDIA_TYPE,
    )


async def _problem(request: Request, error: Exception) -> JSONResponse:
    found = (
        error
        if isinstance(error, Problem)
        else problems.of(error)
        if isinstance(error, DragonflyError)
        else None
    )
    assert found is not None
    return answer(found, request)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind, title = _TITLES.get(error.status_code, (f"http-{error.status_code}", str(error.detail)))
    return answer(Problem(error.status_code, kind, title, headers=error.headers), request)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    """What is wrong and where; never what was sent, which may hold a secret."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"where": [str(p) for p in e["loc"]], "what": e["msg"]} for e in error.errors()]
    first = wrong[0]
    detail = f"{'.'.join(first['where'])}: {first['what']}"
    return answer(problems.invalid(detail, errors=wrong), request)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    number = getattr(request.state, "request_id", "") or uuid.uuid4().hex
    log.error("request %s failed", number, exc_info=error)
    return answer(Problem(500, "internal", "The manager failed", f"look for {number} in its log"), request)
