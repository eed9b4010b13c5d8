"""The conformance suite, against real servers."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from dragonfly_ray.errors import SourceAuthError, SourceUnsupportedError
from dragonfly_ray.sources.conformance import Place, SourceConformance
from tests import programs
from tests.nginx import Nginx
from tests.ports import free_port
from tests.presigning import AZURE_KEY
from tests.stores import put_gcs


def writer(root: Path) -> Any:
    seconds = itertools.count(1_700_000_000)

    def put(path: str, data: bytes) -> None:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}")
        draft.write_bytes(data)
        # What a web server tells of a version is as fine as a second.
        os.utime(draft, (now := next(seconds), now))
        os.replace(draft, target)

    return put


class TestLocal(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(f"file://{tmp_path}", writer(tmp_path))


class _OnNginx(SourceConformance):
    extra = ""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        with Nginx(tmp_path / "www", tmp_path / "nginx", extra=self.extra, real=True) as origin:
            yield Place(origin.url, writer(origin.root))


class TestNginx(_OnNginx):
    pass


class TestNginxJson(_OnNginx):
    extra = "autoindex_format json;"


class TestPythonServer(SourceConformance):
    """What stands in for nginx where that is missing."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setattr(programs, "find", lambda name: None)
        with Nginx(tmp_path / "www", tmp_path / "nginx") as origin:
            yield Place(origin.url, writer(origin.root))


class TestPythonServerJson(SourceConformance):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setattr(programs, "find", lambda name: None)
        with Nginx(tmp_path / "www", tmp_path / "nginx", extra="autoindex_format json;") as origin:
            yield Place(origin.url, writer(origin.root))


class TestMemory(SourceConformance):
    @pytest.fixture
    def place(self) -> Iterator[Place]:
        files: Any = fsspec.filesystem("memory")
        folder = f"/{uuid4().hex}"

        def put(path: str, data: bytes) -> None:
            files.pipe_file(f"{folder}/{path}", data)

        yield Place(f"memory:/{folder}", put)
        if files.exists(folder):
            files.rm(folder, recursive=True)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class TestS3(SourceConformance):
    @pytest.fixture
    def place(self, moto: str) -> Place:
        client: Any = boto3.client(
            "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        )
        bucket = f"b{uuid4().hex[:12]}"
        client.create_bucket(Bucket=bucket)

        def put(path: str, data: bytes) -> None:
            client.put_object(Bucket=bucket, Key=f"top/{path}", Body=data)

        options: dict[str, object] = {"key": "k", "secret": "s", "endpoint_url": moto}
        return Place(f"s3://{bucket}/top", put, options)


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    from gcp_storage_emulator.server import create_server

    # Its gRPC side speaks to the real service only.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    server: Any = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{server._api._httpd.server_port}"
    server.stop()


class TestGcs(SourceConformance):
    @pytest.fixture
    def place(self, gcs: str) -> Place:
        options: dict[str, object] = {"endpoint_url": gcs, "token": "anon", "project": "p"}
        bucket = put_gcs(gcs, {})
        return Place(
            f"gs://{bucket}/top", lambda path, data: put_gcs(gcs, {f"top/{path}": data}, bucket), options
        )


ACCOUNT = "devstoreaccount1"


@pytest.fixture(scope="module")
def azurite() -> Iterator[str]:
    azurite = programs.need("azurite-blob")
    port = free_port()
    process = subprocess.Popen(
        [azurite, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--blobPort", str(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    blobs = f"http://127.0.0.1:{port}/{ACCOUNT}"
    yield f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={blobs};"
    process.kill()
    process.wait()


class TestAzure(SourceConformance):
    @pytest.fixture
    def place(self, azurite: str) -> Place:
        options: dict[str, object] = {"connection_string": azurite}
        files: Any = fsspec.filesystem("abfs", **options)
        container = f"c{uuid4().hex[:12]}"
        files.mkdir(container)

        def put(path: str, data: bytes) -> None:
            files.pipe_file(f"{container}/top/{path}", data, overwrite=True)

        return Place(f"abfs://{container}/top", put, options)


def test_wrong_storage_options_hide_their_values() -> None:
    with pytest.raises((SourceUnsupportedError, SourceAuthError)) as caught:
        Place("s3://bucket", lambda path, data: None, {"no_such_option": "hunter2"}).resolve("x")
    assert "hunter2" not in str(caught.value)
    assert quote("hunter2") not in repr(caught.value)
