"""Every example that joins a Ray cluster, as a process of its own, as its docstring says."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

import dragonfly_ray as d
from tests.cluster.conftest import NODES, LocalCluster
from tests.nginx import Nginx

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
CONTENT = os.urandom(3_000_000)


def run(cluster: LocalCluster, name: str, *arguments: str) -> list[str]:
    """The lines that it prints."""
    env = {**os.environ, "RAY_ADDRESS": cluster.ray.address, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env=env, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_distribute(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    (origin.root / "file").write_bytes(CONTENT)
    dest = tmp_path / "{node}" / "file"
    said = run(cluster, "distribute.py", f"{origin.url}/file", str(dest))
    assert len(said) == NODES, said
    for node in cluster.node_ids:
        assert (tmp_path / node / "file").read_bytes() == CONTENT


def test_tasks_and_actors(cluster: LocalCluster, origin: Nginx) -> None:
    (origin.root / "file").write_bytes(CONTENT)
    said = run(cluster, "tasks_and_actors.py", f"{origin.url}/file")
    digest = sha256(CONTENT).hexdigest()
    assert said == [f"{way}: sha256 {digest}" for way in ("path", "stream", "memory")]


def test_ray_data_prefetch(cluster: LocalCluster, origin: Nginx) -> None:
    urls = []
    for number in range(5):
        (origin.root / f"shard-{number}").write_bytes(
            b"\x01" * number + CONTENT[:1_000_000].replace(b"\x01", b"")
        )
        urls.append(f"{origin.url}/shard-{number}")
    said = run(cluster, "ray_data_prefetch.py", *urls)
    told = [line for line in said if line.startswith("http")]
    assert [line.rpartition(", ")[2] for line in told] == [f"{n} of them are 1" for n in range(5)]
    for number, url in enumerate(urls):
        assert sorted(d.where(url, partial=False)) == sorted(cluster.node_ids), number


def test_preheat(cluster: LocalCluster, origin: Nginx) -> None:
    for name in ("a", "b"):
        (origin.root / name).write_bytes(CONTENT + name.encode())
    urls = [f"{origin.url}/{name}" for name in ("a", "b")]
    said = run(cluster, "preheat.py", *urls)
    assert said == [f"{url}: on {NODES} nodes, pinned on {NODES}" for url in urls]
    for url in urls:
        assert d.unpin(url, owner="preheat") == NODES


def test_keep_folder(cluster: LocalCluster, origin: Nginx, tmp_path: Path) -> None:
    folder = origin.root / "set"
    folder.mkdir()
    (folder / "a").write_bytes(CONTENT)
    dest = tmp_path / "{node}"
    (first,) = run(cluster, "keep_folder.py", f"{origin.url}/set/", str(dest), "0", "1")
    assert first.startswith(f"{NODES} nodes are up to date")
    (folder / "b").write_bytes(b"new")
    said = run(cluster, "keep_folder.py", f"{origin.url}/set/", str(dest), "0", "2")
    assert len(said) == 2
    for node in cluster.node_ids:
        found = {path.name: path.read_bytes() for path in (tmp_path / node).iterdir()}
        assert found == {"a": CONTENT, "b": b"new"}
