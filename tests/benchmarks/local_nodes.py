"""One big file and ten thousand small ones to eight Ray nodes on this machine, every byte compared.

    .venv/bin/python -m tests.benchmarks.local_nodes --nodes 8 --mib 1024 --files 10000

Links are loopback and all nodes share the processors, so the times say little about a cluster; the
bytes, the requests at the origin and the memory say as much as anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

import dragonfly_ray as d
from examples.demo.environment import prepare_ray
from examples.demo.show import tree_digest
from tests.nginx import Nginx
from tests.testbed.bed import root_file

OBJECT_STORE = 90 * 1024 * 1024


def anonymous(pid: int) -> int:
    """Bytes of anonymous memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


@contextlib.contextmanager
def memory(pids: list[int]) -> Iterator[dict[str, int]]:
    """`growth`: the most that any of the processes grew by, while the block ran."""
    before = {pid: anonymous(pid) for pid in pids}
    found = {"growth": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            for pid in pids:
                with contextlib.suppress(OSError, psutil.Error):
                    found["growth"] = max(found["growth"], anonymous(pid) - before[pid])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="dfbench-", dir="/tmp"))
    folder.chmod(0o755)
    prepare_ray(folder, os.environ)
    os.environ["DRAGONFLY_STORAGE__ROOT"] = str(folder / "stores")
    head = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(options.nodes - 1):
            cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        d.up()
        with Nginx(folder / "www", folder / "nginx") as origin:
            root_file(origin.root / "big", options.mib << 20)
            for number in range(options.files):
                path = origin.root / "tree" / f"{number % 100:02}" / f"{number}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(os.urandom(500 + number * 7 % 20_000))
            pids = [h["pid"] for h in d.status()["hosts"]]
            for name in ["big"] * (options.mib > 0) + ["tree/"] * (options.files > 0):
                with memory(pids) as used:
                    done = d.distribute(f"{origin.url}/{name}", dest=folder / "out" / "{node}" / "{name}")
                wanted = tree_digest(origin.root / name)
                assert len(done.paths) == options.nodes
                assert all(tree_digest(path) == wanted for path in done.paths.values())
                hits = [
                    h for h in origin.hits() if h.path.startswith(f"/{name}") and not h.path.endswith("/")
                ]
                report = {
                    "source": name,
                    "bytes": done.size,
                    "nodes": len(done.paths),
                    "seconds": round(done.seconds, 2),
                    "origin bytes / size": round(sum(h.sent for h in hits) / done.size, 5),
                    "origin requests": len(hits),
                    "peer memory growth MiB": round(used["growth"] / 2**20, 1),
                    "identical": True,
                }
                print(json.dumps(report), flush=True)
        d.down()
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
