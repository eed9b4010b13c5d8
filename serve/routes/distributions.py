"""`/api/v1/distributions`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dragonfly_ray.serve.jobs.idempotency import KeyHeader
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller
from dragonfly_ray.serve.routes import jobs
from dragonfly_ray.serve.schemas.jobs import Checked, DistributionCreate, Job

router = APIRouter(prefix="/distributions", tags=["distributions"])


@router.post("", status_code=202, summary="Start a distribution")
@requires(Permission.JOBS_WRITE)
def create(
    manager: Here,
    request: Request,
    response: Response,
    caller: Caller,
    body: DistributionCreate,
    key: KeyHeader = None,
) -> Job:
    """Content onto nodes, at `dest` or into their stores. The answer comes at once; the work goes on."""
    return jobs.create(manager, request, response, caller, body, key)


@router.post("/check", summary="Validate without starting (dry run)")
@requires(Permission.JOBS_WRITE)
def check(manager: Here, caller: Caller, body: DistributionCreate) -> Checked:
    """Looks at a request without starting anything."""
    return jobs.check(manager, caller, body)


jobs.add(router, "distribution")
