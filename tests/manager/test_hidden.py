"""What is secret is planted everywhere, and then looked for: in all answers, in all logs, in the database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Base
from dragonfly_ray.serve.openapi import endpoints
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from tests.manager.people import API, bearer, browser, database_of, sign_in, signed_in

HEADER = "planted-header-value"
OPTION = "planted-option-value"
NEW_PASSWORD = "planted new pass phrase"
SIGNING_KEY = "whsec_" + "cGxhbnRlZC1zaWduaW5nLWtleS1vZi0zMi1ieXRlcyE="
ADMIN = "correct horse battery"
GENEROUS = Limits(requests="1000000/minute", anonymous="1000000/minute", logins="1000/minute")
SKIPPED = ("/stream", "/live", "/ws")


@pytest.fixture
def settings(settings: ManagerSettings) -> ManagerSettings:
    """With limits that nothing here meets."""
    return settings.model_copy(update={"limits": GENEROUS})


def plant(app: FastAPI, admin: TestClient) -> dict[str, str]:
    """Secrets of every kind, by what they are."""

    def made(path: str, body: dict[str, Any]) -> Any:
        answer = admin.post(f"{API}{path}", json=body)
        assert answer.status_code in (201, 202), f"{path}: {answer.text}"
        return answer.json()

    made(
        "/secrets",
        {
            "name": "models",
            "headers": {"Authorization": HEADER},
            "storage_options": {"key": "k", "client_kwargs": {"deep": OPTION}},
            "hosts": ["models.example"],
        },
    )
    token = made("/tokens", {"name": "robot"})["token"]
    made("/users", {"name": "vera", "role": "viewer", "password": NEW_PASSWORD})
    vera = signed_in(app, "vera", NEW_PASSWORD)
    job = {"urls": ["https://models.example/m.bin?signature=planted-query-value"], "secret": "models"}
    made("/distributions", job)
    made("/preheats", job)
    planted = {
        "header": HEADER,
        "option": OPTION,
        "password": NEW_PASSWORD,
        "admin's password": ADMIN,
        "token": token,
        "cookie": vera.cookies["dragonfly_session"],
        "query": "planted-query-value",
    }
    if any(path == f"{API}/webhooks" for path, _, _ in endpoints(app)):
        made(
            "/webhooks",
            {"name": "hook", "url": "https://hooks.example/x", "signing_key": SIGNING_KEY, "enabled": False},
        )
        planted["signing key"] = SIGNING_KEY
    return planted


def provoke(app: FastAPI, admin: TestClient, planted: dict[str, str]) -> None:
    """Errors that may repeat what was sent."""
    sign_in(browser(app), NEW_PASSWORD, NEW_PASSWORD)
    sign_in(browser(app), "vera", planted["admin's password"])
    bearer(app, planted["token"] + "x").get(f"{API}/session")
    for body in (
        {"name": "models", "headers": {"A": HEADER}},
        {"name": "x", "headers": {"A": [HEADER]}},
        {"name": "x", "headers": HEADER},
        {"name": 1, "storage_options": OPTION},
        {"name": "x", "storage_options": {"a": OPTION}, "hosts": OPTION},
        [HEADER],
        HEADER,
    ):
        admin.post(f"{API}/secrets", json=body)
    admin.post(
        f"{API}/secrets",
        content=f'{{"name": "x", "headers": {{"A": "{HEADER}"',
        headers={"Content-Type": "application/json"},
    )
    for password in (NEW_PASSWORD * 20, [NEW_PASSWORD], {"a": NEW_PASSWORD}):
        admin.post(f"{API}/users", json={"name": "x", "role": "viewer", "password": password})
    admin.post(f"{API}/session/password", json={"old": NEW_PASSWORD, "new": "short", "x": NEW_PASSWORD})


def dump(database: Database) -> str:
    """Every row of every table."""
    found: list[str] = []
    with database.read() as session:
        for table in Base.metadata.sorted_tables:
            found += (f"{table.name}: {tuple(row)}" for row in session.execute(table.select()))
        assert session.scalar(text("select count(*) from users")) == 2
    return "\n".join(found)


def answers(app: FastAPI, admin: TestClient) -> dict[str, str]:
    """Of everything that can be read, lists and what is in them."""
    found = {}
    readable = [
        p for p, m, _ in endpoints(app) if m == "GET" and not p.endswith(SKIPPED) and "console" not in p
    ]
    for path in (p for p in readable if "{" not in p):
        found[path] = admin.get(path).text
    ids = {i for body in found.values() for i in re.findall(r'"(?:id|name|node_id|task_id)":"([^"]+)"', body)}
    for path in (p for p in readable if p.count("{") == 1):
        for value in ids:
            answer = admin.get(re.sub(r"\{[^}]*\}", value.replace("/", "%2F"), path))
            if answer.status_code == 200:
                found[f"{path} {value}"] = answer.text
    return found


def test_nothing_secret_is_anywhere(
    client: TestClient, app: FastAPI, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    # What goes over the wire between the test and the application is no log of the application's.
    for name in ("httpx", "httpcore", "asyncio", "sqlalchemy"):
        caplog.set_level("WARNING", logger=name)
    admin = signed_in(app, "admin", ADMIN)
    planted = plant(app, admin)
    seen: list[str] = []
    admin.event_hooks["response"] = [lambda response: seen.append(response.read().decode())]
    provoke(app, admin, planted)
    told = answers(app, admin)
    assert f"{API}/secrets/{{name}} models" in told
    assert len(told) > 15
    rows = dump(database_of(app))
    assert "models" in rows
    printed = "".join(capfd.readouterr())
    for what, secret in planted.items():
        places = {
            **told,
            "refusals": "\n".join(seen),
            "log": caplog.text,
            "output": printed,
            "database": rows,
        }
        assert [place for place, text in places.items() if secret in text] == [], what


HOSTILE = ("%00", "a%00b", "%ED%A0%80", str(1 << 70), f"-{1 << 63}", "%F0%9F%90%89", "a" * 3000)


def hostile(path: str, names: list[str]) -> Iterator[str]:
    """The path with each of these texts as its parts, and as each and all of its query's parameters."""
    plain = re.sub(r"{[^}]*}", "x", path)
    for value in HOSTILE:
        yield re.sub(r"{[^}]*}", value, path)
        for name in names:
            yield f"{plain}?{name}={value}"
        yield f"{plain}?{'&'.join(f'{name}={value}' for name in names)}"


def test_hostile_text_is_no_failure_of_the_manager_on_any_database(client: TestClient, app: FastAPI) -> None:
    """NUL, which PostgreSQL does not keep; numbers beyond 64 bits, which SQLite does not."""
    admin = signed_in(app, "admin", ADMIN)
    wrong, asked = [], 0
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            if path.endswith(SKIPPED):
                continue
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
            body: Any = {} if method in ("post", "put", "patch") else None
            for url in hostile(path, names):
                status = admin.request(method, url, headers={"If-Match": "*"}, json=body).status_code
                asked += 1
                if status >= 500:
                    wrong.append(f"{method} {url[:200]}: {status}")
    print(f"{asked} requests")
    assert not wrong, "\n".join(wrong)
    assert asked > len(HOSTILE)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "\uffff", "a" * 128])
def test_hostile_names_sign_nobody_in(client: TestClient, app: FastAPI, name: str) -> None:
    content = json.dumps({"name": name, "password": name})
    answer = browser(app).post(
        f"{API}/session", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (401, 422)
