"""Nodes: the table follows the cluster, the cluster follows the table's decisions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dragonfly_ray.errors import NotRunningError
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Audit, Event, Node
from dragonfly_ray.serve.fleet.cached import Cached
from dragonfly_ray.serve.fleet.nodes import NodeKeeper
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager.conftest import token_of
from tests.waiting import until

NODES = "/api/v1/nodes"
SignIn = Callable[..., httpx.Client]


@pytest.fixture
def ids(cluster: FakeCluster) -> list[str]:
    return list(cluster.views)


@pytest.fixture
def admin(sign_in: SignIn, app: FastAPI, ids: list[str]) -> httpx.Client:
    """Once all nodes are in the table."""
    client = sign_in("admin")
    settled(app, lambda: len(client.get(NODES).json()["items"]) == len(ids))
    return client


@pytest.fixture
def keeper(database: Database, cluster: FakeCluster) -> Iterator[NodeKeeper]:
    """Of a leader, moved by hand."""
    leadership = Leadership(database)
    leadership.start()
    assert leadership.wait(30)
    yield NodeKeeper(database, cluster, leadership, absent=0.0)
    leadership.stop()


def settled(app: FastAPI, condition: Callable[[], object]) -> None:
    """Rounds of the keeper until it is so."""

    def woken() -> object:
        app.state.manager.fleet.node_keeper.wake()
        app.state.manager.fleet.nodes.forget()
        return condition()

    until(woken)


def told(database: Database, type: str) -> list[Event]:
    with database.read() as session:
        return list(session.query(Event).filter_by(type=type).order_by(Event.id))


def row(database: Database, node_id: str) -> Node:
    with database.read() as session:
        return session.get_one(Node, node_id)


def work(keeper: NodeKeeper) -> None:
    keeper.round(threading.Event())


def test_nodes_are_listed_with_what_the_cluster_says_now(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    cluster.set_node(ids[1], receive_rate=12.5, bytes_peers=99, active_tasks=2)
    app.state.manager.fleet.nodes.forget()
    answer = admin.get(NODES)
    assert answer.headers["x-dragonfly-cluster"] == "ok"
    found = {n["node_id"]: n for n in answer.json()["items"]}
    assert list(found) == ids
    assert found[ids[0]]["role"] == "seed"
    busy = found[ids[1]]
    assert (busy["receive_rate"], busy["bytes"]["peers"], busy["active_tasks"]) == (12.5, 99, 2)
    assert (busy["state"], busy["alive"], busy["name"]) == ("healthy", True, "node-1")
    assert [e.resource_id for e in told(app.state.manager.database, "node.joined")] == ids


def test_nodes_of_one_name_are_told_apart_and_a_job_says_which(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    for node in ids[:2]:
        cluster.set_node(node, name="127.0.0.1", address="127.0.0.1")

    def shown() -> dict[str, str]:
        return {n["node_id"]: n["shown_name"] for n in admin.get(NODES).json()["items"]}

    wanted = {n: f"127.0.0.1 ({n})" for n in ids[:2]}
    settled(app, lambda: shown() == wanted | {n: cluster.views[n].name for n in ids[2:]})
    one = admin.get(f"{NODES}/{ids[0]}").json()
    assert (one["name"], one["shown_name"]) == ("127.0.0.1", wanted[ids[0]])
    body = {"urls": ["https://example.com/f"], "nodes": [ids[0], ids[3]]}
    job = admin.post("/api/v1/preheats", json=body).json()
    told = admin.get(f"/api/v1/preheats/{job['id']}/nodes").json()["items"]
    assert {n["node_id"]: n["node"] for n in told} == {ids[0]: wanted[ids[0]], ids[3]: "node-3"}


def test_one_look_at_the_cluster_for_all_who_ask(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    held = threading.Event()

    def ask() -> dict[str, NodeView]:
        looks.append(1)
        held.wait(10)
        return dict(cluster.views)

    monkeypatch.setattr(app.state.manager.fleet, "nodes", Cached("nodes", ask, fresh=60, patience=30))
    threads = [threading.Thread(target=admin.get, args=(NODES,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: looks)
    held.set()
    for thread in threads:
        thread.join()
    assert len(looks) == 1


def test_filters_sorting_and_pages(admin: httpx.Client, ids: list[str]) -> None:
    def names(**query: Any) -> list[str]:
        return [n["name"] for n in admin.get(NODES, params=query).json()["items"]]

    assert names(sort="-name") == ["node-3", "node-2", "node-1", "node-0"]
    assert names(role="seed") == ["node-0"]
    assert names(name="E-2") == ["node-2"]
    assert names(name="%") == []
    assert names(alive=False) == []
    assert names(state="healthy", cordoned=False, role="peer") == ["node-1", "node-2", "node-3"]
    first = admin.get(NODES, params={"limit": 3}).json()
    rest = admin.get(NODES, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [n["node_id"] for n in first["items"] + rest["items"]] == ids
    assert rest["next_cursor"] is None
    assert admin.get(NODES, params={"sort": "note"}).status_code == 422


def test_lists_answer_while_the_cluster_is_away(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    cluster.down = True
    app.state.manager.fleet.nodes.forget()
    answer = admin.get(NODES)
    assert answer.headers["x-dragonfly-cluster"] == "away"
    assert [n["node_id"] for n in answer.json()["items"]] == ids
    assert {n["alive"] for n in answer.json()["items"]} == {True}
    assert all("did not respond" in n["error"] for n in answer.json()["items"])
    assert admin.get(f"{NODES}/{ids[0]}").headers["x-dragonfly-cluster"] == "away"


def test_a_hanging_cluster_holds_up_nobody() -> None:
    held = threading.Event()
    cached: Cached[int] = Cached("nodes", lambda: int(held.wait(60)), patience=0.05)
    for _ in range(3):
        with pytest.raises(NotRunningError):
            cached.get()
    held.set()
    until(lambda: answer_of(cached) == 1)


def answer_of(cached: Cached[int]) -> int | None:
    try:
        return cached.get(60.0)
    except NotRunningError:
        return None


def test_cordon_and_drain_reach_the_cluster(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    url = f"{NODES}/{ids[1]}"
    before = admin.get(url).json()["version"]
    node = admin.post(f"{url}/cordon", json={"note": "fan is loud"}).json()
    assert (node["cordoned"], node["draining"], node["note"]) == (True, False, "fan is loud")
    assert node["version"] == before + 1
    assert cluster.views[ids[1]].cordoned
    assert [n["node_id"] for n in admin.get(NODES, params={"cordoned": True}).json()["items"]] == [ids[1]]
    node = admin.post(f"{url}/drain", json={}).json()
    assert (node["draining"], node["state"]) == (True, "draining")
    assert not admin.post(f"{url}/undrain").json()["draining"]
    assert cluster.views[ids[1]].state == "healthy"
    node = admin.post(f"{url}/uncordon").json()
    assert (node["cordoned"], node["note"], node["version"]) == (False, "", before + 4)
    assert not cluster.views[ids[1]].cordoned
    database = app.state.manager.database
    with database.read() as session:
        actions = [a.action for a in session.query(Audit).filter_by(resource_id=ids[1]).order_by(Audit.id)]
    assert actions == ["node.cordon", "node.drain", "node.undrain", "node.uncordon"]
    first = next(e for e in told(database, "node.changed") if e.resource_id == ids[1])
    assert first.data["cordoned"]


def test_a_cordon_while_the_cluster_is_away_reaches_it_later(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    cluster.down = True
    app.state.manager.fleet.nodes.forget()
    answer = admin.post(f"{NODES}/{ids[2]}/cordon", json={})
    assert answer.status_code == 200
    assert answer.json()["cordoned"]
    assert not cluster.views[ids[2]].cordoned
    cluster.down = False
    settled(app, lambda: cluster.views[ids[2]].cordoned)


def test_a_restarted_controller_is_told_again(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    admin.post(f"{NODES}/{ids[1]}/cordon", json={})
    admin.post(f"{NODES}/{ids[2]}/drain", json={})
    cluster.set_node(ids[1], cordoned=False)
    cluster.set_node(ids[2], state="healthy", draining=False)
    settled(app, lambda: cluster.views[ids[1]].cordoned and cluster.views[ids[2]].state == "draining")
    assert not cluster.views[ids[3]].cordoned


def test_a_cordoned_node_gets_no_job_even_before_the_cluster_is_told_again(
    admin: httpx.Client, cluster: FakeCluster, ids: list[str]
) -> None:
    assert admin.post(f"{NODES}/{ids[1]}/cordon", json={}).json()["cordoned"]
    cluster.set_node(ids[1], cordoned=False)
    job = {"urls": ["https://models.example.org/m"]}
    chosen = admin.post("/api/v1/distributions/check", json=job).json()["nodes"]
    assert sorted(chosen) == sorted(n for n in ids if n != ids[1])
    named = admin.post("/api/v1/distributions/check", json=job | {"nodes": [ids[1]]}).json()
    assert (named["nodes"], named["problems"]) == ([ids[1]], [])


def test_a_cordon_survives_a_restart_of_the_manager(
    settings: ManagerSettings, cluster: FakeCluster, ids: list[str]
) -> None:
    def run(work: Callable[[FastAPI, httpx.Client], object]) -> None:
        app = create_app(settings, cluster)
        with TestClient(app, base_url="http://manager") as client:
            client.headers["Authorization"] = f"Bearer {token_of(app.state.manager.database, 'admin')}"
            settled(app, lambda: len(client.get(NODES).json()["items"]) == len(ids))
            work(app, client)

    run(lambda app, client: client.post(f"{NODES}/{ids[3]}/cordon", json={"note": "why"}).raise_for_status())
    # Everything restarts: the controller knows of nothing.
    cluster.set_node(ids[3], cordoned=False)

    def look(app: FastAPI, client: httpx.Client) -> None:
        found = client.get(f"{NODES}/{ids[3]}").json()
        assert (found["cordoned"], found["note"]) == (True, "why")
        settled(app, lambda: cluster.views[ids[3]].cordoned)

    run(look)


def test_a_node_that_leaves_and_comes_back(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    url = f"{NODES}/{ids[1]}"
    admin.post(f"{url}/cordon", json={})
    cluster.set_node(ids[1], alive=False, error="its host is gone")
    settled(app, lambda: admin.get(NODES, params={"alive": False}).json()["items"])
    node = admin.get(url).json()
    assert (node["alive"], node["state"]) == (False, "dead")
    database = app.state.manager.database
    assert [(e.resource_id, e.data["error"]) for e in told(database, "node.left")] == [
        (ids[1], "its host is gone")
    ]
    cluster.set_node(ids[1], alive=True, cordoned=False, error="")
    settled(app, lambda: cluster.views[ids[1]].cordoned)
    assert [e.resource_id for e in told(database, "node.joined")] == [*ids, ids[1]]
    assert admin.get(url).json()["alive"]


def test_changes_of_a_node_are_told(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    cluster.set_node(ids[1], state="unhealthy", labels={"pool": "new"})
    settled(app, lambda: admin.get(NODES, params={"state": "unhealthy"}).json()["items"])
    database = app.state.manager.database
    (event,) = told(database, "node.changed")
    assert (event.resource_id, event.data["state"]) == (ids[1], "unhealthy")
    assert row(database, ids[1]).labels == {"pool": "new"}


def test_a_dead_node_can_be_forgotten_a_living_one_not(
    admin: httpx.Client, cluster: FakeCluster, app: FastAPI, ids: list[str]
) -> None:
    url = f"{NODES}/{ids[2]}"
    answer = admin.delete(url)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:dragonfly:problem:node-alive")
    cluster.set_node(ids[2], alive=False)
    settled(app, lambda: not row(app.state.manager.database, ids[2]).alive)
    assert admin.delete(url).status_code == 204
    assert admin.delete(url).status_code == 404
    assert admin.get(url).status_code == 404
    # The cluster still knows of a dead node: that does not bring it back.
    joined = len(told(app.state.manager.database, "node.joined"))
    cluster.set_node(ids[3], name="renamed")
    settled(app, lambda: row(app.state.manager.database, ids[3]).name == "renamed")
    assert admin.get(url).status_code == 404
    assert len(told(app.state.manager.database, "node.joined")) == joined


def test_viewers_look_only(admin: httpx.Client, sign_in: SignIn, ids: list[str]) -> None:
    viewer = sign_in("viewer")
    assert viewer.get(f"{NODES}/{ids[0]}").status_code == 200
    assert viewer.post(f"{NODES}/{ids[0]}/cordon", json={}).status_code == 403
    assert viewer.delete(f"{NODES}/{ids[0]}").status_code == 403


def test_an_outage_of_the_cluster_buries_nobody(
    keeper: NodeKeeper, database: Database, cluster: FakeCluster, ids: list[str]
) -> None:
    work(keeper)
    cluster.down = True
    work(keeper)
    work(keeper)
    views, cluster.views = cluster.views, {}
    cluster.down = False
    work(keeper)  # an answer without any node is none
    cluster.views = views
    work(keeper)
    assert all(row(database, n).alive for n in ids)
    assert told(database, "node.left") == []


def test_a_node_that_the_cluster_leaves_out_for_long_is_gone(
    keeper: NodeKeeper, database: Database, cluster: FakeCluster, ids: list[str]
) -> None:
    work(keeper)
    gone = cluster.views.pop(ids[3])
    work(keeper)
    work(keeper)
    assert not row(database, ids[3]).alive
    assert [e.resource_id for e in told(database, "node.left")] == [ids[3]]
    cluster.views[ids[3]] = gone
    work(keeper)
    assert row(database, ids[3]).alive


def test_a_quiet_round_writes_nothing(
    keeper: NodeKeeper, database: Database, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(keeper)
    monkeypatch.setattr(database, "write", None)
    work(keeper)


def test_cordons_from_before_the_first_manager_are_kept(
    keeper: NodeKeeper, database: Database, cluster: FakeCluster, ids: list[str]
) -> None:
    cluster.cordon(ids[0], True)
    work(keeper)
    assert row(database, ids[0]).cordoned
    assert cluster.views[ids[0]].cordoned


def test_a_follower_leaves_the_table_alone(database: Database, cluster: FakeCluster) -> None:
    work(NodeKeeper(database, cluster, Leadership(database)))
    with database.read() as session:
        assert session.query(Node).count() == 0


def test_a_node_that_ray_drains_is_not_interfered_with(
    keeper: NodeKeeper,
    database: Database,
    cluster: FakeCluster,
    ids: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told_again: list[str] = []
    monkeypatch.setattr(cluster, "drain", lambda node_id, on: told_again.append(node_id))
    cluster.set_node(ids[0], state="draining")
    work(keeper)
    work(keeper)
    assert (row(database, ids[0]).state, row(database, ids[0]).draining) == ("draining", False)
    # One that shall drain and is unhealthy has been told.
    with database.write() as session:
        session.get_one(Node, ids[1]).draining = True
    cluster.set_node(ids[1], state="unhealthy", draining=True)
    work(keeper)
    assert told_again == []
