"""What the manager decides about nodes and settings, on a real cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from fastapi.testclient import TestClient
from pydantic import SecretStr

import dragonfly_ray as d
from dragonfly_ray.actors.handles import reach
from dragonfly_ray.cluster_directives import Directives
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.ray_cluster import RayCluster
from dragonfly_ray.serve.settings import ManagerSettings
from tests.cluster.conftest import LocalCluster, until
from tests.manager.conftest import token_of
from tests.nginx import Nginx

API = "/api/v1"
pytestmark = pytest.mark.cluster


@pytest.fixture
def port(cluster: LocalCluster) -> RayCluster:
    return RayCluster()


@pytest.fixture
def manager(cluster: LocalCluster, port: RayCluster, tmp_path: Path) -> Iterator[httpx.Client]:
    """An administrator of a manager that has seen all nodes."""
    settings = ManagerSettings(
        state_dir=tmp_path / "manager",
        DRAGONFLY_ADMIN_PASSWORD=SecretStr("correct horse battery"),
        urls=UrlPolicy(networks=("127.0.0.0/8",)),
    )
    app = create_app(settings, port)
    with TestClient(app, base_url="http://manager") as client:
        client.headers["Authorization"] = f"Bearer {token_of(app.state.manager.database, 'admin')}"
        until(lambda: nodes(client).keys() >= set(cluster.node_ids), why=lambda: nodes(client))
        yield client


def nodes(client: httpx.Client) -> dict[str, dict[str, Any]]:
    found = client.get(f"{API}/nodes", params={"alive": True}).raise_for_status()
    return {n["node_id"]: n for n in found.json()["items"]}


def ask(client: httpx.Client, node_id: str, action: str) -> dict[str, Any]:
    found: dict[str, Any] = client.post(f"{API}/nodes/{node_id}/{action}", json={}).raise_for_status().json()
    return found


def change(client: httpx.Client, values: dict[str, Any]) -> int:
    etag = client.get(f"{API}/config").headers["etag"]
    answer = client.put(f"{API}/config", json={"values": values}, headers={"If-Match": etag})
    return int(answer.raise_for_status().json()["version"])


def is_everywhere(client: httpx.Client, port: RayCluster, version: int) -> Callable[[], bool]:
    """On peers, schedulers and the controller, and said so by the manager."""

    def look() -> bool:
        try:
            views = [v for v in port.nodes() if v.alive]
            found = {port.settings()[0], scheduler_version(), *(v.settings_version for v in views)}
        except (DragonflyError, ray.exceptions.RayError):
            return False
        applied = client.get(f"{API}/config/versions/{version}").json()["applied_at"]
        return found == {version} and applied is not None

    return look


def scheduler_version() -> int:
    actor = reach("scheduler:0", "dragonfly")
    return Directives.decode(ray.get(actor.direct.remote(Directives().encode()), timeout=10)).version


def kill_controller() -> None:
    os.kill(d.status()["pids"]["controller"], signal.SIGKILL)


def targets(client: httpx.Client, origin: Nginx, name: str) -> set[str]:
    """The nodes of a new job for all; once it has succeeded."""
    (origin.root / name).write_bytes(os.urandom(100_000))
    job = client.post(f"{API}/preheats", json={"urls": [f"{origin.url}/{name}"], "nodes": "all"})
    url = job.raise_for_status().headers["location"]
    until(lambda: client.get(url).json()["ended_at"], why=lambda: client.get(url).json())
    assert client.get(url).json()["state"] == "succeeded", client.get(url).json()
    return {n["node_id"] for n in client.get(f"{url}/nodes").json()["items"]}


def test_settings_reach_everybody_also_over_a_restart_of_the_controller(
    cluster: LocalCluster, port: RayCluster, manager: httpx.Client
) -> None:
    first = change(manager, {"transport.upload_rate": 50_000_000})
    until(is_everywhere(manager, port, first), why=port.nodes)
    found = manager.get(f"{API}/config").json()
    assert found["effective"]["transport"]["upload_rate"] == 50_000_000
    assert found["json_schema"]["properties"]["transport.upload_rate"]
    kill_controller()
    second = change(manager, {"transport.upload_rate": 60_000_000, "origin.connections": 3})
    until(is_everywhere(manager, port, second), 120.0, port.nodes)
    assert port.settings()[1]["origin"]["connections"] == 3
    refused = manager.put(
        f"{API}/config", json={"values": {"transport.port": 7}}, headers={"If-Match": f'"{second}"'}
    )
    assert refused.status_code == 422
    assert "transport.port: cannot be changed at runtime" in refused.json()["detail"]
    back = manager.post(f"{API}/config/rollback/0").raise_for_status().json()["version"]
    until(is_everywhere(manager, port, back), why=port.nodes)
    assert port.settings()[1]["transport"]["upload_rate"] is None


def test_a_cordoned_node_gets_no_new_jobs(
    cluster: LocalCluster, port: RayCluster, manager: httpx.Client, origin: Nginx
) -> None:
    first, *others = cluster.node_ids
    assert ask(manager, first, "cordon")["cordoned"]
    assert targets(manager, origin, "a") == set(others)
    kill_controller()
    until(lambda: next(v for v in port.nodes() if v.node_id == first).cordoned, 120.0)
    assert targets(manager, origin, "b") == set(others)
    assert not ask(manager, first, "uncordon")["cordoned"]
    assert targets(manager, origin, "c") == set(cluster.node_ids)


def test_a_cluster_that_forgot_is_told_again(
    cluster: LocalCluster, port: RayCluster, manager: httpx.Client
) -> None:
    first = cluster.node_ids[0]
    ask(manager, first, "cordon")
    port.cordon(first, False)
    until(lambda: next(v for v in port.nodes() if v.node_id == first).cordoned)
    ask(manager, first, "uncordon")
    assert set(port.select("all")) == set(cluster.node_ids)


def test_a_drained_node(
    cluster: LocalCluster, port: RayCluster, manager: httpx.Client, origin: Nginx
) -> None:
    first, *others = cluster.node_ids
    assert ask(manager, first, "drain")["draining"]
    until(lambda: nodes(manager)[first]["state"] == "drained", why=lambda: nodes(manager)[first])
    assert targets(manager, origin, "d") == set(others)
    assert not ask(manager, first, "undrain")["draining"]
    until(lambda: nodes(manager)[first]["state"] == "healthy", why=lambda: nodes(manager)[first])
    assert targets(manager, origin, "e") == set(cluster.node_ids)
