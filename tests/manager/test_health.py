"""Probes, and what Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from dragonfly_ray.serve import readiness
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database.tables import Job, now
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests import postgres
from tests.manager.conftest import token_of
from tests.manager.serving import serving, stream

SignIn = Callable[[str], httpx.Client]


@pytest.fixture(autouse=True)
def _looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH", 0.0)


def samples(answer: httpx.Response) -> dict[tuple[str, ...], float]:
    """(name, value of each label, by their names) -> value."""
    assert answer.status_code == 200, answer.text
    return {
        (sample.name.removeprefix("dragonfly_manager_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_ready(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"database": "ok", "migrations": "ok", "cluster": "ok"}


def test_not_ready_without_its_cluster(client: TestClient, cluster: FakeCluster) -> None:
    cluster.down = True
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:dragonfly:problem:not-ready"
    assert answer.json()["checks"] == {"database": "ok", "migrations": "ok", "cluster": "does not answer"}
    assert client.get("/healthz").status_code == 200
    cluster.down = False
    assert client.get("/readyz").status_code == 200


def test_not_ready_with_another_versions_schema(client: TestClient, app: FastAPI) -> None:
    with app.state.manager.database.write() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["migrations"] == "another version's schema"


def test_not_ready_while_the_database_is_away(
    postgres_server: postgres.Postgres, settings: ManagerSettings
) -> None:
    with postgres_server.database() as at:
        app = create_app(settings.model_copy(update={"database_url": at}), FakeCluster(1))
        with TestClient(app, raise_server_exceptions=False) as client:
            postgres_server.stop()
            try:
                answer = client.get("/readyz")
            finally:
                postgres_server.start()
            assert answer.status_code == 503
            assert answer.json()["checks"]["database"] == "does not answer"
            assert client.get("/readyz").status_code == 200


def test_metrics_of_requests(sign_in: SignIn) -> None:
    client = sign_in("admin")
    for id in "abc":
        client.get(f"/api/v1/distributions/{id}")
    client.get("/api/v1/preheats/a")
    client.get("/nowhere/at/all")
    client.request("BREW", "/api/v1/events")
    found = samples(client.get("/metrics"))
    assert found["requests_total", "GET", "/api/v1/distributions/{job_id}", "404"] == 3
    assert found["requests_total", "GET", "/api/v1/preheats/{job_id}", "404"] == 1
    assert found["request_seconds_count", "GET", "/api/v1/distributions/{job_id}"] == 3
    assert not any("nowhere" in label for name in found for label in name)
    assert not any("BREW" in name for name in found)


def test_metrics_of_the_managers_state(app: FastAPI) -> None:
    with serving(app) as url:
        manager = app.state.manager
        with manager.database.write() as session:
            session.add_all(Job(kind="preheat", state="failed", ended_at=now()) for _ in range(3))
        admin, viewer = token_of(manager.database, "admin"), token_of(manager.database, "viewer")
        assert manager.leadership.wait(30)
        with stream(url + "/api/v1/events/stream", viewer):
            answer = httpx.get(url + "/metrics", headers={"Authorization": f"Bearer {admin}"}, timeout=60.0)
            found = samples(answer)
    assert found["leader",] == 1
    assert found["open_streams",] == 1
    assert found["event_readers",] == 1
    assert found["jobs", "failed"] == 3
    assert found["event_lag_seconds",] == 0
    assert found["requests_total", "GET", "/api/v1/events/stream", "200"] == 1


def test_metrics_are_not_for_everybody(sign_in: SignIn, client: TestClient) -> None:
    assert client.get("/metrics").status_code == 401
    assert sign_in("viewer").get("/metrics").status_code == 403
