"""One real Ray cluster of four nodes on this machine, shared by all tests here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import dragonfly_ray as d
from tests.nginx import Nginx

NODES = 4
OBJECT_STORE = 120 * 1024 * 1024
METRICS_PORT = 18765


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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
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
        yield made


@pytest.fixture(autouse=True)
def nothing_left_over(cluster: LocalCluster, tmp_path: Path) -> Iterator[None]:
    """After every test: no task under way, no temporary file, every peer there."""
    yield

    def idle() -> bool:
        hosts = d.status()["hosts"]
        return all(h["alive"] and h["tasks"] == 0 for h in hosts)

    until(idle, 60.0)
    assert not list(tmp_path.rglob(".dragonfly-*"))


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Waits for what another process does. Ten times what it should take, then fails."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
