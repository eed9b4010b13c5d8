"""Who may import whom: the contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_contracts_on_imports_are_kept() -> None:
    """In a process of its own: it configures logging, for all that is loaded."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kept" in done.stdout


PEERS_ONLY = (
    "dragonfly_ray.peer",
    "dragonfly_ray.sources",
    "dragonfly_ray.storage",
    "dragonfly_ray.transport",
    "fsspec",
    "pyarrow",
    "pycurl",
    "ray.serve",
)
CLUSTER_ONLY = ("ray", "numpy", "dragonfly_ray.actors", "dragonfly_ray.scheduling")
FAILED_CALL = """
from contextlib import suppress
from dragonfly_ray import connect, errors
with suppress(errors.DragonflyError):
    connect("http://127.0.0.1:9", "token").submit("https://example.org/file", dest="/tmp/file").result()
"""
PLAN = """
from dragonfly_ray.cli.app import app
app(["distribute", "--help"], standalone_mode=False)
"""


@pytest.mark.parametrize(
    ("process", "others"),
    [
        pytest.param("import dragonfly_ray", CLUSTER_ONLY, id="package"),
        pytest.param("from dragonfly_ray import *", ("numpy",), id="driver"),
        pytest.param(
            "import dragonfly_ray.actors.start, dragonfly_ray.actors.controller", (), id="first driver"
        ),
        pytest.param(FAILED_CALL, CLUSTER_ONLY, id="remote client"),
        pytest.param(PLAN, CLUSTER_ONLY, id="command"),
        pytest.param("import dragonfly_ray.serve.app", CLUSTER_ONLY, id="manager"),
        pytest.param("import dragonfly_ray.serve.ray_cluster", ("numpy",), id="manager of a cluster"),
        pytest.param("import dragonfly_ray.scheduling.simulator", ("ray",), id="simulator"),
    ],
)
def test_only_peers_load_the_store_and_pycurl(process: str, others: tuple[str, ...]) -> None:
    look = "import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{process}\n{look}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.splitlines()[-1].split()
    assert "dragonfly_ray" in loaded
    heavy = (*PEERS_ONLY, *others)
    assert not [name for name in loaded if any(f"{name}.".startswith(f"{each}.") for each in heavy)]
