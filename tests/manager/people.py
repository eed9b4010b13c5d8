"""Users, roles and clients, for tests of who may what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Role, User
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster

API = "/api/v1"
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what has nothing to do with the database."""
PASSWORD = "a long pass phrase"


def database_of(app: FastAPI) -> Database:
    found: Database = app.state.manager.database
    return found


def role(database: Database, name: str, permissions: Iterable[Permission]) -> str:
    with database.write() as session:
        session.add(Role(name=name, permissions=sorted(permissions)))
    return name


def user(database: Database, name: str, role: str) -> str:
    """Its id. The password is `PASSWORD`."""
    with database.write() as session:
        row = User(name=name, role=role, password_hash=passwords.hashed(PASSWORD))
        session.add(row)
        session.flush()
        return row.id


def browser(app: FastAPI, address: str = "192.0.2.1", **more: Any) -> TestClient:
    """Nobody yet, from this address; keeps cookies."""
    return TestClient(
        app, base_url="http://manager", client=(address, 4711), raise_server_exceptions=False, **more
    )


def sign_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    """What a console does: the CSRF token goes into all that follows."""
    answer = client.post(f"{API}/session", json={"name": name, "password": password})
    if answer.status_code == 201:
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return answer


def signed_in(app: FastAPI, name: str, password: str = PASSWORD, **more: Any) -> TestClient:
    client = browser(app, **more)
    assert sign_in(client, name, password).status_code == 201
    return client


def bearer(app: FastAPI, token: str) -> TestClient:
    return browser(app, headers={"Authorization": f"Bearer {token}"})


@contextlib.contextmanager
def replica(settings: ManagerSettings) -> Iterator[FastAPI]:
    """Another one of the same manager."""
    app = create_app(settings, FakeCluster(1))
    with TestClient(app):
        yield app


def problem(answer: httpx.Response) -> str:
    """The kind of problem that it is."""
    return str(answer.json()["type"]).removeprefix("urn:dragonfly:problem:")
