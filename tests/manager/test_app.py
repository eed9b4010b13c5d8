"""The application's own rules: what is declared may be asked, everything else is refused."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.testclient import TestClient

from dragonfly_ray.serve.problems import MEDIA_TYPE


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


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
