"""One real Ray cluster of four nodes on this machine, shared by all tests here."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util import list_named_actors

import dragonfly_ray as d
from examples.demo.environment import prepare_ray, scratch_folder
from tests import guard, waiting
from tests.nginx import Nginx
from tests.ports import free_port

NODES = 4
OBJECT_STORE = 120 * 1024 * 1024
METRICS_PORT = free_port()
DESCRIPTORS = 24
"""By so many may a peer's descriptors grow in one test: Ray connects to whoever is new."""
ORIGINS: set[int] = set()
"""Ports of the web servers that tests have started."""


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[Path]:
    """Ray's files: below a short path of our own, whoever's /tmp/ray is there."""
    folder = scratch_folder(prefix="dfray-")
    guard.watch(folder=folder)
    executable = sys.executable
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", "")  # as it was, afterwards
        prepare_ray(folder, os.environ)
        yield folder
    sys.executable = executable
    shutil.rmtree(folder, ignore_errors=True)


class LocalCluster:
    """`node_ids`: of the nodes that are there for all tests, the head first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["DRAGONFLY_STORAGE__ROOT"] = str(folder / "stores")
        self.ray = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 4,
                "object_store_memory": OBJECT_STORE,
                "include_dashboard": False,
                "metrics_export_port": METRICS_PORT,
            },
        )
        for number in range(1, NODES):
            self.add(labels={"pool": "a" if number < 3 else "b"})
        ray.init(address=self.ray.address, log_to_driver=False, logging_level=logging.ERROR)
        self.node_ids = [m.node_id for m in d.nodes()]
        d.up()

    def add(self, **options: Any) -> Any:
        return self.ray.add_node(num_cpus=2, object_store_memory=OBJECT_STORE, **options)

    def peer(self, node_id: str) -> dict[str, Any]:
        """What a node's peer says of itself."""
        return next(h for h in d.status()["hosts"] if h["node_id"] == node_id)

    def close(self) -> None:
        d.down()
        ray.shutdown()
        self.ray.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def cluster(ray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112, Ray spells it so
    folder = tmp_path_factory.mktemp("cluster")
    made = LocalCluster(folder)
    yield made
    made.close()


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Nginx]:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    with Nginx(tmp_path / "www", tmp_path / "nginx") as made:
        ORIGINS.add(made.port)
        yield made


@pytest.fixture(autouse=True)
def nothing_left_over(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """After every test: no task under way, no temporary file, every peer there, and nothing leaked."""
    if "cluster" not in request.fixturenames:
        yield
        return
    cluster: LocalCluster = request.getfixturevalue("cluster")
    ORIGINS.clear()  # a port of an earlier test may be that of one of Ray's processes by now
    before = {h["pid"]: len(strange(h["pid"])) for h in d.status()["hosts"] if h["alive"]}
    yield

    def idle() -> bool:
        hosts = d.status()["hosts"]
        return all(h["alive"] and h["tasks"] == 0 for h in hosts)

    until(idle, 60.0)
    assert not list(tmp_path.rglob(".dragonfly-*"))
    until(lambda: not leaks(before), 20.0, lambda: leaks(before))
    assert named_actors() == expected_actors(cluster)


def leaks(before: dict[int, int]) -> list[str]:
    """What a peer without any task has no need of. `before`: descriptors of each process, earlier."""
    hosts = d.status()["hosts"]
    ports = {h["port"] for h in hosts}
    found = []
    for host in hosts:
        pid, who = host["pid"], f"peer of {host['node_id'][:8]}"
        if host["task_threads"]:
            found.append(f"{who}: {host['task_threads']} threads of tasks")
        if host["connections"]:
            found.append(f"{who}: {host['connections']} children")
        found += [f"{who}: connected {c}" for c in connections(pid, ports)]
        found += [
            f"{who}: {link}" for link in descriptors(pid) if link.endswith("(deleted)") and "/tasks/" in link
        ]
        links = strange(pid)
        if pid in before and len(links) > before[pid] + DESCRIPTORS:
            found.append(f"{who}: {before[pid]} descriptors before, {len(links)} now: {sorted(links)}")
    return found


def connections(pid: int, ports: set[int]) -> list[str]:
    """Open connections that are not Ray's: to or from a data port, or to a web server of a test."""
    ours = []
    for c in psutil.Process(pid).net_connections("tcp"):
        if c.status not in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT) or not c.raddr:
            continue
        if c.laddr.port in ports or c.raddr.port in ports or c.raddr.port in ORIGINS:
            ours.append(f"{c.laddr.port} -> {c.raddr.port}")
    return ours


def strange(pid: int) -> list[str]:
    """Descriptors of anything but data files: of those the store keeps the latest open, up to a limit."""
    return [link for link in descriptors(pid) if "/tasks/" not in link]


def descriptors(pid: int) -> list[str]:
    """What each descriptor of a process leads to."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


def named_actors() -> set[str]:
    return {a["name"] for a in list_named_actors(all_namespaces=True) if a["namespace"] == "dragonfly"}


def expected_actors(cluster: LocalCluster) -> set[str]:
    return {"controller", "scheduler:0", *(f"peer:{m.node_id}" for m in d.nodes() if m.alive)}


def until(
    condition: Callable[[], object], timeout: float = 60.0, why: Callable[[], object] = lambda: ""
) -> None:
    """For what several processes have a part in."""
    waiting.until(condition, timeout, why)
