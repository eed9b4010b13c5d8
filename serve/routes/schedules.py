"""`/api/v1/schedules`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from dragonfly_ray.serve.database.tables import Schedule as Row
from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.jobs import schedules
from dragonfly_ray.serve.jobs.idempotency import KeyHeader
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller
from dragonfly_ray.serve.routes.jobs import API, accepted
from dragonfly_ray.serve.schemas.jobs import Job, Kind
from dragonfly_ray.serve.schemas.news import Schedule, ScheduleIn, Upcoming

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.get("", summary="List schedules")
@requires(Permission.SCHEDULES_READ)
def list_schedules(
    manager: Here, paging: Paged, kind: Kind | None = None, enabled: bool | None = None
) -> Page[Schedule]:
    fields = {"name": Row.name, "created_at": Row.created_at, "kind": Row.kind}
    with manager.database.read() as session:
        query = schedules.listed(kind, enabled)
        return page(session, query, paging, fields, Row.id, schedules.answered, default="name")


@router.post("", status_code=201, summary="Create a schedule")
@requires(Permission.SCHEDULES_WRITE)
def create_schedule(
    manager: Here, request: Request, response: Response, caller: Caller, body: ScheduleIn
) -> Schedule:
    """It acts with the rights that its creator has when it fires. Starting what it starts needs jobs:write."""
    row = schedules.create(manager, request, caller, body)
    response.headers["Location"] = f"{API}/schedules/{row.id}"
    tag(response, row.version)
    return schedules.answered(row)


@router.get("/{schedule_id}", summary="Get a schedule")
@requires(Permission.SCHEDULES_READ)
def get_schedule(manager: Here, response: Response, schedule_id: str) -> Schedule:
    with manager.database.read() as session:
        row = schedules.find(session, schedule_id)
    tag(response, row.version)
    return schedules.answered(row)


@router.put("/{schedule_id}", summary="Change a schedule")
@requires(Permission.SCHEDULES_WRITE)
def change_schedule(
    manager: Here,
    request: Request,
    response: Response,
    caller: Caller,
    schedule_id: str,
    body: ScheduleIn,
    precondition: IfMatch,
) -> Schedule:
    """All of it. A URL as it was shown, with its query hidden, stands for the one that is kept."""
    row = schedules.change(manager, request, caller, schedule_id, body, precondition)
    tag(response, row.version)
    return schedules.answered(row)


@router.delete("/{schedule_id}", status_code=204, summary="Delete a schedule")
@requires(Permission.SCHEDULES_WRITE)
def delete_schedule(manager: Here, request: Request, caller: Caller, schedule_id: str) -> None:
    """Jobs that it started stay, and go on."""
    schedules.delete(manager, request, caller, schedule_id)


@router.post("/{schedule_id}/run", status_code=202, summary="Run a schedule now")
@requires(Permission.SCHEDULES_WRITE)
def run_schedule(
    manager: Here,
    request: Request,
    response: Response,
    caller: Caller,
    schedule_id: str,
    key: KeyHeader = None,
) -> Job:
    """Besides its times, with the caller's rights."""
    return accepted(manager, schedules.run(manager, request, caller, schedule_id, key), response)


@router.get("/{schedule_id}/upcoming", summary="List the next runs")
@requires(Permission.SCHEDULES_READ)
def upcoming(manager: Here, schedule_id: str, count: Annotated[int, Query(ge=1, le=100)] = 5) -> Upcoming:
    with manager.database.read() as session:
        row = schedules.find(session, schedule_id)
    return Upcoming(items=schedules.timing_of(row).first(now(), count) if row.enabled else [])
