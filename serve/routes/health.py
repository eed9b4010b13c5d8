"""Whether this replica lives, whether it can work, and what it measures."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.metrics import Metrics
from dragonfly_ray.serve.permissions import Access, Permission, requires
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.readiness import OK
from dragonfly_ray.serve.schemas.base import Out

router = APIRouter(tags=["health"])


class Ready(Out):
    status: Literal["ok"] = "ok"
    checks: dict[str, str]


@router.get("/healthz")
@requires(Access.PUBLIC)
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
@requires(Access.PUBLIC)
def readyz(manager: Here) -> Ready:
    """The database answers and has this version's schema, and the cluster answers. 503 with `checks` otherwise."""
    checks = manager.readiness.checks()
    if wrong := [f"{part}: {what}" for part, what in checks.items() if what != OK]:
        raise Problem(
            503, "not-ready", "Not ready", "; ".join(wrong), headers={"Retry-After": "1"}, checks=checks
        )
    return Ready(checks=checks)


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
@requires(Permission.METRICS_READ)
def metrics(request: Request) -> Response:
    """Of the manager itself, for Prometheus."""
    found: Metrics = request.app.state.metrics
    return Response(found.text(), media_type=CONTENT_TYPE_LATEST)
