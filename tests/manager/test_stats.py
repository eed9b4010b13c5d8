"""What is counted, once; how it is asked for; the overview and its stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Job, JobNode, Traffic, now
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.records import emit
from dragonfly_ray.serve.stats import tasks, traffic
from dragonfly_ray.serve.stats.meter import Meter
from dragonfly_ray.serve.stats.record import HOUR, MINUTE, record
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager.conftest import token_of
from tests.manager.serving import serving, stream
from tests.waiting import HANG

AT = datetime(2026, 5, 4, 10, 59, 30, tzinfo=UTC)
SignIn = Callable[[str], httpx.Client]


def told(cluster: FakeCluster, node: int, **totals: Any) -> str:
    """What a node's peer says from now on."""
    node_id = list(cluster.views)[node]
    cluster.set_node(node_id, **totals)
    return node_id


def counted(database: Database, seconds: int = MINUTE) -> dict[tuple[str, datetime], int]:
    """Bytes from peers: (node, begin) -> how many."""
    with database.read() as session:
        rows = session.query(Traffic).filter_by(seconds=seconds).all()
        return {(row.node_id, row.at): row.bytes_peers for row in rows if row.bytes_peers}


def sampled(database: Database, cluster: FakeCluster, at: datetime = AT) -> None:
    record(database, cluster.nodes(), at)


# --- counting -------------------------------------------------------------------------------------


def test_what_was_before_the_first_look_is_not_counted(database: Database, cluster: FakeCluster) -> None:
    node = told(cluster, 1, bytes_peers=10**9)
    sampled(database, cluster)
    assert counted(database) == {}
    told(cluster, 1, bytes_peers=10**9 + 7)
    sampled(database, cluster)
    minute = AT.replace(second=0)
    assert counted(database) == {(node, minute): 7, ("", minute): 7}


def test_rows_of_a_minute_and_of_an_hour_add_up(database: Database, cluster: FakeCluster) -> None:
    sampled(database, cluster)
    first, second = told(cluster, 1, bytes_peers=5), told(cluster, 2, bytes_peers=3)
    sampled(database, cluster)
    told(cluster, 1, bytes_peers=6)
    sampled(database, cluster, AT + timedelta(seconds=10))
    told(cluster, 1, bytes_peers=16)
    sampled(database, cluster, AT + timedelta(minutes=1))
    before, after = AT.replace(second=0), AT.replace(hour=11, minute=0, second=0)
    assert counted(database) == {
        (first, before): 6,
        (second, before): 3,
        ("", before): 9,
        (first, after): 10,
        ("", after): 10,
    }
    assert counted(database, HOUR)[first, AT.replace(minute=0, second=0)] == 6
    assert counted(database, HOUR)["", after] == 10


def test_a_peer_that_restarts_begins_again_and_loses_nothing(
    database: Database, cluster: FakeCluster
) -> None:
    sampled(database, cluster)
    node = told(cluster, 1, bytes_peers=100)
    sampled(database, cluster)
    told(cluster, 1, bytes_peers=30, incarnation="2")
    sampled(database, cluster)
    assert counted(database)[node, AT.replace(second=0)] == 130


def test_a_node_that_joins_counts_from_its_start(database: Database, cluster: FakeCluster) -> None:
    sampled(database, cluster)
    cluster.views["new"] = NodeView("new", "n", "10.9.9.9", True, False, {}, "healthy", incarnation="1")
    cluster.set_node("new", bytes_peers=40)
    sampled(database, cluster)
    assert counted(database)["new", AT.replace(second=0)] == 40


def test_a_new_leader_counts_what_came_between_and_nothing_twice(
    database: Database, cluster: FakeCluster
) -> None:
    sampled(database, cluster)
    old = cluster.nodes()
    node = told(cluster, 1, bytes_peers=50)
    sampled(database, cluster)
    record(database, old, AT)  # the leader before has not noticed yet
    sampled(database, cluster)
    assert counted(database)[node, AT.replace(second=0)] == 50


def test_two_that_count_at_once_count_once(database: Database, cluster: FakeCluster) -> None:
    sampled(database, cluster)
    node = told(cluster, 1, bytes_peers=50)
    both = [threading.Thread(target=sampled, args=(database, cluster)) for _ in range(4)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(HANG)
    assert counted(database)[node, AT.replace(second=0)] == 50


def test_a_thousand_nodes_at_once(database: Database) -> None:
    cluster = FakeCluster(1000)
    sampled(database, cluster)
    for node in list(cluster.views):
        cluster.set_node(node, bytes_peers=2)
    sampled(database, cluster)
    assert counted(database)["", AT.replace(second=0)] == 2000


# --- rates ----------------------------------------------------------------------------------------


def test_rates_over_the_last_seconds(cluster: FakeCluster) -> None:
    meter = Meter()
    meter.look(0.0, cluster.nodes())
    assert meter.rates(0.0).peers == 0
    for second in range(1, 21):
        told(cluster, 1, bytes_peers=1000 * min(second, 10), bytes_origin=second)
        meter.look(float(second), cluster.nodes())
        if second == 10:
            assert meter.rates(10.0).peers == 1000
    assert meter.rates(20.0).peers == 0
    assert meter.rates(20.0).origin == 1
    assert meter.rates(200.0).origin == 0


def test_rates_from_rare_looks_and_over_a_restart(cluster: FakeCluster) -> None:
    meter = Meter()
    meter.look(0.0, cluster.nodes())
    told(cluster, 1, bytes_cache=100)
    meter.look(10.0, cluster.nodes())
    assert meter.rates(11.0).cache == 10
    told(cluster, 1, bytes_cache=5, incarnation="2")
    meter.look(20.0, cluster.nodes())
    assert meter.rates(20.0).cache == 0


# --- over time ------------------------------------------------------------------------------------


@pytest.fixture
def traffic_of_an_hour(database: Database, cluster: FakeCluster) -> str:
    sampled(database, cluster)
    node = told(cluster, 1, bytes_peers=10, bytes_origin=4)
    sampled(database, cluster, AT.replace(minute=2))
    told(cluster, 2, bytes_cache=1)
    sampled(database, cluster, AT.replace(minute=9))
    told(cluster, 1, bytes_peers=15, bytes_origin=4)
    sampled(database, cluster, AT.replace(minute=12))
    return node


def test_a_series_has_every_step(database: Database, traffic_of_an_hour: str) -> None:
    begin = AT.replace(minute=0, second=0)
    with database.read() as session:
        found = traffic.series(session, begin, begin + timedelta(minutes=20), 300, AT)
        one = traffic.series(session, begin, begin + timedelta(hours=1), HOUR, AT, traffic_of_an_hour)
    assert [p.at.minute for p in found.points] == [0, 5, 10, 15]
    assert [p.bytes.peers for p in found.points] == [10, 0, 5, 0]
    assert (found.total.origin, found.total.cache, found.saved) == (4, 1, 16)
    assert [p.bytes.peers for p in one.points] == [15]
    assert one.saved == 15


@pytest.mark.parametrize(("hours", "step"), [(0, 60), (-1, 60), (1, 90), (50, 60), (24 * 365 * 50, HOUR)])
def test_a_series_that_cannot_be(database: Database, hours: int, step: int) -> None:
    with database.read() as session, pytest.raises(Problem) as refused:
        traffic.series(session, AT - timedelta(hours=hours), AT, step, AT)
    assert refused.value.status == 422


def test_steps_fit_what_is_kept() -> None:
    assert traffic.step_for(AT - timedelta(hours=1), AT, AT) == 60
    assert traffic.step_for(AT - timedelta(days=1), AT, AT) == 300
    assert traffic.step_for(AT - timedelta(days=3), AT - timedelta(days=3, hours=-1), AT) == 3600
    assert traffic.step_for(AT - timedelta(days=90), AT, AT) == 21_600


def test_by_node(database: Database, traffic_of_an_hour: str) -> None:
    with database.read() as session:
        found = traffic.by_node(session, AT)
        none = traffic.by_node(session, AT + timedelta(hours=1))
    assert found[0].node_id == traffic_of_an_hour
    assert (found[0].bytes.peers, found[0].bytes.origin, found[1].bytes.cache) == (15, 4, 1)
    assert len(found) == 2
    assert none == []


def test_over_http(sign_in: SignIn) -> None:
    client = sign_in("viewer")
    found = client.get("/api/v1/stats/traffic").json()
    assert found["step"] == 60
    assert len(found["points"]) in (60, 61)
    assert client.get("/api/v1/stats/nodes").json() == []
    assert client.get("/api/v1/stats/tasks").json() == []
    for wrong in ("since=9999-12-31T23:59:59Z", "since=0001-01-01T00:00:00%2B14:00", "step=61", "step=5"):
        assert client.get(f"/api/v1/stats/traffic?{wrong}").status_code == 422
    assert client.get("/api/v1/stats/nodes?since=0001-01-01").status_code == 422


# --- tasks ----------------------------------------------------------------------------------------


def ended_job(database: Database, id: str, task_ids: list[str], peers: int) -> None:
    with database.write() as session:
        urls = [f"https://o.example/{n}?sig=secret" for n in range(len(task_ids))]
        session.add(
            Job(id=id, kind="preheat", state="succeeded", urls=urls, task_ids=task_ids, ended_at=now())
        )
        session.flush()
        for index in range(len(task_ids)):
            for node in ("a", "b"):
                session.add(
                    JobNode(
                        job_id=id, url_index=index, node_id=node, state="done", size=100, bytes_peers=peers
                    )
                )
        emit(session, "job.ended", "job", id)


def test_each_ended_job_is_counted_once(database: Database) -> None:
    ended_job(database, "j1", ["t1", "t2"], 10)
    ended_job(database, "j2", ["t1", ""], 7)
    for _ in range(2):
        tasks.count_ended(database, threading.Event())
    ended_job(database, "j3", ["t2", "t2"], 100)
    tasks.count_ended(database, threading.Event())
    with database.read() as session:
        found = tasks.top(session, 10)
    assert [(t.task_id, t.jobs, t.bytes.peers, t.size) for t in found] == [
        ("t2", 2, 420, 100),
        ("t1", 2, 34, 100),
    ]
    assert "secret" not in found[0].url


def test_a_job_that_is_gone_does_not_hold_up_the_others(database: Database) -> None:
    with database.write() as session:
        emit(session, "job.ended", "job", "gone")
    ended_job(database, "j1", ["t1"], 1)
    tasks.count_ended(database, threading.Event())
    with database.read() as session:
        assert [t.task_id for t in tasks.top(session, 10)] == ["t1"]


# --- overview -------------------------------------------------------------------------------------


def test_the_overview(sign_in: SignIn, app: FastAPI, cluster: FakeCluster) -> None:
    client = sign_in("viewer")
    told(cluster, 1, cordoned=True, store_used=5)
    told(cluster, 2, state="unhealthy")
    told(cluster, 3, alive=False)
    with app.state.manager.database.write() as session:
        # Not `queued`: that one would be taken up.
        session.add(Job(id="j", kind="preheat", state="failed", ended_at=now()))
        session.add(Job(id="o", kind="preheat", state="failed", ended_at=now() - timedelta(days=2)))
    found = client.get("/api/v1/stats/overview").json()
    assert found["nodes_total"] == 4
    assert found["nodes_alive"] == 3
    assert found["nodes_healthy"] == 2
    assert found["nodes_cordoned"] == 1
    assert found["store_used"] == 5
    assert found["jobs_ended_24h"] == {"failed": 1}
    assert found["cluster_error"] is None


def test_the_overview_says_what_was_saved(
    database: Database, cluster: FakeCluster, client: TestClient, app: FastAPI
) -> None:
    database = app.state.manager.database
    sampled(database, cluster)
    told(cluster, 1, bytes_peers=10, bytes_cache=5, bytes_object_store=2, bytes_origin=1)
    sampled(database, cluster)
    found = app.state.manager.stats.overview()
    assert (found.bytes_saved, found.bytes_origin) == (17, 1)


def test_without_its_cluster_the_overview_says_so(sign_in: SignIn, cluster: FakeCluster) -> None:
    client = sign_in("viewer")
    cluster.down = True
    found = client.get("/api/v1/stats/overview").json()
    assert "did not respond" in found["cluster_error"]
    assert found["nodes_alive"] == 0


def test_the_stream_of_overviews(app: FastAPI, cluster: FakeCluster) -> None:
    with serving(app) as url:
        manager = app.state.manager
        token = token_of(manager.database, "viewer")
        live = url + "/api/v1/stats/stream"
        with stream(live, token) as first, stream(live, token) as second:
            for reader in (first, second):
                message = reader.next()
                assert message.name == "overview"
                assert message.json["nodes_alive"] == 4
            assert manager.stats.live.viewers == 2
            told(cluster, 1, alive=False)
            while (alive := first.next().json["nodes_alive"]) != 3:
                assert alive == 4
            cluster.down = True
            while not first.next().json["cluster_error"]:
                pass
        assert manager.streams.idle.wait(HANG)
        assert manager.stats.live.viewers == 0
