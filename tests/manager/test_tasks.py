"""Tasks: what lies where, pins, evictions."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.serve.cluster import Order, TaskView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Audit, Event
from dragonfly_ray.serve.testing import SIZE, FakeCluster

TASKS = "/api/v1/tasks"
SignIn = Callable[..., httpx.Client]


@pytest.fixture
def task_id(cluster: FakeCluster) -> str:
    """Of content that lies on the first three nodes."""
    source = Source(url="https://user:pass@host/a/model.bin?signature=secret")
    order = Order(id="order", sources=(source,), targets=tuple(cluster.views)[:3])
    cluster.submit(order, Credentials())
    cluster.end("order")
    return source.id


@pytest.fixture
def admin(sign_in: SignIn) -> httpx.Client:
    return sign_in("admin")


def crowd(cluster: FakeCluster, count: int) -> None:
    for n in range(count):
        view = TaskView(
            task_id=f"{n:064x}",
            source_id=f"{n:064x}",
            url=f"https://host/{n}?key={'odd' if n % 2 else 'even'}",
            size=n % 3,
            pieces=1,
            entries=1,
            directory=False,
            active=0,
            whole=1,
            partial=0,
            holders={list(cluster.views)[n % 4]: 1.0},
        )
        cluster.contents[view.task_id] = view


def test_a_task_with_its_holders(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, task_id: str
) -> None:
    (listed,) = admin.get(TASKS).json()["items"]
    assert listed["url"] == "https://host/a/model.bin?signature=***"
    assert (listed["task_id"], listed["size"], listed["complete"]) == (task_id, SIZE, 3)
    assert listed["whole"] == listed["complete"], "the former name, until the next version"
    found = admin.get(f"{TASKS}/{task_id}").json()
    assert [(h["node"], h["share"]) for h in found["holders"]] == [
        ("node-0", 1),
        ("node-1", 1),
        ("node-2", 1),
    ]
    assert found["pins"] == []
    entries = admin.get(f"{TASKS}/{task_id}/entries").json()
    assert (entries["total"], entries["items"][0]["kind"]) == (1, "file")
    assert admin.get(f"{TASKS}/{task_id}/entries", params={"offset": 1}).json()["items"] == []
    cells = admin.get(f"{TASKS}/{task_id}/cells", params={"cells": 16}).json()
    assert cells["cells"] == 16
    assert {base64.b64decode(held) for held in cells["nodes"].values()} == {b"\xff" * 16}
    edges = admin.get(f"{TASKS}/{task_id}/edges").json()
    assert (edges[0]["parent_node"], edges[0]["child_node"]) == ("node-0", "node-1")
    text = "".join(admin.get(f"{TASKS}{path}").text for path in ("", f"/{task_id}", f"/{task_id}/edges"))
    assert "pass" not in text
    assert "secret" not in text


def test_cells_of_what_no_scheduler_knows_just_now(
    admin: httpx.Client, cluster: FakeCluster, task_id: str
) -> None:
    cluster.forget()
    assert admin.get(f"{TASKS}/{task_id}/cells").json()["nodes"] == {}


def test_pages_filters_and_sorting(admin: httpx.Client, cluster: FakeCluster) -> None:
    crowd(cluster, 25)

    def walk(**query: str | int) -> list[str]:
        found, cursor = [], ""
        while True:
            page = admin.get(TASKS, params={**query, **({"cursor": cursor} if cursor else {})}).json()
            found += [t["task_id"] for t in page["items"]]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    assert walk(sort="-complete") == walk(sort="-whole"), "the former name, until the next version"
    every = [f"{n:064x}" for n in range(25)]
    assert walk(limit=7) == every
    assert walk(limit=7, sort="-task_id") == every[::-1]
    by_size = walk(limit=4, sort="-size")
    assert sorted(by_size) == every
    assert [int(t, 16) % 3 for t in by_size] == sorted((n % 3 for n in range(25)), reverse=True)
    assert walk(limit=7, node_id=next(iter(cluster.views))) == every[::4]
    assert walk(limit=7, url="HOST/2") == [every[2], *every[20:]]
    # What is not shown cannot be asked for either.
    assert walk(url="odd") == []
    cursor = admin.get(TASKS, params={"limit": 3}).json()["next_cursor"]
    assert admin.get(TASKS, params={"cursor": cursor, "sort": "size"}).status_code == 422
    assert admin.get(TASKS, params={"sort": "holders"}).status_code == 422


def test_a_cursor_of_another_list_is_refused(admin: httpx.Client, cluster: FakeCluster) -> None:
    crowd(cluster, 3)
    for found in (
        ["task_id", 1, "x"],
        ["task_id", {"t": "2026-01-01T00:00:00+00:00"}, "x"],
        ["task_id", "x", 1],
    ):
        cursor = base64.urlsafe_b64encode(str(found).replace("'", '"').encode()).decode()
        answer = admin.get(TASKS, params={"cursor": cursor})
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "cursor: invalid, not issued by this list",
        )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/entries"),
        ("GET", "/cells"),
        ("GET", "/edges"),
        ("POST", "/pin"),
        ("DELETE", "/pin"),
        ("POST", "/evict"),
    ],
)
def test_unknown_tasks_are_not_found(admin: httpx.Client, method: str, path: str) -> None:
    answer = admin.request(method, f"{TASKS}/nothing{path}", json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:dragonfly:problem:not-found")


def test_a_task_that_has_just_begun_is_found(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragonfly_ray.serve.routes.tasks.JUST_NOW", 0.0)
    assert admin.get(TASKS).json()["items"] == []
    crowd(cluster, 1)
    assert admin.get(f"{TASKS}/{0:064x}").status_code == 200


def test_pins_have_an_owner_and_an_end(
    admin: httpx.Client, sign_in: SignIn, cluster: FakeCluster, app: FastAPI, task_id: str
) -> None:
    url, ids = f"{TASKS}/{task_id}", list(cluster.views)
    assert admin.post(f"{url}/pin", json={"node_ids": ids[:1], "ttl": 60}).json() == {"nodes": 1}
    operator = sign_in("operator")
    assert operator.post(f"{url}/pin", json={}).json() == {"nodes": 3}
    pins = admin.get(url).json()["pins"]
    assert [(p["node"], p["owner"].split("-")[0]) for p in pins] == [
        ("node-0", "manager:admin"),
        *((f"node-{n}", "manager:operator") for n in range(3)),
    ]
    assert [p["expires_at"] is None for p in pins] == [False, True, True, True]
    refused = admin.post(f"{url}/evict", json={})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:dragonfly:problem:task-in-use")
    assert admin.delete(f"{url}/pin").json() == {"nodes": 1}
    assert operator.delete(f"{url}/pin").json() == {"nodes": 3}
    assert admin.get(url).json()["pins"] == []
    assert recorded(app.state.manager.database, task_id) == [
        ("task.pin", "task.pinned"),
        ("task.pin", "task.pinned"),
        ("task.unpin", "task.unpinned"),
        ("task.unpin", "task.unpinned"),
    ]


def test_evictions(admin: httpx.Client, cluster: FakeCluster, app: FastAPI, task_id: str) -> None:
    url, ids = f"{TASKS}/{task_id}", list(cluster.views)
    assert admin.post(f"{url}/evict", json={"node_ids": ids[:1]}).json() == {"bytes": SIZE}
    assert [h["node"] for h in admin.get(url).json()["holders"]] == ["node-1", "node-2"]
    assert admin.post(f"{url}/evict", json={}).json() == {"bytes": 2 * SIZE}
    assert admin.get(url).status_code == 404
    database = app.state.manager.database
    assert recorded(database, task_id) == [("task.evict", "task.evicted")] * 2
    with database.read() as session:
        details = [a.detail for a in session.query(Audit).filter_by(action="task.evict").order_by(Audit.id)]
    assert details[0] == {
        "url": "https://host/a/model.bin?signature=***",
        "bytes": SIZE,
        "node_ids": ids[:1],
        "node_ids_total": 1,
    }


def test_viewers_look_only(sign_in: SignIn, cluster: FakeCluster, task_id: str) -> None:
    viewer = sign_in("viewer")
    assert viewer.get(f"{TASKS}/{task_id}").status_code == 200
    assert viewer.post(f"{TASKS}/{task_id}/pin", json={}).status_code == 403
    assert viewer.post(f"{TASKS}/{task_id}/evict", json={}).status_code == 403
    assert viewer.delete(f"{TASKS}/{task_id}/pin").status_code == 403


def test_while_the_cluster_is_away(admin: httpx.Client, cluster: FakeCluster, task_id: str) -> None:
    cluster.down = True
    answer = admin.get(TASKS)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:dragonfly:problem:not-running")
    assert answer.headers["retry-after"]


def test_the_share_of_a_partial_holder(admin: httpx.Client, cluster: FakeCluster) -> None:
    crowd(cluster, 1)
    view = cluster.contents[f"{0:064x}"]
    ids = list(cluster.views)
    cluster.contents[view.task_id] = dataclasses.replace(
        view, holders={ids[0]: 0.25, "gone": 1.0}, banned=(ids[2],), partial=1
    )
    found = admin.get(f"{TASKS}/{view.task_id}").json()
    assert [(h["node"], h["share"]) for h in found["holders"]] == [("node-0", 0.25), ("gone", 1.0)]
    assert (found["banned"], found["partial"]) == ([ids[2]], 1)


def recorded(database: Database, task_id: str) -> list[tuple[str, str]]:
    """What the audit and the events say of a task, side by side."""
    with database.read() as session:
        audits = session.query(Audit).filter_by(resource_type="task", resource_id=task_id).order_by(Audit.id)
        events = session.query(Event).filter_by(resource_type="task", resource_id=task_id).order_by(Event.id)
        return [(a.action, e.type) for a, e in zip(audits, events, strict=True)]
