"""All routes, a module for each resource. Each endpoint says with `requires(…)` who may use it."""

from __future__ import annotations

from fastapi import FastAPI

from dragonfly_ray.serve.routes import (
    audit,
    config,
    console,
    distributions,
    events,
    health,
    nodes,
    preheats,
    roles,
    schedules,
    secrets,
    session,
    stats,
    tasks,
    tokens,
    users,
    webhooks,
)

API = "/api/v1"
_RESOURCES = (
    session,
    distributions,
    preheats,
    tasks,
    nodes,
    schedules,
    users,
    tokens,
    roles,
    secrets,
    config,
    audit,
    events,
    webhooks,
    stats,
)


def include(app: FastAPI) -> None:
    for module in _RESOURCES:
        app.include_router(module.router, prefix=API)
    app.include_router(health.router)
    webhooks.document(app)
    app.include_router(console.router)
