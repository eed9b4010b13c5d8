"""The manager over both databases, with a cluster that tests move by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from dragonfly_ray.serve.accounts import passwords, setup, tokens
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Role, Token, User
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests import postgres

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """The same algorithm, made to take less time than it must take anywhere else."""
    with pytest.MonkeyPatch.context() as patch:
        quick = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
        patch.setattr(passwords, "HASHER", quick)
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables, and what every manager begins with."""
    path = tmp_path_factory.mktemp("schema") / "manager.db"
    _prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_schema(postgres_server: postgres.Postgres) -> Iterator[str]:
    """The name of a database with the same."""
    with postgres_server.database() as url:
        _prepare(url)
        yield url.rpartition("/")[2]


def _prepare(url: str) -> None:
    database = Database(url)
    database.migrate()
    setup.builtin_roles(database)
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind with the schema, and nobody in it."""
    if request.param == "sqlite":
        path = tmp_path / "manager.db"
        shutil.copy(request.getfixturevalue("sqlite_schema"), path)
        yield f"sqlite:///{path}"
    else:
        server: postgres.Postgres = request.getfixturevalue("postgres_server")
        with server.database(request.getfixturevalue("postgres_schema")) as url:
            yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """With the schema."""
    found = Database(database_url)
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> ManagerSettings:
    return ManagerSettings(
        state_dir=tmp_path / "state",
        database_url=database_url,
        DRAGONFLY_ADMIN_PASSWORD=SecretStr(PASSWORD),
        dest_roots=("/data",),
    )


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(4)


@pytest.fixture
def app(settings: ManagerSettings, cluster: FakeCluster) -> FastAPI:
    return create_app(settings, cluster)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Nobody; the application runs, with all that runs beside requests."""
    with TestClient(app, base_url="http://manager", raise_server_exceptions=False) as found:
        yield found


@pytest.fixture
def sign_in(client: TestClient, app: FastAPI) -> Callable[[str], httpx.Client]:
    """A client with a token of a new user of a role."""

    def made(role: str = "admin") -> httpx.Client:
        token = token_of(app.state.manager.database, role)
        return TestClient(
            app,
            base_url="http://manager",
            headers={"Authorization": f"Bearer {token}"},
            raise_server_exceptions=False,
        )

    return made


def token_of(database: Database, role: str) -> str:
    """A token with all that a new user of this role may do."""
    token = tokens.make()
    with database.write() as session:
        permissions = session.get_one(Role, role).permissions
        user = User(name=f"{role}-{token[4:12]}", role=role)
        session.add(user)
        session.flush()
        session.add(
            Token(
                user_id=user.id,
                name="test",
                prefix=token[:12],
                hash=tokens.hashed(token),
                permissions=permissions,
            )
        )
    return token
