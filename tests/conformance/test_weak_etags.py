"""S3 behind a proxy that weakens its ETags, as those do that may change what they pass on: nginx before moto."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from dragonfly_ray.errors import SourceChangedError
from dragonfly_ray.sources.conformance import Place
from tests.nginx import Nginx

WEAKENED = """location / {{ proxy_pass {to}; proxy_set_header Host $http_host; proxy_hide_header ETag;
add_header ETag 'W/$upstream_http_etag'; }}"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    moto: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    keys: dict[str, Any] = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    client: Any = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys)
    bucket = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    extra = WEAKENED.format(to=f"http://{host}:{port}")
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True) as proxy:
        options: dict[str, object] = {"key": "k", "secret": "s", "endpoint_url": proxy.url}
        yield Place(
            f"s3://{bucket}/top",
            lambda path, data: client.put_object(Bucket=bucket, Key=f"top/{path}", Body=data),
            options,
        )
    moto.stop()


@pytest.mark.parametrize("path", ["file.bin", ""])
def test_parts_are_read_though_no_condition_can_be_set_on_a_weak_etag(place: Place, path: str) -> None:
    data = os.urandom(3 << 20)
    place.put("file.bin", data)
    manifest = place.resolve(path).manifest
    assert place.read(path, manifest, 0, 2) + place.read(path, manifest, 2) == data
    place.put("file.bin", data[::-1])
    with pytest.raises(SourceChangedError):
        place.read(path, manifest, 2)
