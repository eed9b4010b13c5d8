"""The commands over a manager, against a real server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import dragonfly_ray as d
from dragonfly_ray.errors import (
    InvalidRequestError,
)
from dragonfly_ray.serve.testing import SIZE, FakeCluster
from tests import programs
from tests.manager.conftest import PASSWORD, token_of
from tests.manager.remote.conftest import URL, Line
from tests.waiting import until


def test_anothers_secret_is_refused_at_once(line: Line, address: str, app: FastAPI) -> None:
    owner = token_of(app.state.manager.database, "operator")
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {owner}"}, timeout=60.0) as other:
        body = {"name": "theirs", "headers": {"Authorization": "Bearer x"}, "hosts": ["example.com"]}
        assert other.post("/api/v1/secrets", json=body).status_code == 201
    mine = token_of(app.state.manager.database, "operator")
    said = line.run("distribute", URL, "--secret", "theirs", code=2, DRAGONFLY_TOKEN=mine)
    assert "may not use secret 'theirs'" in said
    with d.connect(address, mine) as cluster, pytest.raises(InvalidRequestError, match="for access"):
        cluster.distribute(URL, secret="theirs")


def test_commands(line: Line, cluster: FakeCluster) -> None:
    cluster.at_once = True
    done = json.loads(line.run("distribute", URL, "-d", "/data/{name}", "-n", "2", "--json"))
    assert done["ok"]
    assert len(done["outcomes"]) == 2
    assert json.loads(line.run("attach", done["id"], "--json"))["ok"]
    assert json.loads(line.run("preheat", URL, "--json"))["ok"]
    listed = json.loads(line.run("jobs", "--json"))
    assert [job["kind"] for job in listed] == ["preheat", "distribution"]
    assert "succeeded" in line.run("jobs", COLUMNS="200")
    assert "weights.bin" in line.run("distribute", URL, COLUMNS="200")
    assert len(json.loads(line.run("nodes", "--json"))) == 4
    assert "10.0.0.1" in line.run("status", COLUMNS="200")
    assert "weights.bin" in line.run("ls", COLUMNS="200")
    assert json.loads(line.run("cordon", "node-1", "--json"))["cordoned"] == [list(cluster.views)[1]]
    assert json.loads(line.run("uncordon", "node-1", "--json"))["uncordoned"]
    assert json.loads(line.run("rm", URL, "--json"))["freed"] == 4 * SIZE


def test_exit_codes_are_those_of_the_cluster_itself(line: Line, cluster: FakeCluster) -> None:
    assert "no such nodes" in line.run("distribute", URL, "-n", "nobody", code=2)
    assert "is a local path" in line.run("distribute", "/home/me/file", code=2)
    assert "--secret" in line.run("distribute", URL, "-H", "Authorization: x", code=2)
    assert "distribute -n NODE" in line.run("get", URL, code=2)
    assert "access denied by the manager" in line.run("jobs", code=2, DRAGONFLY_TOKEN="dfr_other")
    assert "cannot connect to the manager" in line.run(
        "distribute", URL, code=3, DRAGONFLY_MANAGER="http://127.0.0.1:9"
    )
    assert "cancelled after" in line.run("distribute", URL, "--timeout", "0.5", code=5)
    assert "needs a manager" in line.run("jobs", code=2, DRAGONFLY_MANAGER="")
    process = line.start("distribute", URL)
    until(lambda: len(cluster.orders) == 2)
    cluster.fail(list(cluster.orders)[-1], "source-not-found", "not there")
    assert process.wait(60) == 4
    process.communicate()


def test_an_interrupted_command_cancels_the_job(line: Line, cluster: FakeCluster) -> None:
    process = line.start("distribute", URL)
    until(lambda: cluster.orders)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    until(lambda: cluster.cancelled == list(cluster.orders))


class Interrupted(httpx.HTTPTransport):
    """Ctrl-C while the answer to the first `POST` is on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.posts = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        self.posts += request.method == "POST"
        if request.method == "POST" and self.posts == 1:
            raise KeyboardInterrupt
        return answer


def test_an_interrupt_before_the_answer_cancels_what_the_manager_has_started(
    address: str, token: str, cluster: FakeCluster
) -> None:
    client = d.connect(address, token, transport=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        client.submit(URL)
    assert len(client.jobs()) == 1
    until(lambda: client.jobs()[0]["state"] == "cancelled")


def test_nothing_of_it_needs_ray(address: str, token: str, cluster: FakeCluster) -> None:
    """A caller's machine may be any: Ray is not imported on the way."""
    cluster.at_once = True
    program = (
        "import sys, dragonfly_ray as d\n"
        f"client = d.connect({address!r}, sys.stdin.read().strip())\n"
        f"assert client.distribute({URL!r}).ok\n"
        "assert client.jobs() and client.nodes\n"
        "import dragonfly_ray.cli.app\n"
        "found = [m for m in sys.modules if m == 'ray' or m.startswith('ray.')]\n"
        "assert not found, found[:5]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=token, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_lines_in_the_documentation_run(address: str, cluster: FakeCluster, tmp_path: Path) -> None:
    programs.need("curl")
    cluster.at_once = True
    text = (Path(__file__).parents[3] / "docs" / "manager.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    env = {**os.environ, "DRAGONFLY_MANAGER": address, "PASSWORD": PASSWORD, "URL": URL}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "event: end" in done.stdout
    assert '"state":"succeeded"' in done.stdout
    assert len(cluster.submitted) == 1
