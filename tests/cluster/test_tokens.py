"""A Ray cluster of its own that wants a token from everybody."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nginx import Nginx

MIB = 1 << 20
BOUND = 60.0
"""Seconds in which whoever has a wrong token must be told; it takes about three."""
pytestmark = pytest.mark.cluster

_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
options = {"num_cpus": 2, "object_store_memory": 80 * 1024 * 1024}
cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
cluster.add_node(**options)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
_DRIVER = """
import dragonfly_ray as d
try:
    d.status()
except d.errors.NotRunningError as error:
    print(f"NotRunningError: {error}")
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that may talk to a cluster with tokens."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "DRAGONFLY_"))}
    env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": os.environ["RAY_TMPDIR"],
        "DRAGONFLY_STORAGE__ROOT": str(tmp_path / "stores"),
        "HOME": str(tmp_path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as cluster:  # fmt: skip
        assert cluster.stdout is not None
        address = next((line.strip() for line in cluster.stdout if line[:1].isdigit()), "")
        assert address, "the cluster did not start"
        yield env | {"RAY_ADDRESS": address}
        cluster.communicate(timeout=100)


def run(env: dict[str, str], *arguments: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_with_the_token_all_works_and_without_it_one_line_says_so(
    guarded: dict[str, str], origin: Nginx, tmp_path: Path
) -> None:
    data = os.urandom(9 * MIB)
    (origin.root / "f").write_bytes(data)
    cli = ("-m", "dragonfly_ray.cli")
    ran = run(guarded, *cli, "up")
    assert ran.returncode == 0, ran.stderr
    ran = run(
        guarded, *cli, "distribute", f"{origin.url}/f", "-d", f"{tmp_path}/o/{{node}}", "-n", "2", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    paths = [Path(o["path"]) for o in json.loads(ran.stdout)["outcomes"]]
    assert len(paths) == 2
    assert all(path.read_bytes() == data for path in paths)
    ran = run(guarded, *cli, "status", "--json")
    assert ran.returncode == 0, ran.stderr
    assert [h["alive"] for h in json.loads(ran.stdout)["hosts"]] == [True, True]

    (tmp_path / "wrong").write_text(secrets.token_hex(32))
    wrong = guarded | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}
    ran = run(wrong, *cli, "status", timeout=BOUND)
    assert ran.returncode == 3, ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith("dragonfly: ")
    assert "token" in ran.stderr
    ran = run(wrong, "-c", _DRIVER, timeout=BOUND)
    assert ran.stdout.startswith("NotRunningError: "), ran.stderr
    assert len(ran.stdout.strip().splitlines()) == 1
    assert "Traceback" not in ran.stdout + ran.stderr
    secret = (tmp_path / "wrong").read_text()
    assert secret not in ran.stdout + ran.stderr

    assert run(guarded, *cli, "down").returncode == 0
