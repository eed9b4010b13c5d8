"""The application: a plain FastAPI factory, which Ray Serve, uvicorn and tests run alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from dragonfly_ray.serve import routes, web
from dragonfly_ray.serve.accounts.gate import gate
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.problems import ProblemDocument
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.web import answers

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
    answers.install(app)
    web.surround(app, settings)
    routes.include(app)
    return app
