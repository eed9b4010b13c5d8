"""Every route that the application has, for every kind of caller: in, or kept out.

Routes are not run: whoever is let in meets a marker behind the gate. So nothing here depends on what a
route does, and none is left out because it streams or wants a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.testclient import WebSocketDenialResponse

from dragonfly_ray.serve.accounts.auth import authorize
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.openapi import endpoints
from dragonfly_ray.serve.permissions import (
    BUILTIN_ROLES,
    EVERYTHING,
    Access,
    Demand,
    Permission,
    demanded,
)
from dragonfly_ray.serve.problems import Problem
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager import people
from tests.manager.conftest import PASSWORD, token_of

LET_IN = 418
NOBODY = "nobody"


def let_in(connection: HTTPConnection) -> None:
    authorize(connection)
    raise Problem(LET_IN, "let-in", "Behind the gate")


@pytest.fixture
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    folder = tmp_path_factory.mktemp("walk")
    settings = ManagerSettings(
        state_dir=folder,
        DRAGONFLY_ADMIN_PASSWORD=PASSWORD,
        limits=Limits(requests="1000000/minute", anonymous="1000000/minute"),
    )
    app = create_app(settings, FakeCluster(1))
    app.dependency_overrides[authorize] = let_in
    with TestClient(app):
        yield app


def routes(app: FastAPI) -> list[tuple[str, str, Demand | None]]:
    return [(path, method, demanded(endpoint)) for path, method, endpoint in endpoints(app)]


class Callers:
    """A client for each role, made when it is first asked for."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._database = people.database_of(app)
        self._granted = {name: permissions for name, (_, permissions) in BUILTIN_ROLES.items()}
        self._clients = {NOBODY: people.browser(app)}

    def of(self, demand: Demand | None) -> Iterator[tuple[str, TestClient, frozenset[Permission] | None]]:
        """Nobody, the roles that come with the manager, one with just what is demanded, one with all but it."""
        alone = frozenset({demand}) if isinstance(demand, Permission) else frozenset[Permission]()
        name = str(demand).replace(":", "-").lower()
        custom = {f"only-{name}": alone, f"all-but-{name}": EVERYTHING - alone}
        for role, permissions in custom.items():
            if role not in self._granted:
                people.role(self._database, role, permissions)
                self._granted[role] = permissions
        for role in (NOBODY, *BUILTIN_ROLES, *custom):
            if role not in self._clients:
                self._clients[role] = people.bearer(self._app, token_of(self._database, role))
            yield role, self._clients[role], self._granted.get(role)


def expected(demand: Demand | None, permissions: frozenset[Permission] | None) -> int:
    match demand:
        case None:
            return 403
        case Access.PUBLIC:
            return LET_IN
        case Access.SELF:
            return 401 if permissions is None else LET_IN
        case Permission():
            return 401 if permissions is None else LET_IN if demand in permissions else 403


def ask(client: TestClient, method: str, path: str) -> int:
    path = re.sub(r"\{[^}]*\}", "1", path)
    if method != "WEBSOCKET":
        body: dict[str, str] | None = {} if method in ("POST", "PUT", "PATCH") else None
        return int(client.request(method, path, json=body).status_code)
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path):
        pass
    return int(denied.value.status_code)


def test_every_route_lets_in_whom_it_declares_and_nobody_else(app: FastAPI) -> None:
    found, callers = routes(app), Callers(app)
    wrong = []
    asked = 0
    for path, method, demand in found:
        for name, client, permissions in callers.of(demand):
            status = ask(client, method, path)
            asked += 1
            if status != expected(demand, permissions):
                wrong.append(f"{name}: {method} {path} [{demand}]: {status}")
    print(f"{len(found)} routes, {asked} requests")
    assert not wrong, "\n".join(wrong)
    assert len(found) > 0
    assert asked == len(found) * 6


def test_every_route_declares_something(app: FastAPI) -> None:
    undeclared = [f"{method} {path}" for path, method, demand in routes(app) if demand is None]
    assert not undeclared


def test_what_is_open_to_everybody(app: FastAPI) -> None:
    """A list to be read: a new line here needs a reason."""
    found = {f"{m} {p}" for p, m, demand in routes(app) if demand is Access.PUBLIC and "/console" not in p}
    assert found - {"GET /", "GET /readyz", "HEAD /"} == {
        "GET /api/v1/openapi.json",
        "GET /healthz",
        "POST /api/v1/session",
    }


def test_no_route_is_beside_the_gate(app: FastAPI) -> None:
    """What is mounted has no dependencies: only the console's files may be."""
    mounted = [route.path for route in app.routes if isinstance(route, Mount)]
    assert [path for path in mounted if not path.startswith("/console")] == []


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1", "/api/v1/", "/api/", "/api/v2/users", "/api/v1/users/1/2"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_paths_are_not_found(app: FastAPI, path: str, method: str) -> None:
    answer = people.browser(app).request(method, path)
    assert answer.status_code == 404
    assert people.problem(answer) == "not-found"


def test_a_route_that_declares_nothing_is_refused_to_the_admin_too(app: FastAPI) -> None:
    @app.get("/api/v1/forgotten")
    def forgotten() -> str:
        return "secret"

    @app.websocket("/api/v1/forgotten-ws")
    async def forgotten_socket() -> None: ...

    admin = people.bearer(app, token_of(people.database_of(app), "admin"))
    assert ask(admin, "GET", "/api/v1/forgotten") == 403
    assert ask(admin, "WEBSOCKET", "/api/v1/forgotten-ws") == 403
