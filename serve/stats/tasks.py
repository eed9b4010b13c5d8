"""What jobs moved of each task: counted once a job, when it has ended."""

from __future__ import annotations

import threading

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Cursor, Event, Job, JobNode, TaskTraffic, now
from dragonfly_ray.serve.schemas.base import Provenance
from dragonfly_ray.serve.schemas.news import TopTask
from dragonfly_ray.urls import redacted

CURSOR = "task-traffic"
_BATCH = 100
_SUMS = ("bytes_origin", "bytes_peers", "bytes_cache", "bytes_object_store")


def count_ended(database: Database, stopping: threading.Event) -> None:
    """Goes through the jobs that have ended since the last time."""
    while not stopping.is_set():
        with database.read() as session:
            cursor = session.get(Cursor, CURSOR)
            if not _ended(session, cursor.event_id if cursor else 0):
                return
        with database.write() as session:
            serialise(session, CURSOR)
            cursor = session.get(Cursor, CURSOR)
            if cursor is None:
                cursor = Cursor(name=CURSOR, event_id=0)
                session.add(cursor)
            for event_id, job_id in _ended(session, cursor.event_id):
                cursor.event_id = event_id
                if (job := session.get(Job, job_id)) is not None:
                    _count(session, job)


def _ended(session: Session, after: int) -> list[tuple[int, str]]:
    query = select(Event.id, Event.resource_id).where(Event.id > after, Event.type == "job.ended")
    return [(row.id, row.resource_id) for row in session.execute(query.order_by(Event.id).limit(_BATCH))]


def _count(session: Session, job: Job) -> None:
    sums = [func.sum(getattr(JobNode, name)) for name in _SUMS]
    query = (
        select(JobNode.url_index, func.max(JobNode.size), *sums)
        .where(JobNode.job_id == job.id)
        .group_by(JobNode.url_index)
    )
    seen: set[str] = set()
    for index, size, *moved in session.execute(query):
        task_id = job.task_ids[index] if index < len(job.task_ids) else ""
        if not task_id:
            continue
        row = session.get(TaskTraffic, task_id)
        if row is None:
            row = TaskTraffic(task_id=task_id, size=0, jobs=0, **dict.fromkeys(_SUMS, 0))
            session.add(row)
        row.url, row.last_at = redacted(job.urls[index]), job.ended_at or now()
        row.size = max(row.size, size or 0)
        row.jobs += task_id not in seen
        seen.add(task_id)
        for name, bytes in zip(_SUMS, moved, strict=True):
            setattr(row, name, getattr(row, name) + int(bytes or 0))


def top(session: Session, limit: int) -> list[TopTask]:
    """Those of which most was moved."""
    moved = sum((getattr(TaskTraffic, name) for name in _SUMS[1:]), start=TaskTraffic.bytes_origin)
    rows = session.scalars(select(TaskTraffic).order_by(moved.desc(), TaskTraffic.task_id).limit(limit))
    return [
        TopTask(
            task_id=row.task_id,
            url=row.url,
            size=row.size,
            jobs=row.jobs,
            bytes=Provenance(
                origin=row.bytes_origin,
                peers=row.bytes_peers,
                cache=row.bytes_cache,
                object_store=row.bytes_object_store,
            ),
            last_at=row.last_at,
        )
        for row in rows
    ]
