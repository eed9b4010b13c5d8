"""The manager over a real Ray cluster: what it says over HTTP is what lies on the nodes."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import dragonfly_ray as d
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.ray_cluster import RayCluster
from dragonfly_ray.serve.settings import ManagerSettings
from tests.cluster.conftest import LocalCluster, until
from tests.manager.conftest import token_of
from tests.manager.jobs_help import job_in, nodes_of, submit
from tests.manager.serving import Reader, serving, stream
from tests.nginx import Nginx

MIB = 1 << 20
SIZE = 48 * MIB
SLOW = "limit_rate 1m;"
"""For each connection; four peers with two each make 8 MiB a second."""
PATH = "/api/v1/distributions"
pytestmark = pytest.mark.cluster


@dataclass
class Managed:
    url: str
    token: str
    client: httpx.Client
    app: Any
    out: Path

    def distribute(self, url: str, **body: Any) -> dict[str, Any]:
        return submit(self.client, urls=[url], dest=str(self.out / "{node}" / "{name}"), **body)

    def share(self, job: dict[str, Any], node: str) -> float:
        found = next(n for n in nodes_of(self.client, job) if n["node_id"] == node)
        return float(found["bytes_done"]) / SIZE

    def half_way(self, job: dict[str, Any], nodes: list[str]) -> None:
        until(lambda: all(self.share(job, node) > 0.25 for node in nodes))
        shares = [self.share(job, node) for node in nodes]
        assert all(0.1 <= share <= 0.9 for share in shares), shares


@pytest.fixture(scope="module", autouse=True)
def unprejudiced(cluster: LocalCluster) -> None:
    """No host is barred for ten minutes for what a test before had it do: the next scheduler knows nothing of it."""
    before = d.status()["pids"]["scheduler:0"]
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        with contextlib.suppress(DragonflyError):
            status = d.status()
            alive = all(h["alive"] for h in status["hosts"])
            return alive and status["pids"].get("scheduler:0") not in (None, before)
        return False

    until(back)


@pytest.fixture
def managed(cluster: LocalCluster, tmp_path: Path) -> Iterator[Managed]:
    out = tmp_path / "o"
    out.mkdir()  # a root must be there on the node
    settings = ManagerSettings(
        state_dir=tmp_path / "state", urls=UrlPolicy(networks=("127.0.0.0/8",)), dest_roots=(str(out),)
    )
    app = create_app(settings, RayCluster())
    with serving(app) as url:
        token = token_of(app.state.manager.database, "operator")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield Managed(url, token, client, app, out)


@pytest.fixture
def content(origin: Nginx) -> bytes:
    data = os.urandom(SIZE)
    (origin.root / "f").write_bytes(data)
    origin.stop()
    origin.start(SLOW)
    return data


def assert_right(managed: Managed, job: dict[str, Any], nodes: list[str], content: bytes) -> None:
    done = {n["node_id"]: Path(n["path"]) for n in nodes_of(managed.client, job, state="done")}
    assert set(done) == set(nodes)
    assert all(path.read_bytes() == content for path in done.values())
    assert all(path.is_relative_to(managed.out) for path in done.values())


def test_a_distribution_watched_to_its_end(
    cluster: LocalCluster, managed: Managed, origin: Nginx, content: bytes
) -> None:
    made = managed.distribute(f"{origin.url}/f", name="weights")
    heard = _Heard()
    with stream(f"{managed.url}{PATH}/{made['id']}/live?cells=32", managed.token) as reader:
        heard.listen(reader)
    assert heard.job["state"] == "succeeded"
    assert heard.job["size"] == SIZE
    # What a slow host has leased and not begun in time is read by another one, too.
    assert 4 * SIZE <= heard.job["bytes"]["origin"] + heard.job["bytes"]["peers"] < 4.2 * SIZE
    assert {n["state"] for n in heard.nodes.values()} == {"done"}
    assert {n["bytes_done"] for n in heard.nodes.values()} == {SIZE}
    assert heard.partial > 4, "progress was told on the way"
    assert heard.rates > 0
    assert heard.cells == dict.fromkeys(cluster.node_ids, b"\xff" * 32)
    assert sum(edge["bytes"] for edge in heard.edges) > 0
    assert {edge["child"] for edge in heard.edges} <= set(cluster.node_ids)
    assert_right(managed, made, cluster.node_ids, content)
    assert origin.sent("/f") < 1.5 * SIZE
    again = managed.client.get(f"{PATH}/{made['id']}").json()
    assert again["bytes"] == heard.job["bytes"]
    assert again["task_ids"] == heard.job["task_ids"] != [""]


class _Heard:
    """What a live stream told, put together as a console does."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.cells: dict[str, bytes] = {}
        self.edges: list[dict[str, Any]] = []
        self.partial = 0
        self.rates = 0

    def listen(self, reader: Reader) -> None:
        while (message := reader.next()).name != "end":
            match message.name:
                case "job":
                    self.job = message.json
                case "nodes":
                    self.nodes |= {n["node_id"]: n for n in message.json}
                    self.partial += any(0 < n["bytes_done"] < SIZE for n in message.json)
                    self.rates += any(n["rate"] > 0 for n in message.json)
                case "cells":
                    self.cells |= {n: base64.b64decode(c) for n, c in message.json["nodes"].items()}
                case "edges":
                    self.edges = message.json


def test_cancel_stops_the_bytes(
    cluster: LocalCluster, managed: Managed, origin: Nginx, content: bytes
) -> None:
    made = managed.distribute(f"{origin.url}/f")
    managed.half_way(made, cluster.node_ids)
    managed.client.post(f"{PATH}/{made['id']}/cancel")
    asked = time.monotonic()
    ended = job_in(managed.client, made, "cancelled", "succeeded", "partial", "failed")
    assert ended["state"] == "cancelled"
    assert {n["error"]["kind"] for n in nodes_of(managed.client, made)} == {"cancelled"}

    def moved() -> tuple[int, int, list[int]]:
        hits = origin.hits()
        received = [cluster.peer(n)["received"] for n in cluster.node_ids]
        return len(hits), sum(hit.sent for hit in hits), received

    time.sleep(max(0.0, 2.0 - (time.monotonic() - asked)))  # what must not happen cannot be awaited
    before = moved()
    assert sum(before[2]) > 0
    time.sleep(2.0)
    assert moved() == before
    assert list(managed.out.iterdir()) == []


def test_the_scheduler_is_killed_during_a_job(
    cluster: LocalCluster, managed: Managed, origin: Nginx, content: bytes
) -> None:
    made = managed.distribute(f"{origin.url}/f")
    managed.half_way(made, cluster.node_ids)
    os.kill(d.status()["pids"]["scheduler:0"], signal.SIGKILL)
    ended = job_in(managed.client, made, "succeeded", "partial", "failed", "cancelled")
    assert ended["state"] == "succeeded", ended
    assert ended["error"] is None
    assert_right(managed, made, cluster.node_ids, content)


def test_cancel_while_the_scheduler_restarts(
    cluster: LocalCluster, managed: Managed, origin: Nginx, content: bytes
) -> None:
    origin.restart("limit_rate 300k;")  # longer than it may take until the restarted scheduler hears of it
    made = managed.distribute(f"{origin.url}/f")
    managed.half_way(made, cluster.node_ids)
    os.kill(d.status()["pids"]["scheduler:0"], signal.SIGKILL)
    managed.client.post(f"{PATH}/{made['id']}/cancel")
    ended = job_in(managed.client, made, "succeeded", "partial", "failed", "cancelled")
    assert ended["state"] == "cancelled", ended
    sent = origin.sent()
    time.sleep(2.0)  # what must not happen cannot be awaited
    assert origin.sent() == sent


def test_a_node_that_fails_is_tried_again(
    cluster: LocalCluster, managed: Managed, origin: Nginx, content: bytes
) -> None:
    origin.restart("")
    blocked = cluster.node_ids[3]
    (managed.out / blocked).write_bytes(b"a file, no folder")
    made = managed.distribute(f"{origin.url}/f")
    ended = job_in(managed.client, made, "partial", "succeeded", "failed")
    assert ended["state"] == "partial"
    assert ended["error"]["kind"] == "destination"
    (failed,) = nodes_of(managed.client, made, state="failed")
    assert (failed["node_id"], failed["error"]["kind"]) == (blocked, "destination")
    (managed.out / blocked).unlink()
    before = origin.sent()
    again = managed.client.post(f"{PATH}/{made['id']}/retry").json()
    assert again["nodes"] == [blocked]
    assert job_in(managed.client, again, "succeeded", "partial", "failed")["state"] == "succeeded"
    assert (managed.out / blocked / "f").read_bytes() == content
    assert origin.sent() - before < MIB, "its bytes were on other nodes"


def test_a_preheat_of_one_node_and_then_a_distribution(
    cluster: LocalCluster, managed: Managed, origin: Nginx
) -> None:
    data = os.urandom(8 * MIB)
    (origin.root / "warm").write_bytes(data)
    first = cluster.node_ids[0]
    made = submit(managed.client, kind="preheats", urls=[f"{origin.url}/warm"], nodes=first)
    assert job_in(managed.client, made, "succeeded", "failed")["state"] == "succeeded"
    assert {n["node_id"] for n in nodes_of(managed.client, made)} == {first}
    cold = origin.sent("/warm")
    after = managed.distribute(f"{origin.url}/warm")
    ended = job_in(managed.client, after, "succeeded", "partial", "failed")
    assert ended["state"] == "succeeded"
    assert_right(managed, after, cluster.node_ids, data)
    assert origin.sent("/warm") - cold < MIB
    assert ended["bytes"]["origin"] == 0


def test_a_url_that_leads_inside_is_refused_by_the_nodes_too(
    cluster: LocalCluster, managed: Managed, origin: Nginx
) -> None:
    """What the text does not tell: a redirect to where nobody may be asked."""
    origin.restart("location /away { return 302 http://169.254.169.254/latest/meta-data; }")
    made = managed.distribute(f"{origin.url}/away")
    ended = job_in(managed.client, made, "succeeded", "partial", "failed")
    assert ended["state"] == "failed"
    assert ended["error"]["kind"] == "source-forbidden"


def test_another_manager_goes_on(
    cluster: LocalCluster, managed: Managed, origin: Nginx, content: bytes
) -> None:
    """The next replica finds the job running, and its order under way."""
    made = managed.distribute(f"{origin.url}/f")
    managed.half_way(made, cluster.node_ids)
    manager = managed.app.state.manager
    other = create_app(manager.settings, RayCluster())
    with serving(other) as url:
        manager.leadership.stop()
        headers = {"Authorization": f"Bearer {managed.token}"}
        with contextlib.closing(httpx.Client(base_url=url, headers=headers, timeout=60)) as client:
            assert job_in(client, made, "succeeded", "partial", "failed")["state"] == "succeeded"
    assert_right(managed, made, cluster.node_ids, content)
    assert origin.sent("/f") < 1.5 * SIZE
