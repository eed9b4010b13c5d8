"""The application: a plain FastAPI factory, which Ray Serve, uvicorn and tests run alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request

from dragonfly_ray.serve import openapi, routes, web
from dragonfly_ray.serve.accounts import sessions
from dragonfly_ray.serve.accounts.auth import authorize
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.metrics import Metrics
from dragonfly_ray.serve.permissions import Access, requires
from dragonfly_ray.serve.problems import ProblemDocument
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.web import answers
from dragonfly_ray.serve.web.measured import Measured

_PROBLEM = {"model": ProblemDocument, "description": "A problem document (RFC 9457)."}


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

    app = _Application(
        title=openapi.TITLE,
        version="1",
        summary=openapi.SUMMARY,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(authorize)],
        responses=dict.fromkeys(("4XX", "5XX"), _PROBLEM),
        generate_unique_id_function=openapi.operation_id,
        # Served below: its own route would be behind no gate.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.cookie = sessions.cookie(settings)
    answers.install(app)
    web.surround(app, settings)
    metrics = app.state.metrics = Metrics(lambda: app.state.manager)
    app.add_middleware(Measured, metrics=metrics.requests, endpoints=lambda: openapi.endpoints(app))
    routes.include(app)
    app.get(f"{routes.API}/openapi.json", include_in_schema=False)(_document)
    return app


# Not within: FastAPI remembers each endpoint it has seen, and with it an application that it holds.
@requires(Access.PUBLIC)
def _document(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = request.app.openapi()
    return found


class _Application(FastAPI):
    cookie = ""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = openapi.enrich(self, super().openapi(), self.cookie)
        return self.openapi_schema
