"""Two servers behind one URL: what one user's server says is not what others get."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.model import Credentials
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm

CONTENT = os.urandom(3 << 20)
URL = "s3://models/weights.bin"


@pytest.fixture
def honest() -> Iterator[str]:
    server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client: Any = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="weights.bin", Body=CONTENT)
    yield url
    server.stop()


def at(endpoint: str) -> Credentials:
    return Credentials(storage_options={"key": "k", "secret": "s", "endpoint_url": endpoint})


def test_an_endpoint_of_ones_own_fills_nobody_elses_cache(honest: str, tmp_path: Path) -> None:
    forged = os.urandom(len(CONTENT))
    # It may say that the ETag is no MD5; this cluster does not ask.
    settings = Settings(origin=OriginSettings(checksums=False))
    etag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    with (
        ScriptedOrigin(Behaviour(forged, etag=etag)) as evil,
        contextlib.closing(Swarm(tmp_path, 2, settings=settings)) as swarm,
    ):
        taken = swarm.distribute(URL, "evil.0", credentials=at(f"http://127.0.0.1:{evil.port}"))
        assert {n["state"] for n in taken["nodes"].values()} == {"done"}, "it looks like the real one"
        dest = tmp_path / "out"
        got = swarm.distribute(URL, "honest.0", nodes=["n0"], credentials=at(honest), dest=str(dest))
        assert got["nodes"]["n0"]["state"] == "done", got
        assert dest.read_bytes() == CONTENT
        assert got["nodes"]["n0"]["bytes_cache"] == 0
        again = swarm.distribute(URL, "again.0", nodes=["n0"], credentials=at(honest))
        assert again["nodes"]["n0"]["bytes_cache"] == len(CONTENT), "the same server again is the same source"
