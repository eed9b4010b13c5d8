"""Live settings: versions, who may change what when, and how they reach the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database.tables import Audit, ConfigVersion, Event
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager.conftest import token_of
from tests.waiting import until

CONFIG = "/api/v1/config"
SignIn = Callable[..., httpx.Client]
RATE = {"transport.upload_rate": 1_000_000}


@pytest.fixture
def admin(sign_in: SignIn) -> httpx.Client:
    return sign_in("admin")


def put(client: httpx.Client, values: Mapping[str, Any], version: int, comment: str = "") -> httpx.Response:
    body = {"values": values, "comment": comment}
    return client.put(CONFIG, json=body, headers={"If-Match": f'"{version}"'})


def told(app: FastAPI, type: str) -> list[dict[str, Any]]:
    with app.state.manager.database.read() as session:
        return [e.data for e in session.query(Event).filter_by(type=type).order_by(Event.id)]


def test_what_is_in_force_before_any_change(admin: httpx.Client) -> None:
    answer = admin.get(CONFIG)
    assert (answer.headers["etag"], answer.headers["x-dragonfly-cluster"]) == ('"0"', "ok")
    found = answer.json()
    assert (found["version"], found["values"], found["nodes"], found["applied"]) == (0, {}, 4, 4)
    assert "transport" in found["effective"]
    assert found["json_schema"]["properties"]["transport.upload_rate"]
    assert admin.get(f"{CONFIG}/versions").json() == {"items": [], "next_cursor": None}


def test_a_change_reaches_the_cluster(admin: httpx.Client, cluster: FakeCluster, app: FastAPI) -> None:
    answer = put(admin, RATE, 0, "slower at night")
    assert answer.status_code == 201
    assert answer.headers["etag"] == '"1"'
    made = answer.json()
    assert (made["version"], made["values"], made["comment"], made["rollback_of"]) == (
        1,
        RATE,
        "slower at night",
        None,
    )
    assert made["created_by"]["name"].startswith("admin-")
    assert admin.get(answer.headers["location"]).json()["version"] == 1
    until(lambda: told(app, "config.applied"))
    assert cluster.applied == (1, RATE)
    assert told(app, "config.applied") == [{"version": 1, "nodes": 4}]
    (changed,) = told(app, "config.changed")
    assert (changed["version"], changed["comment"]) == (1, "slower at night")
    assert admin.get(f"{CONFIG}/versions/1").json()["applied_at"]
    app.state.manager.fleet.nodes.forget()
    found = admin.get(CONFIG).json()
    assert (found["version"], found["values"], found["applied"]) == (1, RATE, 4)
    assert found["effective"]["transport"]["upload_rate"] == 1_000_000
    with app.state.manager.database.read() as session:
        (audit,) = session.query(Audit).filter_by(action="config.change")
    assert (audit.resource_id, audit.detail["values"], audit.detail["before"]) == ("1", RATE, {})


def test_it_is_applied_when_all_nodes_have_it(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI
) -> None:
    ids = list(cluster.views)
    real = cluster.apply

    def slowly(version: int, changes: Mapping[str, Any]) -> None:
        real(version, changes)
        cluster.set_node(ids[3], settings_version=0)

    cluster.apply = slowly  # type: ignore[method-assign]
    put(admin, RATE, 0)
    until(lambda: cluster.applied[0] == 1)
    app.state.manager.fleet.nodes.forget()
    found = admin.get(CONFIG).json()
    assert (found["applied"], found["nodes"]) == (3, 4)
    assert told(app, "config.applied") == []
    cluster.set_node(ids[3], settings_version=1)
    until(lambda: told(app, "config.applied"))


def test_a_restarted_controller_is_told_again(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI
) -> None:
    put(admin, RATE, 0)
    until(lambda: told(app, "config.applied"))
    cluster.applied = (0, {})
    until(lambda: cluster.applied == (1, RATE))
    assert len(told(app, "config.applied")) == 1


def test_a_change_while_the_cluster_is_away_reaches_it_later(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI
) -> None:
    cluster.down = True
    assert put(admin, RATE, 0).status_code == 201
    answer = admin.get(CONFIG)
    assert answer.headers["x-dragonfly-cluster"] == "away"
    assert (answer.json()["values"], answer.json()["effective"]) == (RATE, {})
    cluster.down = False
    until(lambda: cluster.applied == (1, RATE))


def test_no_change_is_lost(admin: httpx.Client, app: FastAPI) -> None:
    assert admin.put(CONFIG, json={"values": RATE}).status_code == 428
    assert put(admin, RATE, 0).status_code == 201
    lost = put(admin, {}, 0)
    assert (lost.status_code, lost.headers["etag"]) == (412, '"1"')
    assert admin.get(CONFIG).json()["values"] == RATE
    assert put(admin, {}, 1).status_code == 201


def test_two_replicas_change_it_at_once(
    settings: ManagerSettings, cluster: FakeCluster, app: FastAPI, client: TestClient
) -> None:
    other = create_app(settings, cluster)
    with TestClient(other, base_url="http://manager") as second:
        token = token_of(app.state.manager.database, "admin")
        for one in (client, second):
            one.headers["Authorization"] = f"Bearer {token}"
        each = (client, second)
        for version in range(5):
            with ThreadPoolExecutor(2) as pool:
                waiting = [
                    pool.submit(put, c, {"origin.connections": n + 3}, version) for n, c in enumerate(each)
                ]
            answers = [w.result() for w in waiting]
            assert sorted(a.status_code for a in answers) == [201, 412]
            won = next(a for a in answers if a.status_code == 201).json()
            assert [c.get(CONFIG).json()["values"] for c in each] == [won["values"]] * 2
        # One of the two leads; a change on either is applied.
        for version, one in enumerate(each, 5):
            assert put(one, {"origin.connections": version}, version).status_code == 201
            until(lambda: cluster.applied[0] == version + 1)  # noqa: B023, it is called at once


def test_a_way_back_is_a_new_version(admin: httpx.Client, cluster: FakeCluster, app: FastAPI) -> None:
    put(admin, RATE, 0)
    put(admin, {"transport.upload_rate": 5, "origin.connections": 4}, 1)
    answer = admin.post(f"{CONFIG}/rollback/1")
    assert (answer.status_code, answer.headers["etag"]) == (201, '"3"')
    made = answer.json()
    assert (made["version"], made["values"], made["rollback_of"]) == (3, RATE, 1)
    until(lambda: cluster.applied == (3, RATE))
    assert admin.post(f"{CONFIG}/rollback/0").json()["values"] == {}
    until(lambda: cluster.applied == (4, {}))
    assert admin.post(f"{CONFIG}/rollback/9").status_code == 404
    stale = admin.post(f"{CONFIG}/rollback/1", headers={"If-Match": '"3"'})
    assert stale.status_code == 412
    versions = admin.get(f"{CONFIG}/versions", params={"limit": 3}).json()
    assert [v["version"] for v in versions["items"]] == [4, 3, 2]
    rest = admin.get(f"{CONFIG}/versions", params={"limit": 3, "cursor": versions["next_cursor"]}).json()
    assert [v["version"] for v in rest["items"]] == [1]
    with app.state.manager.database.read() as session:
        assert session.query(Audit).filter_by(action="config.rollback").count() == 2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"transport.upload_rate": "fast"}, "transport.upload_rate"),
        ({"transport.upload_rate": -1}, "transport.upload_rate"),
        ({"origin.policy": "nobody"}, "origin.policy"),
        ({"origin.connections": 2.5}, "origin.connections"),
        ({"transport.bind": "0.0.0.0"}, "transport.bind"),
        ({"nothing.at_all": 1}, "nothing.at_all"),
        ({"origin": {"connections": 3}}, "origin"),
        ({"storage.high_water": None}, "storage.high_water"),
    ],
)
def test_invalid_values_are_refused_by_name(
    admin: httpx.Client, app: FastAPI, values: dict[str, Any], named: str
) -> None:
    answer = put(admin, {"origin.retries": 3, **values}, 0)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:dragonfly:problem:invalid-settings")
    assert named in answer.json()["detail"]
    with app.state.manager.database.read() as session:
        assert session.query(ConfigVersion).count() == 0


def test_a_version_that_the_cluster_refuses_is_told_once(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI
) -> None:
    def refuse(version: int, changes: Mapping[str, Any]) -> None:
        raise InvalidRequestError("settings: transport.upload_rate: unknown setting")

    cluster.apply = refuse  # type: ignore[method-assign]
    put(admin, RATE, 0)
    until(lambda: told(app, "config.failed"))
    app.state.manager.fleet.config_keeper.wake()
    (failed,) = told(app, "config.failed")
    assert failed["version"] == 1
    assert "upload_rate" in failed["error"]


def test_a_new_database_goes_on_above_what_the_cluster_has(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI
) -> None:
    cluster.applied = (7, {"origin.connections": 1})
    app.state.manager.fleet.settings.forget()
    answer = put(admin, RATE, 0)
    assert (answer.status_code, answer.json()["version"]) == (201, 8)
    until(lambda: cluster.applied == (8, RATE))


def test_viewers_look_only(sign_in: SignIn) -> None:
    viewer = sign_in("viewer")
    assert viewer.get(CONFIG).status_code == 200
    assert put(viewer, RATE, 0).status_code == 403
    assert viewer.post(f"{CONFIG}/rollback/0").status_code == 403
