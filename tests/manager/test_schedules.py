"""Schedules: made and changed over HTTP, fired by the leader with a clock that tests turn."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from dragonfly_ray.serve.database.tables import Audit, Event, Job, Role, Schedule, User, now
from dragonfly_ray.serve.jobs.schedules import timing_of
from dragonfly_ray.serve.jobs.timetable import Timetable
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager.jobs_help import URL
from tests.waiting import until

SignIn = Callable[[str], httpx.Client]
HOURLY = {"name": "hourly", "cron": "0 * * * *", "preheat": {"urls": [URL], "nodes": "seeds"}}


class Clock:
    def __init__(self) -> None:
        self.at = now()

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def client(client: httpx.Client, sign_in: SignIn) -> httpx.Client:
    return sign_in("operator")


@pytest.fixture
def manager(client: httpx.Client, app: FastAPI) -> Manager:
    found: Manager = app.state.manager
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timetable(manager: Manager, clock: Clock) -> Timetable:
    return Timetable(manager, manager.leadership, clock=clock)


def made(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/schedules", json=HOURLY | changes)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/api/v1/schedules/{found['id']}"
    return found


def jobs_of(manager: Manager, schedule: dict[str, Any]) -> list[Job]:
    with manager.database.read() as session:
        return list(session.scalars(select(Job).where(Job.schedule_id == schedule["id"])))


def row_of(manager: Manager, schedule: dict[str, Any]) -> Schedule:
    with manager.database.read() as session:
        return session.get_one(Schedule, schedule["id"])


def events_of(manager: Manager, type: str) -> list[Event]:
    with manager.database.read() as session:
        return list(session.scalars(select(Event).where(Event.type == type)))


def test_it_fires_when_its_time_has_come(
    client: httpx.Client, manager: Manager, timetable: Timetable, clock: Clock
) -> None:
    schedule = made(client)
    timetable.fire_due()
    assert jobs_of(manager, schedule) == []
    clock.at = datetime.fromisoformat(schedule["next_run_at"])
    timetable.fire_due()
    timetable.fire_due()
    (job,) = jobs_of(manager, schedule)
    assert (job.kind, job.created_by, job.nodes) == ("preheat", schedule["created_by"]["id"], "seeds")
    row = row_of(manager, schedule)
    assert row.last_job_id == job.id
    assert row.next_run_at == clock.at + timedelta(hours=1)
    (fired,) = events_of(manager, "schedule.fired")
    assert fired.data["job_id"] == job.id
    with manager.database.read() as session:
        audit = session.scalars(
            select(Audit).where(Audit.resource_id == job.id, Audit.action == "job.create")
        ).one()
    assert (audit.via, audit.actor_id) == ("schedule", schedule["created_by"]["id"])


def test_missed_runs_fire_once(
    client: httpx.Client, manager: Manager, timetable: Timetable, clock: Clock
) -> None:
    schedule = made(client)
    clock.at = datetime.fromisoformat(schedule["next_run_at"]) + timedelta(hours=9, minutes=20)
    timetable.fire_due()
    timetable.fire_due()
    assert len(jobs_of(manager, schedule)) == 1
    assert row_of(manager, schedule).next_run_at == clock.at + timedelta(minutes=40)


def test_two_leaders_fire_one_job(
    client: httpx.Client, manager: Manager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is paused after it has looked; the second fires meanwhile."""
    schedule = made(client)
    clock.at = datetime.fromisoformat(schedule["next_run_at"])
    first, second = (Timetable(manager, manager.leadership, clock=clock) for _ in range(2))
    begin = first._begin

    def paused(*args: Any) -> None:
        second.fire_due()
        begin(*args)

    monkeypatch.setattr(first, "_begin", paused)
    first.fire_due()
    assert len(jobs_of(manager, schedule)) == 1
    assert len(events_of(manager, "schedule.fired")) == 1


@pytest.mark.parametrize("why", ["disabled", "role", "gone", "nodes"])
def test_it_acts_with_its_creators_rights_of_now(
    client: httpx.Client, manager: Manager, timetable: Timetable, clock: Clock, cluster: FakeCluster, why: str
) -> None:
    schedule = made(client)
    creator = schedule["created_by"]["id"]
    with manager.database.write() as session:
        user = session.get_one(User, creator)
        match why:
            case "disabled":
                user.disabled = True
            case "role":
                user.role = "viewer"
            case "gone":
                session.delete(user)
            case _:
                for node in cluster.views:
                    cluster.set_node(node, seed=False)
    clock.at = datetime.fromisoformat(schedule["next_run_at"])
    timetable.fire_due()
    assert jobs_of(manager, schedule) == []
    row = row_of(manager, schedule)
    assert row.last_error
    assert row.next_run_at == clock.at + timedelta(hours=1)
    (failed,) = events_of(manager, "schedule.failed")
    assert failed.data["error"] == row.last_error


def test_without_a_cluster_it_waits_and_fires_late(
    client: httpx.Client,
    manager: Manager,
    timetable: Timetable,
    clock: Clock,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = made(client)
    clock.at = datetime.fromisoformat(schedule["next_run_at"])
    monkeypatch.setattr("dragonfly_ray.serve.jobs.timetable.AGAIN", 0.0)
    cluster.down = True
    timetable.fire_due()
    assert jobs_of(manager, schedule) == []
    assert "no response from the cluster" in row_of(manager, schedule).last_error
    assert row_of(manager, schedule).next_run_at == clock.at
    cluster.down = False
    timetable.fire_due()
    assert len(jobs_of(manager, schedule)) == 1
    assert row_of(manager, schedule).last_error == ""


def test_the_leader_fires_by_itself(client: httpx.Client, manager: Manager) -> None:
    schedule = made(client, cron=None, interval_seconds=10)
    with manager.database.write() as session:
        session.get_one(Schedule, schedule["id"]).next_run_at = now()
    until(lambda: jobs_of(manager, schedule))


def test_run_now(client: httpx.Client, manager: Manager) -> None:
    schedule = made(client)
    answers = [
        client.post(f"/api/v1/schedules/{schedule['id']}/run", headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert [a.status_code for a in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[0].headers["location"] == f"/api/v1/preheats/{answers[0].json()['id']}"
    assert len(jobs_of(manager, schedule)) == 1
    seen = client.get(f"/api/v1/schedules/{schedule['id']}").json()
    assert seen["last_job_id"] == answers[0].json()["id"]
    assert seen["next_run_at"] == schedule["next_run_at"]
    assert seen["version"] == 1


def test_what_comes_next(client: httpx.Client, manager: Manager) -> None:
    schedule = made(client, timezone="America/New_York")
    found = client.get(f"/api/v1/schedules/{schedule['id']}/upcoming?count=3").json()["items"]
    assert [datetime.fromisoformat(each) for each in found] == timing_of(row_of(manager, schedule)).first(
        now(), 3
    )
    assert found[0] == schedule["next_run_at"]


def test_changes_need_the_version_that_was_seen(client: httpx.Client, manager: Manager) -> None:
    schedule = made(client)
    path = f"/api/v1/schedules/{schedule['id']}"
    change = {"name": "often", "interval_seconds": 60, "distribution": {"urls": [URL], "dest": "/data/x"}}
    assert client.put(path, json=change).status_code == 428
    assert client.put(path, json=change, headers={"If-Match": '"7"'}).status_code == 412
    answer = client.put(path, json=change, headers={"If-Match": '"1"'})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["kind"], found["version"], found["cron"]) == ("distribution", 2, None)
    assert answer.headers["etag"] == '"2"'
    off = client.put(path, json=change | {"enabled": False}, headers={"If-Match": '"2"'}).json()
    assert off["next_run_at"] is None
    assert client.get(f"{path}/upcoming").json() == {"items": []}
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert [e.type for e in events_of(manager, "schedule.deleted")] == ["schedule.deleted"]


@pytest.mark.parametrize(
    "changes",
    [
        {"cron": "nonsense"},
        {"cron": None},
        {"interval_seconds": 60},
        {"timezone": "Nowhere/At_All"},
        {"preheat": None},
        {"distribution": {"urls": [URL]}},
        {"preheat": {"urls": ["http://127.0.0.1/x"]}},
        {"preheat": {"urls": [URL], "secret": "none"}},
    ],
)
def test_what_could_never_run_is_refused(client: httpx.Client, changes: dict[str, Any]) -> None:
    answer = client.post("/api/v1/schedules", json=HOURLY | changes)
    assert answer.status_code == 422, answer.text


def test_a_name_is_taken_once(client: httpx.Client) -> None:
    made(client)
    answer = client.post("/api/v1/schedules", json=HOURLY)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:dragonfly:problem:name-taken")
    other = made(client, name="other")
    answer = client.put(f"/api/v1/schedules/{other['id']}", json=HOURLY, headers={"If-Match": "*"})
    assert answer.status_code == 409
    assert [s["name"] for s in client.get("/api/v1/schedules").json()["items"]] == ["hourly", "other"]


def test_signed_urls_are_hidden_and_kept(
    client: httpx.Client, manager: Manager, timetable: Timetable, clock: Clock, cluster: FakeCluster
) -> None:
    signed = "https://bucket.example.com/m?X-Amz-Signature=topsecret"
    schedule = made(client, preheat={"urls": [signed]})
    path = f"/api/v1/schedules/{schedule['id']}"
    shown = schedule["request"]["urls"]
    assert "topsecret" not in client.get(path).text
    # What was shown is sent back with a change of something else.
    change = HOURLY | {"preheat": {"urls": shown, "tag": "t"}}
    assert client.put(path, json=change, headers={"If-Match": '"1"'}).json()["request"]["tag"] == "t"
    clock.at = datetime.fromisoformat(schedule["next_run_at"])
    timetable.fire_due()
    (job,) = jobs_of(manager, schedule)
    until(lambda: job.id in cluster.orders)
    assert cluster.orders[job.id].sources[0].url == signed
    with manager.database.read() as session:
        written = [
            str(vars(row)) for kind in (Audit, Event, Schedule, Job) for row in session.scalars(select(kind))
        ]
    assert not any("topsecret" in text for text in written)


def test_who_may_not_start_jobs_makes_no_schedule(
    client: httpx.Client, manager: Manager, sign_in: SignIn
) -> None:
    with manager.database.write() as session:
        session.add(Role(name="timer", permissions=["schedules:write", "schedules:read"]))
    timer = sign_in("timer")
    answer = timer.post("/api/v1/schedules", json=HOURLY)
    assert (answer.status_code, answer.json()["needed"]) == (403, "jobs:write")
    schedule = made(client)
    assert timer.post(f"/api/v1/schedules/{schedule['id']}/run").status_code == 403
    assert timer.get(f"/api/v1/schedules/{schedule['id']}").status_code == 200
