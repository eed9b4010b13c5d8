"""Schedules as people make and change them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dragonfly_ray.serve.database.tables import Job, Schedule, new_id, now
from dragonfly_ray.serve.etags import Precondition
from dragonfly_ray.serve.jobs import creation, requests
from dragonfly_ray.serve.jobs.idempotency import Key
from dragonfly_ray.serve.jobs.links import opened, sealed, shown
from dragonfly_ray.serve.jobs.requests import Around
from dragonfly_ray.serve.jobs.timing import Timing
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import conflict, forbidden, invalid, not_found
from dragonfly_ray.serve.records import audit, emit
from dragonfly_ray.serve.schemas import news as schemas
from dragonfly_ray.serve.schemas.base import By
from dragonfly_ray.serve.schemas.jobs import DistributionCreate, PreheatCreate
from dragonfly_ray.serve.vault import Vault

Body = DistributionCreate | PreheatCreate


def create(
    around: Around, connection: HTTPConnection, principal: Principal, body: schemas.ScheduleIn
) -> Schedule:
    row = Schedule(
        id=new_id(), created_by=principal.user_id, created_by_name=principal.name, created_at=now()
    )
    _fill(around, principal, row, body, row.created_at)
    try:
        with around.database.write() as session:
            session.add(row)
            session.flush()
            _told(session, connection, principal, row, "create")
    except IntegrityError:
        raise _taken(body.name) from None
    return row


def change(
    around: Around,
    connection: HTTPConnection,
    principal: Principal,
    schedule_id: str,
    body: schemas.ScheduleIn,
    precondition: Precondition,
) -> Schedule:
    try:
        with around.database.write() as session:
            row = find(session, schedule_id, for_update=True)
            precondition.check(row.version)
            _fill(around, principal, row, body, now())
            row.version += 1
            row.updated_at = now()
            session.flush()
            _told(session, connection, principal, row, "change")
    except IntegrityError:
        raise _taken(body.name) from None
    return row


def delete(around: Around, connection: HTTPConnection, principal: Principal, schedule_id: str) -> None:
    """Its jobs stay."""
    with around.database.write() as session:
        row = find(session, schedule_id, for_update=True)
        session.delete(row)
        session.flush()
        _told(session, connection, principal, row, "delete")


def run(
    around: Around, connection: HTTPConnection, principal: Principal, schedule_id: str, key: str | None
) -> Job:
    """At once, besides its times, with the rights of whoever asks."""
    _may(principal)
    with around.database.read() as session:
        row = find(session, schedule_id)
        body = request_of(row, around.vault)
    once = Key.of(principal.user_id, key, f"run:{schedule_id}", {})
    job = requests.create_once(
        around, connection, principal, body, once, action="schedule.run", schedule_id=schedule_id
    )
    with around.database.write() as session:
        found = session.get(Schedule, schedule_id, with_for_update=True)
        if found is not None and found.last_job_id != job.id:
            found.last_run_at, found.last_job_id, found.last_error = now(), job.id, ""
            emit(session, "schedule.fired", "schedule", schedule_id, {"name": row.name, "job_id": job.id})
    return job


def find(session: Session, schedule_id: str, *, for_update: bool = False) -> Schedule:
    row = session.get(Schedule, schedule_id, with_for_update=for_update or None)
    if row is None:
        raise not_found("schedule", schedule_id)
    return row


def timing_of(row: Schedule) -> Timing:
    """Intervals are counted from the last change of the schedule."""
    return Timing(row.cron, row.interval_seconds, row.timezone, row.updated_at)


def request_of(row: Schedule, vault: Vault) -> Body:
    """What it asks for, secrets included."""
    model = DistributionCreate if row.kind == "distribution" else PreheatCreate
    urls = opened(row.request["urls"], row.sealed_urls, vault, row.id)
    return model.model_validate(row.request | {"urls": urls})


def answered(row: Schedule) -> schemas.Schedule:
    return schemas.Schedule(
        id=row.id,
        name=row.name,
        kind="distribution" if row.kind == "distribution" else "preheat",
        request=row.request,
        cron=row.cron or None,
        interval_seconds=row.interval_seconds,
        timezone=row.timezone,
        enabled=row.enabled,
        next_run_at=row.next_run_at,
        last_run_at=row.last_run_at,
        last_job_id=row.last_job_id,
        last_error=row.last_error,
        created_by=By(id=row.created_by, name=row.created_by_name),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _fill(
    around: Around, principal: Principal, row: Schedule, body: schemas.ScheduleIn, at: datetime
) -> None:
    """Which nodes are meant is looked up when it fires: they may be others by then."""
    _may(principal)
    asked = body.distribution or body.preheat
    if asked is None or (body.distribution and body.preheat):
        raise invalid("schedule: give either a distribution or a preheat")
    if row.sealed_urls is not None:
        asked = _with_secrets(asked, opened(row.request["urls"], row.sealed_urls, around.vault, row.id))
    wrong = creation.static(around, principal, asked)
    if wrong:
        raise creation.refusal(wrong)
    row.cron, row.interval_seconds, row.timezone = body.cron or "", body.interval_seconds, body.timezone
    row.updated_at = at
    timing = timing_of(row)
    timing.check()
    row.name, row.enabled = body.name, body.enabled
    row.kind = "distribution" if isinstance(asked, DistributionCreate) else "preheat"
    row.request = asked.model_dump(mode="json") | {"urls": shown(asked.urls)}
    row.sealed_urls = sealed(asked.urls, around.vault, row.id)
    row.next_run_at = timing.next(at) if body.enabled else None
    row.last_error = ""


def _with_secrets(asked: Body, known: list[str]) -> Body:
    """Who sends back what was shown means what is kept."""
    real = dict(zip(shown(known), known, strict=True))
    return asked.model_copy(update={"urls": [real.get(url, url) for url in asked.urls]})


def _may(principal: Principal) -> None:
    if not principal.may(Permission.JOBS_WRITE):
        needed = Permission.JOBS_WRITE
        raise forbidden(
            f"{principal.name} lacks permission {needed}, which the scheduled job needs", needed=needed
        )


def _told(
    session: Session, connection: HTTPConnection, principal: Principal, row: Schedule, action: str
) -> None:
    audit(session, connection, f"schedule.{action}", "schedule", row.id, principal=principal, name=row.name,
          kind=row.kind, cron=row.cron, interval_seconds=row.interval_seconds, timezone=row.timezone,
          enabled=row.enabled, request=row.request)  # fmt: skip
    past = {"create": "created", "change": "changed", "delete": "deleted"}[action]
    emit(session, f"schedule.{past}", "schedule", row.id, {"name": row.name, "kind": row.kind})


def _taken(name: str) -> Exception:
    return conflict(f"schedule {name!r} already exists", "name-taken")


def listed(kind: str | None, enabled: bool | None) -> Select[Any]:
    query = select(Schedule)
    if kind:
        query = query.where(Schedule.kind == kind)
    if enabled is not None:
        query = query.where(Schedule.enabled == enabled)
    return query
