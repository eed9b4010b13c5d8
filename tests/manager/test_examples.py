"""The examples that go through a manager, and whether every example is run by a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI

from dragonfly_ray.serve.testing import FakeCluster
from tests.manager.conftest import token_of
from tests.manager.serving import serving

ROOT = Path(__file__).parents[2]
URL = "https://models.example.org/weights.bin"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind is enough: a client sees HTTP."""
    return f"sqlite:///{tmp_path / 'manager.db'}"


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(at_once=True)


def run(name: str, *arguments: str, token: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DRAGONFLY_TOKEN": token, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_rest_client(app: FastAPI) -> None:
    with serving(app) as url:
        done = run("rest_client.py", url, URL, token=token_of(app.state.manager.database, "operator"))
        refused = run("rest_client.py", url, URL, token=token_of(app.state.manager.database, "viewer"))
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("distribution ")
    assert any(line.startswith("event:") for line in said), said
    assert refused.returncode == 1
    assert refused.stderr.startswith("403 ")


def test_manager_client(app: FastAPI) -> None:
    with serving(app) as url:
        done = run("manager_client.py", url, URL, token=token_of(app.state.manager.database, "operator"))
        refused = run("manager_client.py", url, URL, token="dfr_wrong")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " nodes have it, 0 failed" in done.stdout
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (1, "", 1)


def test_every_example_is_run_by_a_test_and_described() -> None:
    tests = Path(__file__).read_text() + (ROOT / "tests" / "cluster" / "test_examples.py").read_text()
    page = (ROOT / "docs" / "examples.md").read_text()
    for path in (ROOT / "examples").glob("[!_]*.py"):
        assert re.search(rf'run\((cluster, )?"{path.name}"', tests), path.name
        assert f"examples/{path.name}" in page, path.name
