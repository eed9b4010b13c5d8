"""Fires schedules, on the leader: each time exactly one job, however often leaders change in between."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.errors import ClusterError, DragonflyError
from dragonfly_ray.serve.accounts import rights
from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.database.db_errors import DB_UNAVAILABLE, first_line
from dragonfly_ray.serve.database.tables import Job, Schedule, now
from dragonfly_ray.serve.jobs import creation, requests
from dragonfly_ray.serve.jobs.creation import Plan
from dragonfly_ray.serve.jobs.requests import Around
from dragonfly_ray.serve.jobs.schedules import request_of, timing_of
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import Problem, forbidden
from dragonfly_ray.serve.records import audit, emit

log = logging.getLogger(__name__)
ROUND = 0.5
MOST = 100
"""Schedules of one round."""
AGAIN = 5.0
"""Seconds after which one is tried again that found no cluster."""
NAMESPACE = uuid.UUID("8f6d1f2e-3f0b-5a59-9d0c-5d5f7a1c9b42")
VIA = "schedule"


class Timetable:
    """A service. `clock`: what time it is."""

    def __init__(
        self, around: Around, leadership: Leadership, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._around = around
        self._leadership = leadership
        self._clock = clock
        self._waiting: dict[str, float] = {}
        self._deprived = False
        """Whether the database was away, the last time."""
        self._loop = Loop("schedules", ROUND, self._round)

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def _round(self, stopping: threading.Event) -> None:
        if not self._leadership.leading:
            return
        try:
            self.fire_due(stopping)
            self._deprived = False
        except DB_UNAVAILABLE as error:
            if not self._deprived:
                log.warning("schedules: database unavailable, retrying: %s", first_line(error))
            self._deprived = True

    def fire_due(self, stopping: threading.Event | None = None) -> None:
        """All whose time has come; one that was missed, be it often, fires once."""
        query = select(Schedule.id).where(Schedule.enabled.is_(True), Schedule.next_run_at <= self._clock())
        with self._around.database.read() as session:
            due = list(session.scalars(query.order_by(Schedule.next_run_at).limit(MOST)))
        for schedule_id in due:
            if stopping is not None and stopping.is_set():
                return
            if time.monotonic() >= self._waiting.get(schedule_id, 0.0):
                try:
                    self._fire(schedule_id)
                except DB_UNAVAILABLE:
                    raise
                except Exception:
                    # One that cannot be fired holds up no other.
                    log.exception("schedule %s: failed to fire", schedule_id)

    def _fire(self, schedule_id: str) -> None:
        with self._around.database.read() as session:
            row = session.get(Schedule, schedule_id)
            if row is None or row.next_run_at is None:
                return
            principal = rights.of_user(session, row.created_by, VIA)
        try:
            plan = self._plan(row, principal)
        except ClusterError as error:
            self._waiting[schedule_id] = time.monotonic() + AGAIN
            self._wait(row, f"no response from the cluster; fires when it responds ({error})")
            return
        except (Problem, DragonflyError) as error:
            self._fail(row, principal, str(error))
            return
        self._waiting.pop(schedule_id, None)
        assert principal is not None
        self._begin(row, principal, plan)

    def _plan(self, row: Schedule, principal: Principal | None) -> Plan:
        """With the rights that its creator has now."""
        if principal is None:
            raise forbidden(f"{row.created_by_name}, who created the schedule, was deleted or disabled")
        if not principal.may(Permission.JOBS_WRITE):
            raise forbidden(f"{principal.name}, who created the schedule, may no longer start it")
        return creation.plan(self._around, principal, request_of(row, self._around.vault))

    def _begin(self, seen: Schedule, principal: Principal, plan: Plan) -> None:
        assert seen.next_run_at is not None
        job_id = uuid.uuid5(NAMESPACE, f"{seen.id} {seen.next_run_at.isoformat()}").hex
        with self._around.database.write() as session:
            row = self._advanced(session, seen)
            if row is None or session.get(Job, job_id) is not None:
                return
            job = requests.insert_job(
                session, self._around.vault, principal, plan, job_id=job_id, schedule_id=row.id
            )
            row.last_run_at, row.last_job_id, row.last_error = self._clock(), job_id, ""
            audit(session, None, "job.create", "job", job_id, principal=principal, kind=job.kind, name=job.name,
                  urls=job.urls, nodes_total=job.nodes_total, dest=job.dest, secret=job.secret,
                  schedule_id=row.id)  # fmt: skip
            requests.announce(session, job)
            emit(session, "schedule.fired", "schedule", row.id, {"name": row.name, "job_id": job_id})
        log.info("schedule %s: job %s", seen.id, job_id)

    def _fail(self, seen: Schedule, principal: Principal | None, why: str) -> None:
        log.warning("schedule %s: %s", seen.id, why)
        with self._around.database.write() as session:
            row = self._advanced(session, seen)
            if row is None:
                return
            row.last_run_at, row.last_error = self._clock(), why
            audit(session, None, "schedule.fire", "schedule", row.id, outcome="refused", principal=principal,
                  name=row.name, why=why)  # fmt: skip
            emit(session, "schedule.failed", "schedule", row.id, {"name": row.name, "error": why})

    def _wait(self, seen: Schedule, why: str) -> None:
        """It is still due; people see why nothing happens."""
        with self._around.database.write() as session:
            row = session.get(Schedule, seen.id, with_for_update=True)
            if row is not None and row.last_error != why:
                row.last_error = why

    def _advanced(self, session: Session, seen: Schedule) -> Schedule | None:
        """The row, on to its next time; None if it was changed meanwhile, or another leader was here."""
        row = session.get(Schedule, seen.id, with_for_update=True)
        if (
            row is None
            or not row.enabled
            or (row.version, row.next_run_at) != (seen.version, seen.next_run_at)
        ):
            return None
        row.next_run_at = timing_of(row).next(self._clock())
        return row
