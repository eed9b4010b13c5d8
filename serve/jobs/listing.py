"""Which jobs are meant: the filters of lists, so that each of them finds an index."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Select, exists, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from dragonfly_ray.serve.database.distinct import LAST
from dragonfly_ray.serve.database.tables import Job, JobNode, JobUrl
from dragonfly_ray.serve.jobs import presenters
from dragonfly_ray.serve.jobs.board import Board
from dragonfly_ray.serve.jobs.requests import URL_START
from dragonfly_ray.serve.pagination import Page, Paging, page
from dragonfly_ray.serve.problems import invalid
from dragonfly_ray.serve.schemas import jobs as schemas

DEFAULT = "-created_at"
FEW = 1500
"""So many rows are sorted as soon as a page is found among those that are not few."""
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
    name: Annotated[str | None, Query(max_length=256, description="Prefix of the name.")] = None,
    url: Annotated[
        str | None, Query(max_length=URL_START, description="Prefix of one of the URLs, without secrets.")
    ] = None,
    created_by: Annotated[str | None, Query(max_length=64, description="A user's id.")] = None,
    node_id: Annotated[str | None, Query(max_length=64, description="Id of a target node.")] = None,
    schedule_id: Id = None,
    retry_of: Id = None,
    since: Annotated[datetime | None, Query(description="Created at or after this time.")] = None,
    until: Annotated[datetime | None, Query(description="Created before this time.")] = None,
) -> Filters:
    for at in (since, until):
        if at is not None and at.tzinfo is None:
            raise invalid("since, until: a time needs a timezone, such as 2026-01-31T12:00:00Z")
    return Filters(list(state or ()), name, url, created_by, node_id, schedule_id, retry_of, since, until)


Filtered = Annotated[Filters, Depends(_filters)]


def listed(
    session: Session, kind: schemas.Kind, filters: Filters, paging: Paging, board: Board
) -> Page[schemas.Job]:
    fields = {"created_at": Job.created_at, "name": Job.name, "state": Job.state}
    if filters.state and set(filters.state) <= schemas.ENDED:
        fields["ended_at"] = Job.ended_at
    elif (paging.sort or "").removeprefix("-") == "ended_at":
        raise invalid("sort: ended_at needs a filter by a finished state")
    few = _few(session, kind, filters)
    sort = (paging.sort or DEFAULT).removeprefix("-")
    # Each state has the orders by time; of several states the firsts of each are merged.
    states = filters.state if few is None and sort != "name" else []
    blind = _blind(sort, bool(states), few is not None) if _is_sqlite(session) else frozenset()
    # A list shows how many nodes were meant, not which: of a thousand that is most of the row.
    query = select(Job).options(defer(Job.targets))
    query = _filtered(query, kind, replace(filters, state=[]) if states else filters, blind)
    if few is not None:
        query = query.where(Job.id.in_(few))
    return page(
        session,
        query,
        paging,
        fields,
        Job.id,
        lambda row: presenters.job(row, board),
        default=DEFAULT,
        any_of=(Job.state, states) if states else None,
    )


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _blind(sort: str, by_state: bool, few: bool) -> frozenset[InstrumentedAttribute[Any]]:
    """Columns whose indexes SQLite shall leave alone: it does not think of how soon a page is full, and would
    rather read and sort half of the jobs."""
    if few:
        return frozenset(_COLUMNS)
    used = {"kind", sort}
    if by_state:
        used.add("state")
    elif sort == "created_at":
        used.add("created_by")
    return frozenset(column for column in _COLUMNS if column.key not in used)


def _few(session: Session, kind: schemas.Kind, f: Filters) -> list[str] | None:
    """The jobs that one of the filters leaves, if those are few; None: each of them leaves many.

    Among many the first page is found soon, in whatever order; few are sorted soon. Which of both it is depends
    on the values, and neither database knows those well enough to choose by itself.
    """
    best: list[str] | None = None
    for query in _candidates(kind, f):
        found = list(session.scalars(query.limit(FEW + 1)))
        if len(found) <= FEW and (best is None or len(found) < len(best)):
            best = found
        if best is not None and len(best) <= FEW // 10:
            break
    return best


def _candidates(kind: schemas.Kind, f: Filters) -> Iterator[Select[Any]]:
    """For each filter what it leaves, read from an index."""
    for column, wanted in (
        (Job.retry_of, f.retry_of),
        (Job.schedule_id, f.schedule_id),
        (Job.created_by, f.created_by),
    ):
        if wanted:
            yield select(Job.id).where(Job.kind == kind, column == wanted)
    if f.state:
        yield select(Job.id).where(Job.kind == kind, Job.state.in_(f.state))
    if f.name:
        yield select(Job.id).where(Job.kind == kind, Job.name >= f.name, Job.name < f.name + LAST)
    if f.url:
        yield select(JobUrl.job_id).where(JobUrl.start >= f.url, JobUrl.start < f.url + LAST)
    if f.node_id:
        yield select(JobNode.job_id).where(JobNode.node_id == f.node_id)
    if f.since or f.until:
        query = select(Job.id).where(Job.kind == kind)
        query = query.where(Job.created_at >= f.since) if f.since else query
        yield query.where(Job.created_at < f.until) if f.until else query


def _filtered(
    query: Select[Any], kind: schemas.Kind, f: Filters, blind: Collection[InstrumentedAttribute[Any]]
) -> Select[Any]:
    """`blind`: columns whose indexes are not to be used."""

    def of(column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
        if column in blind:
            return literal_column(f"+jobs.{column.key}", column.type)
        return cast("ColumnElement[Any]", column)

    query = query.where(of(Job.kind) == kind)
    if f.state:
        query = query.where(of(Job.state).in_(f.state))
    if f.name:
        query = query.where(of(Job.name) >= f.name, of(Job.name) < f.name + LAST)
    # Asked of each job on the way: a list of all that match would be made first, and may be long.
    if f.url:
        begins = (JobUrl.start >= f.url, JobUrl.start < f.url + LAST)
        query = query.where(exists().where(JobUrl.job_id == Job.id, *begins))
    if f.node_id:
        query = query.where(exists().where(JobNode.job_id == Job.id, JobNode.node_id == f.node_id))
    for column, wanted in (
        (Job.created_by, f.created_by),
        (Job.schedule_id, f.schedule_id),
        (Job.retry_of, f.retry_of),
    ):
        if wanted:
            query = query.where(of(column) == wanted)
    if f.since:
        query = query.where(of(Job.created_at) >= f.since)
    if f.until:
        query = query.where(of(Job.created_at) < f.until)
    return query


_COLUMNS = (Job.kind, Job.state, Job.name, Job.created_by, Job.schedule_id, Job.retry_of, Job.created_at)
