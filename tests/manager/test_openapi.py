"""The OpenAPI document: complete, true, and enough for a client that is generated from it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import strategies
from openapi_spec_validator import validate
from schemathesis import GenerationMode, checks
from schemathesis.schemas import APIOperation

from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.openapi import PERMISSION, TAGS, endpoints
from dragonfly_ray.serve.permissions import Access, Permission
from dragonfly_ray.serve.problems import MEDIA_TYPE
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager import people
from tests.manager.conftest import PASSWORD, token_of
from tests.manager.people import API

EXAMPLES, MANY_EXAMPLES = 12, 60
"""Of each operation, well-formed and as many malformed."""
GENEROUS = Limits(
    requests="1000000/minute", anonymous="1000000/minute", logins="1000000/minute", body=256 * 1024
)
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@dataclass(frozen=True)
class Served:
    """An application behind a real server."""

    app: FastAPI
    url: str
    token: str

    @property
    def document(self) -> dict[str, Any]:
        return self.app.openapi()


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = ManagerSettings(
        state_dir=tmp_path_factory.mktemp("openapi"), DRAGONFLY_ADMIN_PASSWORD=PASSWORD, limits=GENEROUS
    )
    app = create_app(settings, FakeCluster(3, at_once=True))
    with serving(app) as url:
        yield Served(app, url, token_of(people.database_of(app), "admin"))


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    return served.document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


# --- what it says ---


def test_it_is_valid_and_served(served: Served) -> None:
    validate(served.document)
    answer = httpx.get(f"{served.url}{API}/openapi.json", timeout=60.0)
    assert answer.json() == served.document
    assert served.document["openapi"].startswith("3.1")


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    found = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(found) == len(set(found)) > 0
    assert [name for name in found if not re.fullmatch("[a-z][a-z_]*", name)] == []


def test_every_route_of_the_api_is_in_it(served: Served) -> None:
    told = {(path, method.upper()) for path, method, _ in operations(served.document)}
    there = {
        (path, method)
        for path, method, _ in endpoints(served.app)
        if path.startswith(API) and method not in ("WEBSOCKET", "HEAD") and not path.endswith("openapi.json")
    }
    assert there <= told


def test_every_operation_says_who_may_and_how(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"} | schemes["bearer"]
    assert (schemes["cookie"]["in"], schemes["csrf"]["name"]) == ("cookie", "X-CSRF-Token")
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["tags"], where
        assert set(operation["tags"]) <= set(TAGS), where
        assert operation["summary"], where
        if operation["security"] == []:
            assert PERMISSION not in operation, where
            continue
        assert operation[PERMISSION] in {*Permission, Access.SELF}, where
        cookie: dict[str, list[str]] = {"cookie": []} if method == "get" else {"cookie": [], "csrf": []}
        assert operation["security"] == [{"bearer": []}, cookie], where


def test_every_operation_says_what_comes_back(document: dict[str, Any]) -> None:
    problem = document["components"]["responses"]["Problem"]
    assert list(problem["content"]) == [MEDIA_TYPE]
    for path, method, operation in operations(document):
        where, responses = f"{method} {path}", operation["responses"]
        assert {"4XX", "5XX", "429"} <= set(responses), where
        if operation["security"]:
            assert {"401", "403"} <= set(responses), where
        for status in {"201", "202"} & set(responses):
            assert "Location" in responses[status]["headers"], where


def test_what_wants_a_version_says_so(document: dict[str, Any]) -> None:
    user = document["paths"][f"{API}/users/{{user_id}}"]
    (condition,) = [p for p in user["patch"]["parameters"] if p["in"] == "header"]
    assert (condition["name"], condition["required"]) == ("If-Match", True)
    assert {"412", "428"} <= set(user["patch"]["responses"])
    for method in ("get", "patch"):
        assert "ETag" in user[method]["responses"]["200"]["headers"]


# --- whether it is true ---


def known(served: Served) -> dict[str, list[str]]:
    """Path parameters that lead somewhere, so that not every request ends as 404."""
    admin = httpx.Client(
        base_url=served.url, headers={"Authorization": f"Bearer {served.token}"}, timeout=60.0
    )

    def made(path: str, body: dict[str, Any]) -> Any:
        answer = admin.post(f"{API}{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    user = made("/users", {"name": "somebody", "role": "viewer"})
    token = made("/tokens", {"name": "t", "expires_in": 3600})
    made("/roles", {"name": "custom", "permissions": ["jobs:read"]})
    made("/secrets", {"name": "models", "headers": {"X": "planted"}, "hosts": ["models.example"]})
    each = {"urls": ["https://models.example/m.bin"]}
    jobs = [made(f"/{kind}", each)["id"] for kind in ("distributions", "preheats")]
    return {
        "user_id": [user["id"]],
        "token_id": [token["id"]],
        "name": ["custom", "models", "viewer"],
        "job_id": jobs,
        "node_id": [f"{n:056x}" for n in range(3)],
        "version": ["1"],
    }


def checked(
    served: Served,
    operation: APIOperation[Any, Any, Any, Any],
    real: dict[str, list[str]],
    mode: GenerationMode,
    examples: int,
) -> int:
    """How many requests were answered as the document says."""
    count = 0
    headers = {"Authorization": f"Bearer {served.token}"}
    picked: list[Any] = [checks.CHECKS.get_one(name) for name in CHECKED]

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategies.data())
    def run(data: strategies.DataObject) -> None:
        nonlocal count
        case = data.draw(operation.as_strategy(generation_mode=mode))
        for name in set(case.path_parameters or {}) & set(real):
            if operation.method != "delete" and data.draw(strategies.booleans()):
                case.path_parameters[name] = data.draw(strategies.sampled_from(real[name]))
        answer = case.call(base_url=served.url, headers=headers, timeout=30)
        count += 1
        case.validate_response(answer, checks=picked)

    run()
    return count


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(MANY_EXAMPLES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_hostile_input_is_refused_and_answers_are_as_documented(
    served: Served, document: dict[str, Any], mode: GenerationMode, examples: int
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.max_stream_events = 2
    real = known(served) if mode is GenerationMode.POSITIVE else {}
    wrong: list[str] = []
    requests = 0
    results: list[Any] = list(schema.get_all_operations())
    found = [result.ok() for result in results]
    for operation in found:
        if "/stream" in operation.path or "/live" in operation.path:
            continue
        try:
            requests += checked(served, operation, real, mode, examples)
        except hypothesis.errors.Unsatisfiable:
            # Nothing about this operation can be malformed.
            continue
        except (AssertionError, ExceptionGroup) as error:
            wrong.append(f"{operation.label}: {error}")
    print(f"{len(found)} operations, {requests} requests ({mode.value})")
    assert not wrong, "\n\n".join(wrong)
    assert requests > len(found)
