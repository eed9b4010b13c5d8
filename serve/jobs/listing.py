"""Which jobs are meant: the filters of lists, so that each of them finds an index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.tables import Job, JobNode, JobUrl
from dragonfly_ray.serve.jobs import shown
from dragonfly_ray.serve.jobs.board import Board
from dragonfly_ray.serve.jobs.requests import URL_START
from dragonfly_ray.serve.pagination import Page, Paging, page
from dragonfly_ray.serve.problems import invalid
from dragonfly_ray.serve.schemas import jobs as schemas

LAST = "\U0010ffff"
"""Sorts behind whatever a text may go on with."""
Text = Annotated[str | None, Query(max_length=256)]
Id = Annotated[str | None, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Filters:
    state: list[schemas.State]
    name: str | None
    url: str | None
    created_by: str | None
    node_id: str | None
    schedule_id: str | None
    retry_of: str | None
    since: datetime | None
    until: datetime | None


def _filters(
    state: Annotated[list[schemas.State] | None, Query(max_length=6, description="Any of these.")] = None,
    name: Annotated[str | None, Query(max_length=256, description="How the name begins.")] = None,
    url: Annotated[
        str | None, Query(max_length=URL_START, description="How one of the URLs begins, without secrets.")
    ] = None,
    created_by: Annotated[str | None, Query(max_length=64, description="A user's id.")] = None,
    node_id: Annotated[str | None, Query(max_length=64, description="A node that it is for.")] = None,
    schedule_id: Id = None,
    retry_of: Id = None,
    since: Annotated[datetime | None, Query(description="Made then or later.")] = None,
    until: Annotated[datetime | None, Query(description="Made before then.")] = None,
) -> Filters:
    for at in (since, until):
        if at is not None and at.tzinfo is None:
            raise invalid("since, until: a time needs its zone, such as 2026-01-31T12:00:00Z")
    return Filters(list(state or ()), name, url, created_by, node_id, schedule_id, retry_of, since, until)


Filtered = Annotated[Filters, Depends(_filters)]


def listed(
    session: Session, kind: schemas.Kind, filters: Filters, paging: Paging, board: Board
) -> Page[schemas.Job]:
    fields = {"created_at": Job.created_at, "name": Job.name, "state": Job.state}
    if filters.state and set(filters.state) <= schemas.ENDED:
        fields["ended_at"] = Job.ended_at
    elif (paging.sort or "").removeprefix("-") == "ended_at":
        raise invalid("sort: by ended_at only those that have ended; filter by such a state")
    query = _filtered(select(Job).where(Job.kind == kind), filters)
    return page(
        session, query, paging, fields, Job.id, lambda row: shown.job(row, board), default="-created_at"
    )


def _filtered(query: Select[Any], f: Filters) -> Select[Any]:
    if f.state:
        query = query.where(Job.state.in_(f.state))
    if f.name:
        query = query.where(Job.name >= f.name, Job.name < f.name + LAST)
    if f.url:
        begins = (JobUrl.start >= f.url, JobUrl.start < f.url + LAST)
        query = query.where(Job.id.in_(select(JobUrl.job_id).where(*begins)))
    if f.node_id:
        query = query.where(Job.id.in_(select(JobNode.job_id).where(JobNode.node_id == f.node_id)))
    for column, wanted in (
        (Job.created_by, f.created_by),
        (Job.schedule_id, f.schedule_id),
        (Job.retry_of, f.retry_of),
    ):
        if wanted:
            query = query.where(column == wanted)
    if f.since:
        query = query.where(Job.created_at >= f.since)
    if f.until:
        query = query.where(Job.created_at < f.until)
    return query
