"""The application's own rules: what is declared may be asked, everything else is refused."""

from __future__ import annotations

import gc
import weakref

from fastapi import FastAPI
from fastapi.testclient import TestClient

from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.problems import MEDIA_TYPE
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_nothing_holds_an_application_that_has_ended(settings: ManagerSettings, cluster: FakeCluster) -> None:
    app = create_app(settings, cluster)
    with TestClient(app, base_url="http://manager") as client:
        assert client.get("/api/v1/openapi.json").status_code == 200
    held = weakref.ref(app)
    del app, client
    gc.collect()
    assert held() is None


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    answer = client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["type"] == "urn:dragonfly:problem:not-found"


def test_a_route_without_a_declared_permission_is_refused(app: FastAPI) -> None:
    @app.get("/api/v1/forgotten")
    def forgotten() -> str:
        return "secret"

    with TestClient(app) as client:
        answer = client.get("/api/v1/forgotten")
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:dragonfly:problem:undeclared-permission"


def test_every_answer_is_surrounded(client: TestClient) -> None:
    for path, status in (
        ("/healthz", 200),
        ("/api/v1/users", 401),
        ("/api/v1/nothing", 404),
        ("/nothing", 404),
    ):
        answer = client.get(path, headers={"X-Request-ID": "mine-1"})
        assert answer.status_code == status
        assert answer.headers["x-request-id"] == "mine-1"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_limits_of_the_settings_hold(settings: ManagerSettings) -> None:
    limits = Limits(anonymous="2/hour", body=100)
    app = create_app(settings.model_copy(update={"limits": limits}), FakeCluster(1))
    with TestClient(app) as client:
        big = client.post("/api/v1/session", json={"name": "a" * 100, "password": "b"})
        assert big.status_code == 413
        assert client.get("/api/v1/users").headers["ratelimit-remaining"] == "0"
        assert client.get("/api/v1/users").status_code == 429
        assert client.get("/healthz").status_code == 200
