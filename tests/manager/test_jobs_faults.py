"""What may happen to a manager while jobs are under way."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.accounts import setup
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.cluster import Order
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Audit, Event, Job
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import SIZE, FakeCluster
from tests import postgres
from tests.manager.conftest import token_of
from tests.manager.jobs_help import URL, job_in, nodes_of, submit
from tests.manager.replicas import replica, shared
from tests.manager.serving import serving, stream
from tests.manager.test_jobs_live import heard
from tests.waiting import until

PATH = "/api/v1/distributions"


class Two:
    """Two replicas in this process."""

    def __init__(self, settings: ManagerSettings, cluster: FakeCluster) -> None:
        self.apps = [create_app(settings, cluster) for _ in range(2)]
        self.clients: list[TestClient] = []

    @property
    def managers(self) -> list[Manager]:
        return [app.state.manager for app in self.apps]


@pytest.fixture
def two(settings: ManagerSettings, cluster: FakeCluster) -> Iterator[Two]:
    found = Two(settings, cluster)
    with contextlib.ExitStack() as stack:
        for app in found.apps:
            client = TestClient(app, base_url="http://manager", raise_server_exceptions=False)
            found.clients.append(stack.enter_context(client))
        token = token_of(found.managers[0].database, "operator")
        for client in found.clients:
            client.headers["Authorization"] = f"Bearer {token}"
        until(lambda: sum(m.leadership.leading for m in found.managers) == 1)
        yield found


def told(database: Database, job: dict[str, Any]) -> list[str]:
    with database.read() as session:
        return list(
            session.scalars(select(Event.type).where(Event.resource_id == job["id"]).order_by(Event.id))
        )


# --- a replica is killed ------------------------------------------------------------------------


def test_a_replica_killed_in_mid_job(
    database: Database, settings: ManagerSettings, cluster: FakeCluster, tmp_path: Path
) -> None:
    setup.builtin_roles(database)
    token = token_of(database, "operator")
    first_done, second_done, *_ = sorted(cluster.views)
    with shared(cluster) as address:
        with replica(address, settings, tmp_path / "log") as first:
            client = first.client(token)
            made = submit(client, name="survivor", urls=[URL + "?sig=secret"])
            until(lambda: made["id"] in cluster.orders)
            cluster.advance(made["id"], 0.5)
            cluster.end(made["id"], nodes=[first_done])
            until(lambda: nodes_of(client, made, state="done"))
            first.kill()
        # While nobody looks, the cluster goes on.
        cluster.end(made["id"], nodes=[second_done])
        with replica(address, settings, tmp_path / "log") as second:
            client = second.client(token)
            path = f"{PATH}/{made['id']}"
            until(lambda: client.get(path).json()["progress"]["nodes_done"] == 2)
            assert client.get(path).json()["state"] == "running"
            cluster.end(made["id"])
            ended = job_in(client, made, "succeeded")
    assert ended["progress"]["nodes_done"] == 4
    assert ended["bytes"]["peers"] == 4 * SIZE
    assert cluster.submitted == [made["id"]]
    assert told(database, made) == ["job.created", "job.started", "job.ended"]


def test_a_replica_killed_before_it_told_the_cluster(
    database: Database,
    settings: ManagerSettings,
    cluster: FakeCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job is written down; the next leader begins it, once."""
    setup.builtin_roles(database)
    token = token_of(database, "operator")
    hold, submit_order = threading.Event(), cluster.submit

    def late(order: Order, credentials: Credentials) -> None:
        hold.wait(30)
        submit_order(order, credentials)

    monkeypatch.setattr(cluster, "submit", late)
    with shared(cluster) as address:
        with replica(address, settings, tmp_path / "log") as first:
            made = submit(first.client(token))
            job_in(first.client(token), made, "running")
            first.kill()
        assert cluster.submitted == []
        with replica(address, settings, tmp_path / "log") as second:
            hold.set()
            until(lambda: made["id"] in cluster.orders)
            cluster.end(made["id"])
            job_in(second.client(token), made, "succeeded")
    assert cluster.submitted == [made["id"]]
    assert told(database, made) == ["job.created", "job.started", "job.ended"]


# --- two replicas -------------------------------------------------------------------------------


def test_the_same_key_at_two_replicas_at_once(two: Two, cluster: FakeCluster) -> None:
    def post(number: int) -> httpx.Response:
        key = {"Idempotency-Key": f"round-{number // 8}"}
        client: httpx.Client = two.clients[number % 2]
        return client.post(PATH, json={"urls": [URL]}, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(24)))
    assert {a.status_code for a in answers} == {202}
    ids = [{a.json()["id"] for a in answers[n : n + 8]} for n in (0, 8, 16)]
    assert [len(each) for each in ids] == [1, 1, 1]
    expected = set.union(*ids)
    with two.managers[0].database.read() as session:
        assert set(session.scalars(select(Job.id))) == expected
        audited = list(session.scalars(select(Audit.resource_id).where(Audit.action == "job.create")))
    assert sorted(audited) == sorted(expected)
    until(lambda: len(cluster.submitted) >= 3)
    for id in expected:
        cluster.end(id)
        job_in(two.clients[0], {"kind": "distribution", "id": id}, "succeeded")
    assert sorted(cluster.submitted) == sorted(expected)


def test_a_cancel_at_the_replica_that_does_not_lead(two: Two, cluster: FakeCluster) -> None:
    follower = 0 if two.managers[1].leadership.leading else 1
    made = submit(two.clients[1 - follower])
    until(lambda: made["id"] in cluster.orders)
    two.clients[follower].post(f"{PATH}/{made['id']}/cancel")
    job_in(two.clients[follower], made, "cancelled")
    assert cluster.cancelled == [made["id"]]


def test_every_replica_shows_live_progress(two: Two, cluster: FakeCluster) -> None:
    made = submit(two.clients[0])
    until(lambda: made["id"] in cluster.orders)
    cluster.advance(made["id"], 0.25)
    path = f"{PATH}/{made['id']}"
    until(lambda: [c.get(path).json()["progress"]["bytes_done"] for c in two.clients] == [SIZE, SIZE])


def test_another_leader_takes_over(two: Two, cluster: FakeCluster) -> None:
    jobs = [submit(two.clients[n % 2], name=f"job-{n}") for n in range(4)]
    until(lambda: len(cluster.submitted) == 4)
    leader = next(m for m in two.managers if m.leadership.leading)
    other = next(m for m in two.managers if m is not leader)
    cluster.fail(jobs[0]["id"], "stalled", "no bytes", nodes=[min(cluster.views)])
    until(lambda: "job.node_failed" in told(leader.database, jobs[0]))
    leader.leadership.stop()
    until(lambda: other.leadership.leading)
    for job in jobs:
        cluster.end(job["id"])
    states = [job_in(two.clients[0], job, "succeeded", "partial")["state"] for job in jobs]
    assert states == ["partial", "succeeded", "succeeded", "succeeded"]
    assert len(cluster.submitted) == 4
    ordinary = ["job.created", "job.started", "job.ended"]
    assert told(other.database, jobs[0]) == [*ordinary[:2], "job.node_failed", ordinary[2]]
    assert all(told(other.database, job) == ordinary for job in jobs[1:])


def test_two_that_both_believe_to_lead_tell_everything_once(two: Two, cluster: FakeCluster) -> None:
    """As after a clock that jumps, or a process that was frozen."""
    for manager in two.managers:
        manager.leadership._until = float("inf")
    jobs = [submit(two.clients[n % 2]) for n in range(5)]
    until(lambda: len(cluster.submitted) == 5)
    for job in jobs:
        cluster.fail(job["id"], "stalled", "no bytes", nodes=[min(cluster.views)])
        cluster.end(job["id"])
        job_in(two.clients[0], job, "partial")
    assert sorted(cluster.submitted) == sorted(job["id"] for job in jobs)
    for job in jobs:
        assert sorted(told(two.managers[0].database, job)) == [
            "job.created",
            "job.ended",
            "job.node_failed",
            "job.started",
        ]


# --- the database restarts ----------------------------------------------------------------------


@pytest.fixture
def own_postgres() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        yield server


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_database_restarts_under_load(own_postgres: postgres.Postgres, tmp_path: Path, mode: str) -> None:
    cluster = FakeCluster(4)
    with own_postgres.database() as url:
        settings = ManagerSettings(state_dir=tmp_path / "state", database_url=url)
        app = create_app(settings, cluster)
        with TestClient(app, base_url="http://manager", raise_server_exceptions=False) as client:
            client.headers["Authorization"] = f"Bearer {token_of(app.state.manager.database, 'operator')}"
            before = submit(client, name="before")
            until(lambda: before["id"] in cluster.orders)
            load = _Load(client)
            with load.running():
                until(lambda: len(load.accepted) >= 10)
                own_postgres.stop(mode)
                until(lambda: load.refused)
                own_postgres.start()
                seen = len(load.accepted)
                until(lambda: len(load.accepted) >= seen + 10)
            assert load.strange == []
            for id in {*load.accepted, before["id"]}:
                until(lambda id=id: id in cluster.orders)  # type: ignore[misc]
                cluster.end(id)
                job_in(client, {"kind": "distribution", "id": id}, "succeeded")
            # Whoever was refused and asked again with the same key, has one job.
            assert len(set(load.accepted)) == len(load.accepted)
            with app.state.manager.database.read() as session:
                assert set(session.scalars(select(Job.id))) == {*load.accepted, before["id"]}
            assert sorted(cluster.submitted) == sorted({*load.accepted, before["id"]})


class _Load:
    """Clients that ask again with the same key until it is accepted."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self._over = threading.Event()
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.strange: list[str] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)

    def _ask(self) -> None:
        while not self._over.is_set():
            key = uuid.uuid4().hex
            while not self._posted(key):
                self._over.wait(0.05)

    def _posted(self, key: str) -> bool:
        answer = self._client.post(PATH, json={"urls": [URL]}, headers={"Idempotency-Key": key})
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])
            return True
        document = answer.json()
        if (answer.status_code, document["type"]) == (503, "urn:dragonfly:problem:database"):
            self.refused.append(document["detail"])
            return False
        self.strange.append(answer.text)
        return True


def test_a_stream_outlives_a_restart_of_the_database(own_postgres: postgres.Postgres, tmp_path: Path) -> None:
    cluster = FakeCluster(4)
    with own_postgres.database() as url:
        app = create_app(ManagerSettings(state_dir=tmp_path / "state", database_url=url), cluster)
        with serving(app) as base:
            token = token_of(app.state.manager.database, "operator")
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=base, headers=headers, timeout=30) as client:
                made = submit(client)
                until(lambda: {n["state"] for n in nodes_of(client, made)} == {"running"})
                with stream(f"{base}{PATH}/{made['id']}/live", token) as reader:
                    heard(reader, "nodes")
                    own_postgres.stop()
                    cluster.advance(made["id"], 0.5)
                    heard(reader, "nodes", lambda ns: all(n["bytes_done"] for n in ns))
                    own_postgres.start()
                    cluster.end(made["id"])
                    heard(reader, "job", lambda j: j["state"] == "succeeded")
                    heard(reader, "end")


def test_events_go_on_after_a_restart_of_the_database(
    own_postgres: postgres.Postgres, tmp_path: Path
) -> None:
    """What was written just before it, and just after, comes once to whoever listens all the time."""
    with own_postgres.database() as url:
        app = create_app(ManagerSettings(state_dir=tmp_path / "state", database_url=url), FakeCluster(0))
        with serving(app) as base:
            database = app.state.manager.database
            token = token_of(database, "viewer")
            with stream(f"{base}/api/v1/events/stream?types=job.*", token) as reader:
                _tell(database, "before")
                own_postgres.stop()
                own_postgres.start()
                until(lambda: _tell(database, "after"))
                assert [reader.next().json["resource_id"] for _ in range(2)] == ["before", "after"]


def _tell(database: Database, name: str) -> bool:
    """False: the database does not answer yet."""
    try:
        with database.write() as session:
            emit(session, "job.created", "job", name, {})
    except SQLAlchemyError:
        return False
    return True
