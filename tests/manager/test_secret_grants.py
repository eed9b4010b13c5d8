"""Secrets go to their hosts, over TLS, for whoever was granted their use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from alembic import command
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import migrations
from dragonfly_ray.serve.database.tables import Audit, Secret, SecretGrant, now
from dragonfly_ray.serve.permissions import BUILTIN_ROLES, Permission
from tests.manager import people
from tests.manager.people import API, database_of, problem, signed_in, sqlite_only

HEADER = {"Authorization": "Bearer x"}
URL = "https://models.example/m.bin"
P = Permission


@pytest.fixture
def admin(client: TestClient, app: FastAPI) -> TestClient:
    return signed_in(app, "admin", "correct horse battery")


@pytest.fixture
def owner(client: TestClient, app: FastAPI) -> TestClient:
    people.user(database_of(app), "olga", "operator")
    return signed_in(app, "olga")


@pytest.fixture
def other(client: TestClient, app: FastAPI) -> TestClient:
    people.user(database_of(app), "otto", "operator")
    return signed_in(app, "otto")


def create(client: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"name": "models", "headers": HEADER, "hosts": ["models.example"]} | changes
    return client.post(f"{API}/secrets", json=body)


def grant(client: httpx.Client, name: str = "models", **to: list[str]) -> httpx.Response:
    return client.put(f"{API}/secrets/{name}/grants", json=to, headers={"If-Match": "*"})


def order(client: httpx.Client, url: str = URL, secret: str = "models") -> httpx.Response:
    return client.post(f"{API}/distributions", json={"urls": [url], "secret": secret})


def shown(client: httpx.Client, name: str = "models") -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{API}/secrets/{name}").json()
    return found


# --- who ---


def test_nobody_names_anothers_secret(owner: TestClient, other: TestClient, admin: TestClient) -> None:
    assert create(owner).status_code == 201
    answer = order(other)
    assert (answer.status_code, problem(answer)) == (422, "secret-forbidden")
    assert "its owner (olga) or an admin for access" in answer.json()["detail"]
    schedule = {"name": "s", "cron": "0 0 * * *", "distribution": {"urls": [URL], "secret": "models"}}
    assert problem(other.post(f"{API}/schedules", json=schedule)) == "secret-forbidden"
    server = f"{API}/secrets/models/server"
    answer = other.get(server, params={"scheme": "s3"})
    assert (answer.status_code, problem(answer)) == (403, "secret-forbidden")
    assert owner.get(server, params={"scheme": "s3"}).status_code == 200
    assert order(owner).status_code == 202
    assert order(admin).status_code == 202


def test_nobody_changes_anothers_secret(owner: TestClient, other: TestClient, admin: TestClient) -> None:
    create(owner)
    body = {"headers": HEADER, "hosts": ["evil.example"]}
    path, all_versions = f"{API}/secrets/models", {"If-Match": "*"}
    for answer in (
        other.put(path, json=body, headers=all_versions),
        other.delete(path),
        other.get(f"{path}/grants"),
        grant(other, users=["otto"]),
    ):
        assert (answer.status_code, problem(answer)) == (403, "secret-of-another")
    assert shown(owner)["hosts"] == ["models.example"]
    assert (shown(other)["may_keep"], shown(other)["may_use"]) == (False, False)
    assert (shown(owner)["may_keep"], shown(owner)["may_use"]) == (True, True)
    assert admin.put(path, json=body, headers=all_versions).status_code == 200
    assert admin.delete(path).status_code == 204


def test_use_is_granted_to_users_and_to_roles(
    owner: TestClient, other: TestClient, app: FastAPI, admin: TestClient
) -> None:
    create(owner)
    granted = grant(owner, users=["otto"])
    assert (granted.status_code, granted.json()) == (200, {"users": ["otto"], "roles": []})
    assert granted.headers["etag"] == '"2"'
    assert order(other).status_code == 202
    assert shown(other)["may_use"]
    assert not shown(other)["may_keep"]
    assert grant(owner).json() == {"users": [], "roles": []}
    assert problem(order(other)) == "secret-forbidden"
    assert grant(admin, roles=["operator"]).json() == {"users": [], "roles": ["operator"]}
    assert order(other).status_code == 202
    assert problem(grant(owner, users=["nobody"])) == "unknown-user"
    assert problem(grant(owner, roles=["nothing"])) == "unknown-role"
    assert owner.get(f"{API}/secrets/models/grants").json() == {"users": [], "roles": ["operator"]}
    with database_of(app).read() as session:
        rows = session.scalars(select(Audit).where(Audit.action == "secret.grant").order_by(Audit.id))
        assert [r.detail["users"] + r.detail["roles"] for r in rows] == [["otto"], [], ["operator"]]


def test_a_grant_ends_with_its_secret_its_user_and_its_role(
    owner: TestClient, admin: TestClient, app: FastAPI
) -> None:
    """Whoever gets the name anew gets nothing else of it."""
    database = database_of(app)
    for name in ("gone", "anna"):
        people.role(database, name, {P.JOBS_WRITE, P.SECRETS_READ})
    ids = {name: people.user(database, name, "operator") for name in ("paul", "rosa")}
    for name in ("one", "two"):
        create(owner, name=name)
        grant(owner, name, users=["paul", "rosa"], roles=["gone", "anna"])
    assert owner.delete(f"{API}/secrets/one").status_code == 204
    assert admin.delete(f"{API}/users/{ids['paul']}", headers={"If-Match": "*"}).status_code == 204
    assert admin.delete(f"{API}/roles/gone", headers={"If-Match": "*"}).status_code == 204
    people.user(database, "paul", "operator")
    people.role(database, "gone", {P.JOBS_WRITE, P.SECRETS_READ})
    create(owner, name="one")
    assert owner.get(f"{API}/secrets/one/grants").json() == {"users": [], "roles": []}
    assert owner.get(f"{API}/secrets/two/grants").json() == {"users": ["rosa"], "roles": ["anna"]}
    assert problem(order(signed_in(app, "paul"), secret="two")) == "secret-forbidden"


def test_lists_say_what_one_may_use(owner: TestClient, other: TestClient) -> None:
    for name in ("a", "b"):
        create(owner, name=name)
    create(other, name="c")
    grant(owner, "b", users=["otto"])
    everything = other.get(f"{API}/secrets").json()["items"]
    assert {s["name"]: s["may_use"] for s in everything} == {"a": False, "b": True, "c": True}
    usable = other.get(f"{API}/secrets", params={"usable": True}).json()["items"]
    assert [s["name"] for s in usable] == ["b", "c"]


@sqlite_only
def test_a_retry_needs_the_grant_of_whoever_retries(
    owner: TestClient, other: TestClient, app: FastAPI
) -> None:
    create(owner)
    made = order(owner).json()
    with database_of(app).write() as session:
        session.execute(text("update jobs set state = 'failed'"))
        session.execute(text("update job_nodes set state = 'failed'"))
    answer = other.post(f"{API}/distributions/{made['id']}/retry", json={})
    assert problem(answer) == "secret-forbidden"


def test_the_admins_right_is_the_admins() -> None:
    assert [name for name, (_, held) in BUILTIN_ROLES.items() if P.SECRETS_ADMIN in held] == ["admin"]


# --- where to ---


@sqlite_only
@pytest.mark.parametrize("changes", [{"hosts": []}, {"hosts": ["*"]}, {"hosts": None}])
def test_hosts_are_named(owner: TestClient, changes: dict[str, Any]) -> None:
    assert create(owner, **changes).status_code == 422
    assert owner.post(f"{API}/secrets", json={"name": "m", "headers": HEADER}).status_code == 422


def test_headers_go_over_tls_unless_the_secret_says_so(owner: TestClient) -> None:
    create(owner)
    plain = URL.replace("https:", "http:")
    answer = order(owner, plain)
    assert (answer.status_code, problem(answer)) == (422, "secret-insecure")
    create(owner, name="open", allow_http=True)
    assert shown(owner, "open")["allow_http"]
    assert order(owner, plain, "open").status_code == 202
    create(owner, name="keys", headers={}, storage_options={"key": "k", "secret": "s"}, hosts=["bucket"])
    assert order(owner, "s3://bucket/f", "keys").status_code == 202


@sqlite_only
def test_the_host_that_the_options_lead_to_counts(owner: TestClient) -> None:
    options = {"key": "k", "secret": "s", "endpoint_url": "https://minio.example:9000"}
    body = {"name": "minio", "headers": {}, "storage_options": options}
    answer = create(owner, **body, hosts=["bucket"])
    assert (answer.status_code, "'endpoint_url' is not among hosts" in answer.text) == (422, True)
    assert create(owner, **body, hosts=["bucket", "minio.example"]).status_code == 201
    key_file = {"token": {"type": "service_account", "token_uri": "https://oauth2.googleapis.com/token"}}
    assert create(owner, name="g", headers={}, storage_options=key_file, hosts=["bucket"]).status_code == 201


# --- those from before ---


@pytest.fixture
def before(database: Database) -> Iterator[Database]:
    """As the first schema had it."""
    config = migrations()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection.execution_options(sqlite_write=True)
        with connection.begin():
            command.downgrade(config, "0001")
    yield database
    database.migrate()


def test_secrets_without_hosts_are_disabled_and_owners_found(before: Database) -> None:
    at = now()
    rows = {"named": ["bucket"], "anywhere": [], "stars": ["*", "*.*"], "orphan": ["bucket"]}
    with before.write() as session:
        session.execute(
            text(
                "insert into users (id, name, role, password_hash, disabled, version, created_at, updated_at) "
                "values ('o', 'olga', 'operator', '', false, 1, :at, :at)"
            ),
            {"at": at.replace(tzinfo=None) if before.is_sqlite else at},
        )
        for name, hosts in rows.items():
            session.execute(
                text(
                    "insert into secrets (name, description, sealed, key_id, fields, hosts, created_by, version, "
                    "created_at, updated_at) values (:name, '', :sealed, 'k', '[]', :hosts, :by, 1, :at, :at)"
                ),
                {"name": name, "sealed": b"x", "hosts": json.dumps(hosts), "by": "olga" if name != "orphan" else "ex",
                 "at": at.replace(tzinfo=None) if before.is_sqlite else at},
            )  # fmt: skip
    before.migrate()
    with before.read() as session:
        found = {s.name: (s.owner_id, s.disabled, s.allow_http) for s in session.scalars(select(Secret))}
        assert session.scalars(select(SecretGrant)).all() == []
    assert found == {
        "named": ("o", "", False),
        "anywhere": ("o", "no-hosts", False),
        "stars": ("o", "no-hosts", False),
        "orphan": ("", "", False),
    }


def test_a_disabled_secret_says_why_and_comes_back_when_it_is_replaced(
    owner: TestClient, app: FastAPI
) -> None:
    create(owner)
    with database_of(app).write() as session:
        row = session.get_one(Secret, "models")
        row.hosts, row.disabled = [], "no-hosts"
    assert "lists no hosts" in shown(owner)["disabled"]
    assert owner.get(f"{API}/secrets", params={"usable": True}).json()["items"] == []
    answer = order(owner)
    assert (answer.status_code, problem(answer)) == (422, "secret-disabled")
    body = {"headers": HEADER, "hosts": ["models.example"]}
    changed = owner.put(f"{API}/secrets/models", json=body, headers={"If-Match": "*"})
    assert (changed.status_code, changed.json()["disabled"]) == (200, None)
    assert order(owner).status_code == 202
