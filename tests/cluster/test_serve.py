"""The manager as it is deployed: on Ray Serve, over its HTTP proxy, with a real cluster behind it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from httpx_sse import connect_sse
from ray.experimental import internal_kv as kv
from ray.util import list_named_actors
from websockets.sync.client import connect as connect_websocket

import dragonfly_ray as d
from dragonfly_ray.errors import InvalidRequestError, NotRunningError
from dragonfly_ray.logs import logs_folder
from dragonfly_ray.remote import Client
from dragonfly_ray.serve import launch, vault
from dragonfly_ray.serve.settings import ManagerSettings
from tests import postgres
from tests.cluster.conftest import LocalCluster, until
from tests.nginx import Nginx

pytestmark = pytest.mark.cluster
MIB = 1024 * 1024
SLOW = "limit_rate 1m;"


@dataclass(frozen=True)
class Deployment:
    """A manager, and how one comes in."""

    url: str
    token: str
    env: dict[str, str]

    def client(self) -> Client:
        return d.connect(self.url, self.token)

    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {self.token}"}, timeout=60
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dragonfly_ray.cli", *arguments],
            env=self.env | env, capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip


def serve_actors() -> set[str]:
    return {a["name"] for a in list_named_actors(all_namespaces=True) if a["namespace"] == "serve"}


def replicas() -> set[str]:
    return {name for name in serve_actors() if name.startswith("SERVE_REPLICA::dragonfly#")}


def kill_a_replica() -> str:
    name = min(replicas())
    ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)
    return name


def signed_in(url: str, password: str) -> str:
    """A token, made as a person makes one."""
    with httpx.Client(base_url=f"{url}/api/v1", timeout=60) as session:
        me = session.post("/session", json={"name": "admin", "password": password}).raise_for_status().json()
        made = session.post("/tokens", json={"name": "test"}, headers={"X-CSRF-Token": me["csrf"]})
        return str(made.raise_for_status().json()["token"])


def settings_for(folder: Path, dest: Path) -> dict[str, str]:
    """In the environment of whoever starts the manager."""
    return {
        "DRAGONFLY_MANAGER_STATE_DIR": str(folder / "state"),
        "DRAGONFLY_MANAGER_SECRET_KEY": vault.new_key(),
        "DRAGONFLY_MANAGER_DEST_ROOTS": json.dumps([str(dest)]),
        "DRAGONFLY_MANAGER_URLS": json.dumps({"networks": ["127.0.0.0/8"]}),
    }


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def deployed(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory, outputs: Path
) -> Iterator[Deployment]:
    """`dragonfly up`, as a person calls it, with a database of its own."""
    folder = tmp_path_factory.mktemp("manager")
    env = {
        **os.environ,
        **settings_for(folder, outputs),
        "RAY_ADDRESS": cluster.ray.address,
        "HOME": str(folder),
    }
    made = Deployment("", "", env)
    done = made.run("up", "--manager-port", "0", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["manager"]
    assert len(answer["password"]) >= 20
    token = signed_in(answer["url"], answer["password"])
    yield Deployment(
        answer["url"], token, {**env, "DRAGONFLY_MANAGER": answer["url"], "DRAGONFLY_TOKEN": token}
    )
    launch.remove("dragonfly")
    assert serve_actors() == set()


def test_no_secret_lies_in_rays_control_store(deployed: Deployment) -> None:
    stored = [
        kv._internal_kv_get(key, namespace="serve") for key in kv._internal_kv_list(b"", namespace="serve")
    ]
    name, key = "dragonfly.secret_key", deployed.env["DRAGONFLY_MANAGER_SECRET_KEY"]
    assert any(name.encode() in value for value in stored), "the application is there, with the file's path"
    assert not any(key.encode() in value for value in stored)
    file = Path(deployed.env["DRAGONFLY_MANAGER_STATE_DIR"]) / name
    assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (key, 0o600)


# --- up -----------------------------------------------------------------------------------------


def test_it_is_ready_and_its_first_password_is_shown_once(deployed: Deployment) -> None:
    assert httpx.get(f"{deployed.url}/healthz", timeout=60.0).json() == {"status": "ok"}
    assert httpx.get(f"{deployed.url}/readyz", timeout=60.0).json()["status"] == "ok"
    assert httpx.get(f"{deployed.url}/api/v1/nodes", timeout=60.0).status_code == 401
    before = replicas()
    again = deployed.run("up")
    assert again.returncode == 0, again.stderr
    assert deployed.url in again.stdout
    assert "password" not in again.stdout
    assert replicas() == before


def test_serve_keeps_no_password_and_no_port_of_others(deployed: Deployment) -> None:
    with pytest.raises(InvalidRequestError, match=r"http_port=1: Ray Serve already runs"):
        launch._start_serve(ManagerSettings(http_port=1))


# --- through the proxy --------------------------------------------------------------------------


def test_a_distribution_and_its_events(deployed: Deployment, origin: Nginx, outputs: Path) -> None:
    content = os.urandom(9 * MIB + 1)
    (origin.root / "f").write_bytes(content)
    body = {"urls": [f"{origin.url}/f"], "dest": str(outputs / "{node}" / "f")}
    seen: list[str] = []
    with deployed.http() as http, deployed.http() as watching:
        websocket = f"{deployed.url.replace('http', 'ws')}/api/v1/events/ws?types=job.*"
        headers = {"Authorization": f"Bearer {deployed.token}"}
        with connect_websocket(websocket, additional_headers=headers) as socket:
            assert "open" in json.loads(socket.recv(timeout=100))
            created = http.post("/distributions", json=body, headers={"Idempotency-Key": "one"})
            assert created.status_code == 202
            job = created.json()
            assert created.headers["Location"] == f"/api/v1/distributions/{job['id']}"
            told = [json.loads(socket.recv(timeout=100))["event"]]
            while told[-1]["type"] != "job.ended":
                told.append(json.loads(socket.recv(timeout=100))["event"])
            assert [e["type"] for e in told if e["resource_id"] == job["id"]] == [
                "job.created", "job.started", "job.ended",
            ]  # fmt: skip
        with connect_sse(watching, "GET", f"/distributions/{job['id']}/live") as stream:
            for event in stream.iter_sse():
                seen.append(event.event)
                if event.event == "job":
                    job = event.json()
        assert seen[0] == "job"
        assert seen[-1] == "end"
        assert job["state"] == "succeeded"
        nodes = http.get(f"/distributions/{job['id']}/nodes").json()["items"]
        again = http.post("/distributions", json=body, headers={"Idempotency-Key": "one"})
        assert again.json()["id"] == job["id"]
    assert len(nodes) == 4
    assert all(Path(node["path"]).read_bytes() == content for node in nodes)


def test_the_client_and_the_commands(deployed: Deployment, origin: Nginx, outputs: Path) -> None:
    (origin.root / "tree").mkdir()
    for number in range(20):
        (origin.root / "tree" / f"{number}").write_bytes(os.urandom(1000))
    url = f"{origin.url}/tree/"
    with deployed.client() as client:
        done = client.distribute(url, dest=str(outputs / "{node}" / "tree"))
        assert done.ok
        assert len({o.node for o in done.outcomes}) == 4
        until(lambda: len(client.where(url)) == 4)
        assert client.evict(url) == 4 * 20_000
    ran = deployed.run("distribute", url, "-n", "2", "-d", str(outputs / "{node}" / "again"), "--json")
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["outcomes"]) == 2
    assert len(json.loads(deployed.run("nodes", "--json").stdout)) >= 4
    missing = deployed.run("distribute", f"{origin.url}/nothing")
    assert missing.returncode == 4, missing.stderr
    assert deployed.run("distribute", "http://10.1.2.3/x").returncode == 2


def test_a_replica_is_killed_in_mid_job(deployed: Deployment, origin: Nginx, outputs: Path) -> None:
    content = os.urandom(24 * MIB)
    (origin.root / "slow").write_bytes(content)
    origin.start(SLOW)
    with deployed.client() as client:
        submission = client.submit(f"{origin.url}/slow", dest=str(outputs / "{node}" / "slow"))
        until(lambda: submission.progress().bytes_done > 0, 100.0)
        gone = kill_a_replica()
        origin.start()
        done = submission.result(200)
        assert done.ok
        assert all(path.read_bytes() == content for path in done.paths.values())
        until(lambda: replicas() and gone not in replicas(), 100.0)
        assert [job["state"] for job in client.jobs() if job["id"] == submission.id] == ["succeeded"]


# --- what cannot work, and the end --------------------------------------------------------------


def test_down_takes_everything_away_and_what_is_kept_comes_back(
    cluster: LocalCluster, deployed: Deployment
) -> None:
    jobs = len(deployed.client().jobs(most=None))
    assert jobs >= 3
    stopped = deployed.run("down")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.strip() == "stopped"
    assert serve_actors() == set()
    assert [a for a in list_named_actors(all_namespaces=True) if a["namespace"] == "dragonfly"] == []
    port = deployed.url.rpartition(":")[2]
    again = deployed.run(
        "up", "--manager-port", port,
        DRAGONFLY_LOG_FORMAT="json", DRAGONFLY_PEER__SEEDS=json.dumps([cluster.node_ids[2]]),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "password" not in again.stdout, "there is an admin already"
    assert len(deployed.client().jobs(most=None)) == jobs


def test_a_preheat_of_the_seeds_and_its_way_through_the_logs(
    cluster: LocalCluster, deployed: Deployment, origin: Nginx
) -> None:
    """From the caller's own request id to the job, from that to its task, from that to the node."""
    content = os.urandom(3 * MIB)
    (origin.root / "warm").write_bytes(content)
    with deployed.http() as http:
        body = {"urls": [f"{origin.url}/warm"], "nodes": "seeds"}
        made = http.post("/preheats", json=body, headers={"X-Request-ID": "nightly-7"})
        job = made.raise_for_status().json()
        until(lambda: http.get(f"/preheats/{job['id']}").json()["ended_at"])
        found = http.get(f"/preheats/{job['id']}").json()
        assert found["state"] == "succeeded"
        (node,) = http.get(f"/preheats/{job['id']}/nodes").json()["items"]
        assert node["node_id"] == cluster.node_ids[2], "the only seed"
        (task,) = found["task_ids"]
        held = http.get(f"/tasks/{task}").json()["holders"]
    assert [(h["node_id"], h["share"]) for h in held] == [(node["node_id"], 1.0)]
    of_request = {line["job_id"] for line in log_lines("manager-*") if line.get("request_id") == "nightly-7"}
    assert of_request == {job["id"]}
    of_job = {line["task_id"] for line in log_lines("scheduler-0") if line.get("job_id") == job["id"]}
    assert of_job == {task}
    of_task = {line["actor"] for line in log_lines("peer-*") if line.get("task_id") == task}
    assert [name.rpartition("-")[2] for name in of_task] == [node["node_id"][:8]]


def log_lines(actor: str) -> list[dict[str, Any]]:
    """Those that are documents, of the actors with such names."""
    folder = logs_folder()
    assert folder is not None
    lines = [line for path in folder.glob(f"dragonfly-{actor}.log") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_manager_that_cannot_start_says_why(deployed: Deployment, tmp_path: Path) -> None:
    launch.remove("dragonfly")
    folder = tmp_path / "state"
    wrong = ManagerSettings(state_dir=folder, http_port=0, secret_key="short")
    with pytest.raises(NotRunningError, match=r"the manager failed to start: .*key"):
        launch.deploy(wrong)
    assert replicas() == set()
    launch.remove("dragonfly")


def test_two_replicas_on_postgresql(
    cluster: LocalCluster, deployed: Deployment, origin: Nginx, outputs: Path, tmp_path: Path
) -> None:
    content = os.urandom(24 * MIB)
    (origin.root / "two").write_bytes(content)
    launch.remove("dragonfly")
    with postgres.running() as server, server.database() as database:
        settings: dict[str, Any] = {
            "state_dir": tmp_path / "state",
            "database_url": database,
            "replicas": 2,
            "http_port": 0,
            "dest_roots": (str(outputs),),
            "urls": {"networks": ["127.0.0.0/8"]},
        }
        found = launch.deploy(ManagerSettings(**settings))
        assert found.password
        assert len(replicas()) == 2
        token = signed_in(found.url, found.password.get_secret_value())
        origin.start(SLOW)
        start = threading.Barrier(8)

        def submit(number: int) -> Any:
            start.wait()
            client = d.connect(found.url, token)
            return client.submit(f"{origin.url}/two", dest=str(outputs / "{node}" / "two"), id="once")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            submissions = list(pool.map(submit, range(8)))
        assert len({s.id for s in submissions}) == 1
        until(lambda: submissions[0].progress().bytes_done > 0, 100.0)
        gone = kill_a_replica()
        origin.start()
        for submission in submissions:
            assert submission.result(200).ok
        until(lambda: len(replicas()) == 2 and gone not in replicas(), 100.0)
        assert d.connect(found.url, token).jobs()[0]["state"] == "succeeded"
        launch.remove("dragonfly")
    assert serve_actors() == set()
