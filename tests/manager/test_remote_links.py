"""`links` by way of a manager: the client and the commands."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

import dragonfly_ray as d
from dragonfly_ray.serve.testing import FakeCluster
from tests.manager.conftest import token_of
from tests.manager.jobs_help import URL
from tests.manager.remote.conftest import Line, served


def test_links_are_asked_for_by_every_way(app: FastAPI, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.at_once = True
    with served(app) as address:
        token = token_of(app.state.manager.database, "operator")
        line = Line(address, token, tmp_path)
        with d.connect(address, token) as client:
            assert client.submit(URL, links="follow").job["links"] == "follow"
            assert client.preheat(URL, links="keep").job["links"] == "keep"
            line.run("distribute", URL, "--links", "keep", "--json")
            line.run("preheat", URL, "--links", "follow", "--json")
            assert [job["links"] for job in client.jobs()][:2] == ["follow", "keep"]
        assert "copy" in line.run("distribute", URL, "--links", "copy", code=2)
