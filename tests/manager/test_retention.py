"""What is too old goes, what somebody still needs stays, and nobody is held up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import (
    Attempt,
    Audit,
    Base,
    Cursor,
    Delivery,
    Event,
    IdempotencyKey,
    Job,
    JobNode,
    Role,
    SignIn,
    TaskTraffic,
    Traffic,
    User,
    Webhook,
    now,
)
from dragonfly_ray.serve.events.feed import FORGOTTEN, EventFeed
from dragonfly_ray.serve.events.filters import EventFilter
from dragonfly_ray.serve.jobs.idempotency import Key, held
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.retention import Housekeeping
from dragonfly_ray.serve.settings import Retention
from dragonfly_ray.serve.stats.record import HOUR, MINUTE
from tests.manager.conftest import token_of
from tests.manager.serving import serving, stream

DAY = timedelta(days=1)
Clean = Callable[..., dict[str, int]]


@pytest.fixture
def clean(database: Database) -> Clean:
    def cleaned(at: datetime | None = None, batch: int = 500, **kept: float) -> dict[str, int]:
        keeper = Housekeeping(database, Leadership(database), Retention(**kept), batch=batch, pause=0.0)
        return keeper.clean(at or now(), threading.Event())

    return cleaned


def count(database: Database, table: type[Base]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def add(database: Database, *rows: Base) -> None:
    with database.write() as session:
        session.add_all(rows)


def test_old_rows_of_each_kind_go_and_younger_ones_stay(database: Database, clean: Clean) -> None:
    at = now()
    with database.write() as session:
        session.add(Role(name="r"))
        session.flush()
        session.add(User(id="u", name="u", role="r"))
        session.flush()
    for age in (1, 400):
        then = at - age * DAY
        add(
            database,
            Audit(action="a", at=then),
            Event(type="node.left", at=then),
            Attempt(key="k", at=then + timedelta(hours=1)),
            IdempotencyKey(
                user_id="u", key=f"k{age}", operation="o", fingerprint="f", resource_id="r", created_at=then
            ),
            SignIn(hash=f"h{age}", user_id="u", csrf="c", expires_at=then + 2 * DAY),
            Traffic(at=then, seconds=MINUTE, node_id="n"),
            Traffic(at=then, seconds=HOUR, node_id="n"),
            TaskTraffic(task_id=f"t{age}", last_at=then),
            Job(id=f"j{age}", kind="preheat", state="failed", ended_at=then),
        )
        add(database, JobNode(job_id=f"j{age}", url_index=0, node_id="n", state="failed"))
    removed = clean(at, jobs=30.0)
    assert removed == {
        "audit": 1,
        "events": 1,
        "attempts": 1,
        "idempotency_keys": 1,
        "sign_ins": 1,
        "traffic": 2,
        "task_traffic": 1,
        "jobs": 1,
    }
    for table, left in ((Event, 1), (Job, 1), (JobNode, 1), (SignIn, 1), (Traffic, 2), (TaskTraffic, 1)):
        assert count(database, table) == left
    with database.read() as session:
        (told,) = session.query(Audit).filter_by(action="retention")
    assert told.actor == "system"
    assert told.detail["removed"]["jobs"] == 1
    assert clean(at, jobs=30.0) == {}


def test_a_key_is_kept_as_long_as_it_is_promised(database: Database, clean: Clean) -> None:
    at = now()
    with database.write() as session:
        session.add(Role(name="r"))
        session.flush()
        session.add(User(id="u", name="u", role="r"))
    for age in (6.9, 7.1):
        add(database, IdempotencyKey(user_id="u", key=f"k{age}", operation="o", fingerprint="f",
                                     resource_id=f"r{age}", created_at=at - age * DAY))  # fmt: skip
    assert clean(at) == {"idempotency_keys": 1}
    with database.read() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["k6.9"]
        assert held(session, Key("u", "k6.9", "o", "f"), at) == "r6.9"
        assert held(session, Key("u", "k7.1", "o", "f"), at) is None


def test_jobs_that_ended_long_ago_go_by_default(database: Database, clean: Clean) -> None:
    at = now()
    for age in (89, 91):
        add(database, Job(id=f"j{age}", kind="preheat", state="failed", ended_at=at - age * DAY))
    assert clean(at) == {"jobs": 1}
    with database.read() as session:
        assert session.scalars(select(Job.id)).all() == ["j89"]


def test_zero_means_for_ever(database: Database, clean: Clean) -> None:
    then = now() - 4000 * DAY
    add(
        database,
        Audit(action="a", at=then),
        Event(type="x", at=then),
        Traffic(at=then, seconds=HOUR, node_id="n"),
        Job(id="j", kind="preheat", state="failed", ended_at=then),
    )
    assert clean(audit=0, events=0, stats=0, deliveries=0, jobs=0) == {}


def test_minutes_go_after_two_days_and_hours_stay(database: Database, clean: Clean) -> None:
    then = now() - 3 * DAY
    add(
        database,
        Traffic(at=then, seconds=MINUTE, node_id="n", bytes_peers=1),
        Traffic(at=then, seconds=HOUR, node_id="n", bytes_peers=1),
    )
    assert clean(stats=0) == {"traffic": 1}
    with database.read() as session:
        assert session.scalars(select(Traffic.seconds)).all() == [HOUR]


def test_jobs_that_have_not_ended_stay(database: Database, clean: Clean) -> None:
    then = now() - 100 * DAY
    add(database, Job(id="j", kind="preheat", state="running", created_at=then))
    assert clean(jobs=1.0) == {}


def test_in_batches(database: Database, clean: Clean) -> None:
    then = now() - 400 * DAY
    add(database, *(Audit(action="a", at=then) for _ in range(25)))
    assert clean(batch=10) == {"audit": 25}


def test_a_writer_comes_in_between(database: Database) -> None:
    then = now() - 400 * DAY
    add(database, *(Audit(action="a", at=then) for _ in range(40)))
    keeper = Housekeeping(database, Leadership(database), Retention(), batch=1, pause=0.0)
    worker = threading.Thread(target=keeper.clean, args=(now(), threading.Event()))
    worker.start()
    written_during = 0
    while worker.is_alive():
        add(database, Event(type="x"))
        written_during += worker.is_alive()
    assert written_during > 1
    assert count(database, Audit) == 1


def test_events_that_a_webhook_has_not_been_told_of_stay(database: Database, clean: Clean) -> None:
    then = now() - 30 * DAY
    add(database, *(Event(type="x", at=then) for _ in range(5)))
    with database.read() as session:
        ids = session.scalars(select(Event.id).order_by(Event.id)).all()
    add(
        database,
        Webhook(id="behind", name="behind", url="u", sealed=b"", cursor=ids[1]),
        Webhook(id="off", name="off", url="u", sealed=b"", cursor=0, enabled=False),
    )
    assert clean() == {"events": 2}
    with database.write() as session:
        session.get_one(Webhook, "behind").cursor = ids[-1]
    assert clean() == {"events": 3}


def test_ended_jobs_that_are_not_counted_yet_stay_in_the_events(database: Database, clean: Clean) -> None:
    add(database, Event(type="job.ended", at=now() - 30 * DAY, resource_id="j"))
    assert clean() == {}
    with database.read() as session:
        last = session.scalars(select(Event.id)).one()
    add(database, Cursor(name="task-traffic", event_id=last))
    assert clean() == {"events": 1}


def test_deliveries_that_wait_stay(database: Database, clean: Clean) -> None:
    then = now() - 30 * DAY
    add(database, Webhook(id="w", name="w", url="u", sealed=b""))
    add(
        database,
        *(
            Delivery(webhook_id="w", event_id=n, state=state, created_at=then, give_up_at=then)
            for n, state in enumerate(("pending", "delivered", "failed"))
        ),
    )
    assert clean() == {"deliveries": 2}


def test_ids_of_removed_events_are_not_given_out_again(database: Database, clean: Clean) -> None:
    add(database, *(Event(type="x", at=now() - 30 * DAY) for _ in range(3)))
    with database.read() as session:
        last = session.scalar(select(func.max(Event.id))) or 0
    assert clean() == {"events": 3}
    assert EventFeed(database).newest() == last
    with database.write() as session:
        emit(session, "job.created", "job", "j")
    (news,) = EventFeed(database).look(last, EventFilter(), 10).news
    assert news.id > last


def test_two_that_both_believe_to_lead_remove_everything_once(database: Database) -> None:
    add(database, *(Event(type="job.created", resource_id=str(n), at=now() - 30 * DAY) for n in range(40)))
    keepers = [
        Housekeeping(database, Leadership(database), Retention(), pause=0.0, batch=2) for _ in range(2)
    ]
    start = threading.Barrier(2)

    def clean(keeper: Housekeeping) -> int:
        start.wait()
        return keeper.clean(now(), threading.Event()).get("events", 0)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(clean, keepers)) == 40
    with database.read() as session:
        assert session.get_one(Cursor, FORGOTTEN).event_id == 40


def test_who_comes_back_too_late_is_told_of_the_gap(app: FastAPI) -> None:
    with serving(app) as url:
        database = app.state.manager.database
        add(database, *(Event(type="job.created", resource_id=str(n), at=now() - 30 * DAY) for n in range(4)))
        keeper = Housekeeping(database, app.state.manager.leadership, Retention(), pause=0.0)
        with database.read() as session:
            ids = session.scalars(select(Event.id).where(Event.type == "job.created")).all()
        keeper.clean(now(), threading.Event())
        with database.write() as session:
            emit(session, "job.created", "job", "new")
        token = token_of(database, "viewer")
        with stream(f"{url}/api/v1/events/stream?types=job.*&after={ids[0]}", token) as reader:
            gap = reader.next()
            assert gap.name == "gap"
            assert gap.json == {"after": ids[0], "until": ids[-1]}
            assert reader.next().json["resource_id"] == "new"
        with stream(f"{url}/api/v1/events/stream?types=job.*&after={ids[-1]}", token) as reader:
            assert reader.next().json["resource_id"] == "new"
