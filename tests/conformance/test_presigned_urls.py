"""Presigned URLs of real stores: two signatures of one object are one source, and none opens it for another."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from azure.storage.blob import BlobServiceClient

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.sources import resolve
from tests import presigning
from tests.conformance.test_sources import azurite, moto  # noqa: F401, fixtures
from tests.front import Front
from tests.swarm import Swarm

CONTENT = os.urandom(3 << 20)
Sign = Callable[..., str]


@pytest.fixture(params=["s3", "s3v4"])
def s3(moto: str, request: pytest.FixtureRequest) -> Sign:  # noqa: F811
    client: Any = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="set/a.bin", Body=CONTENT)
    return lambda who, **options: presigning.s3(moto, who, version=request.param, **options)


@pytest.fixture
def azure(azurite: str) -> Sign:  # noqa: F811
    service = BlobServiceClient.from_connection_string(azurite)
    if not service.get_container_client("container").exists():
        service.create_container("container")
    service.get_blob_client("container", "a.bin").upload_blob(CONTENT, overwrite=True)
    return lambda who, **options: presigning.azure(service.url.rstrip("/"), **options)


def assert_shared(one: str, other: str, root: Path) -> None:
    assert one != other
    with contextlib.closing(Swarm(root, 2)) as swarm:
        first = swarm.distribute(one, "a.0")
        assert sum(node["bytes_origin"] for node in first["nodes"].values()) == len(CONTENT), first
        second = swarm.distribute(other, "b.0")
        for node in second["nodes"].values():
            assert (node["state"], node["bytes_cache"]) == ("done", len(CONTENT)), second
            assert Path(node["path"]).read_bytes() == CONTENT


def test_s3(s3: Sign, tmp_path: Path) -> None:
    assert_shared(s3("alice"), s3("bob", expires=1200), tmp_path)


def test_azure(azure: Sign, tmp_path: Path) -> None:
    assert_shared(azure("alice"), azure("bob", expires=1200), tmp_path)


@pytest.mark.parametrize("options", [{"expires": -60}, {"key": "A" * 88}, {"name": "b.bin"}])
def test_azure_gives_nothing_for_another_signature(
    azure: Sign, tmp_path: Path, options: dict[str, Any]
) -> None:
    wrong = azure("mallory", **options).replace("b.bin", "a.bin")
    with contextlib.closing(Swarm(tmp_path / "swarm", 2)) as swarm:
        assert swarm.distribute(azure("alice"), "a.0")["nodes"]["n0"]["state"] == "done"
        view = swarm.distribute(wrong, "m.0", dest=str(tmp_path / "out"))
        assert {node["kind"] for node in view["nodes"].values()} == {"source-auth"}
    assert not (tmp_path / "out").exists()


_AZURE = (
    b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code><Message>Server failed'
    b" to authenticate the request.</Message><AuthenticationErrorDetail>%s</AuthenticationErrorDetail></Error>"
)
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
REFUSALS = {
    "S3, OSS, COS, OBS": (403, EXPIRED, "expired"),
    "S3's session": (400, b"<Error><Code>ExpiredToken</Code><Message>The token</Message></Error>", "expired"),
    "Google": (
        400,
        b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>x</Message></Error>",
        "expired",
    ),
    "forged": (403, b"<Error><Code>SignatureDoesNotMatch</Code><Message>x</Message></Error>", "not valid"),
    "Azure": (
        403,
        _AZURE % b"Signature not valid in the specified time frame: Start [x] - Expiry [y]",
        "expired",
    ),
    "Azure, forged": (403, _AZURE % b"Signature did not match. String to sign used was r", "not valid"),
    "something else": (
        403,
        b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
        "access denied",
    ),
}


@pytest.mark.parametrize("store", REFUSALS)
def test_what_a_store_says_of_a_signature_is_told(moto: str, store: str) -> None:  # noqa: F811
    status, body, told = REFUSALS[store]
    with Front(moto, lambda path, headers: False, status=status, body=body, kind="application/xml") as front:
        url = presigning.s3(front.url)
        with pytest.raises(SourceAuthError, match=told) as caught:
            resolve(Source(url), Credentials(), OriginSettings())
        assert len(front.asked) <= 2, "a range, and once without"
        assert url.rpartition("=")[2] not in str(caught.value)
