"""Pages by cursor: nothing twice, nothing left out, and no cursor that upsets a database."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.distinct import beginning_with
from dragonfly_ray.serve.database.tables import Event, Job
from dragonfly_ray.serve.pagination import Page, Paging, page
from dragonfly_ray.serve.problems import Problem

FIELDS = {"name": Job.name, "created_at": Job.created_at, "nodes_total": Job.nodes_total, "id": Job.id}
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def jobs(database: Database) -> list[str]:
    """Many with the same name, the same time, the same number."""
    ids = [f"{n:04d}" for n in range(53)]
    with database.write() as session:
        session.add_all(
            Job(
                id=i,
                kind="preheat",
                name=f"é{n % 3}\n",
                created_at=START + timedelta(microseconds=n // 7),
                nodes_total=n % 5,
            )
            for n, i in enumerate(ids)
        )
    return ids


def walk(database: Database, sort: str, limit: int = 4) -> list[Job]:
    found: list[Job] = []
    cursor = None
    while True:
        with database.read() as session:
            got: Page[Job] = Page(items=[])
            query = select(Job)
            got = page(session, query, Paging(limit, cursor, sort), FIELDS, Job.id, _row, default="id")
        assert len(got.items) <= limit
        found += got.items
        cursor = got.next_cursor
        if cursor is None:
            return found


def _row(row: Any) -> Any:
    return row.id, row.name, row.created_at, row.nodes_total


@pytest.mark.parametrize("name", FIELDS)
def test_every_row_once_in_order(database: Database, jobs: list[str], name: str) -> None:
    at = {"id": 0, "name": 1, "created_at": 2, "nodes_total": 3}[name]
    up: list[Any] = walk(database, name)
    assert sorted(row[0] for row in up) == jobs
    assert [(row[at], row[0]) for row in up] == sorted((row[at], row[0]) for row in up)
    assert walk(database, f"-{name}", 7) == up[::-1]


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "name",
        ["name"],
        ["name", None, "x"],
        ["name", 1, "x"],
        ["name", "x", 1],
        ["name", True, "x"],
        ["name", [], "x"],
        ["name", {}, "x"],
        ["name", {"t": 1}, "x"],
        ["name", {"t": "2026-01-01T00:00:00+00:00"}, "x"],
        ["name", "a\0b", "x"],
        ["name", "\ud800", "x"],
        ["nodes_total", 1 << 70, "x"],
        ["nodes_total", 1e400, "x"],
        ["nodes_total", "1", "x"],
        ["created_at", "2026-01-01", "x"],
        ["created_at", {"t": "2026-01-01T00:00:00"}, "x"],
        ["created_at", {"t": "yesterday"}, "x"],
    ],
)
def test_a_forged_cursor_is_refused(database: Database, forged: Any) -> None:
    sort = forged[0] if isinstance(forged, list) else "name"
    cursor = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode()
    with database.read() as session, pytest.raises(Problem) as raised:
        page(session, select(Job), Paging(5, cursor, sort), FIELDS, Job.id, _row, default="id")
    assert raised.value.status == 422


def test_a_list_by_its_numbers(database: Database) -> None:
    with database.write() as session:
        session.add_all(Event(type="test") for _ in range(9))

    def ids(cursor: str | None) -> Page[int]:
        with database.read() as session:
            paging = Paging(4, cursor, None)
            return page(session, select(Event), paging, {"id": Event.id}, Event.id, _id, default="-id")

    first = ids(None)
    assert first.items == [9, 8, 7, 6]
    assert ids(first.next_cursor).items == [5, 4, 3, 2]


def _id(row: Any) -> int:
    return int(row.id)


def test_rows_with_any_of_several_values(database: Database) -> None:
    kinds = ["job.ended", "job.created", "jobs", "job_", "node.left", "Job.x", "job.é"]
    with database.write() as session:
        session.add_all(Event(type=kinds[n % len(kinds)]) for n in range(40))

    def walk_events(types: list[str], sort: str) -> list[int]:
        found: list[int] = []
        cursor = None
        while True:
            with database.read() as session:
                got = page(
                    session,
                    select(Event).where(Event.id > 3),
                    Paging(3, cursor, sort),
                    {"id": Event.id},
                    Event.id,
                    _id,
                    default="id",
                    any_of=(Event.type, types),
                )
            found += got.items
            if (cursor := got.next_cursor) is None:
                return found

    with database.read() as session:
        beginning = beginning_with(session, Event.type, "job.")
        assert beginning_with(session, Event.type, "x") == []
        assert len(beginning_with(session, Event.type, "")) == len(kinds)
    assert beginning == ["job.created", "job.ended", "job.é"]
    expected = [n + 1 for n in range(40) if kinds[n % len(kinds)] in beginning and n + 1 > 3]
    assert walk_events(beginning, "id") == expected
    assert walk_events(beginning, "-id") == expected[::-1]
    assert walk_events(["node.left"], "id") == [n + 1 for n in range(40) if n % len(kinds) == 4]
    assert walk_events([], "id") == []
