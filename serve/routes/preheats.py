"""`/api/v1/preheats`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dragonfly_ray.serve.jobs.idempotency import KeyHeader
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller
from dragonfly_ray.serve.routes import jobs
from dragonfly_ray.serve.schemas.jobs import Checked, Job, PreheatCreate

router = APIRouter(prefix="/preheats", tags=["preheats"])


@router.post("", status_code=202, summary="Start a preheat")
@requires(Permission.JOBS_WRITE)
def create(
    manager: Here,
    request: Request,
    response: Response,
    caller: Caller,
    body: PreheatCreate,
    key: KeyHeader = None,
) -> Job:
    """Warms the caches of nodes, without any output."""
    return jobs.create(manager, request, response, caller, body, key)


@router.post("/check", summary="Validate without starting (dry run)")
@requires(Permission.JOBS_WRITE)
def check(manager: Here, caller: Caller, body: PreheatCreate) -> Checked:
    """Looks at a request without starting anything."""
    return jobs.check(manager, caller, body)


jobs.add(router, "preheat")
