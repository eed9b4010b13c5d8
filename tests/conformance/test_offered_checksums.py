"""Checksums as real servers offer them: an ETag is an MD5 only where S3 says so."""

from __future__ import annotations

import hashlib
import os
from typing import Any
from uuid import uuid4

import boto3
import fsspec
import httpx
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Entry, Source
from dragonfly_ray.sources import resolve
from tests.conformance.test_sources import gcs, moto  # noqa: F401, fixtures

CONTENT = os.urandom(6 << 20)


@pytest.fixture
def client(moto: str) -> Any:  # noqa: F811
    return boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )


@pytest.fixture
def bucket(client: Any) -> str:
    name = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


def entry(url: str, **options: Any) -> Entry:
    return resolve(Source(url), Credentials(storage_options=options), OriginSettings()).manifest.entries[0]


def test_s3_offers_an_md5_of_an_object_in_one_part(client: Any, bucket: str, moto: str) -> None:  # noqa: F811
    client.put_object(Bucket=bucket, Key="one", Body=CONTENT)
    found = entry(f"s3://{bucket}/one", key="k", secret="s", endpoint_url=moto)
    assert found.checksum == f"md5:{hashlib.md5(CONTENT).hexdigest()}"


def test_s3_offers_the_checksum_that_was_asked_for_when_it_was_stored(
    client: Any,
    bucket: str,
    moto: str,  # noqa: F811
) -> None:
    client.put_object(Bucket=bucket, Key="sha", Body=CONTENT, ChecksumAlgorithm="SHA256")
    found = entry(f"s3://{bucket}/sha", key="k", secret="s", endpoint_url=moto)
    assert found.checksum == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.mark.parametrize("encryption", ["aws:kms"])
def test_under_other_keys_an_etag_is_no_md5(client: Any, bucket: str, moto: str, encryption: str) -> None:  # noqa: F811
    client.put_object(Bucket=bucket, Key="kms", Body=CONTENT, ServerSideEncryption=encryption)
    found = entry(f"s3://{bucket}/kms", key="k", secret="s", endpoint_url=moto)
    assert not found.checksum.startswith("md5:")


def test_an_etag_of_several_parts_is_no_md5(client: Any, bucket: str, moto: str) -> None:  # noqa: F811
    upload = client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    parts = []
    for number, part in enumerate((CONTENT[: 5 << 20], CONTENT[5 << 20 :]), 1):
        tag = client.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=number, Body=part)[
            "ETag"
        ]
        parts.append({"PartNumber": number, "ETag": tag})
    client.complete_multipart_upload(
        Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert entry(f"s3://{bucket}/parts", key="k", secret="s", endpoint_url=moto).checksum == ""


def test_google_offers_an_md5(gcs: str) -> None:  # noqa: F811
    options: dict[str, Any] = {"endpoint_url": gcs, "token": "anon", "project": "p"}
    name = f"b{uuid4().hex[:12]}"
    fsspec.filesystem("gs", **options).mkdir(name)
    parts: Any = {
        "meta": (None, '{"name": "f"}', "application/json"),
        "data": (None, CONTENT, "application/octet-stream"),
    }
    url = f"{gcs}/upload/storage/v1/b/{name}/o"
    httpx.post(url, params={"uploadType": "multipart"}, files=parts).raise_for_status()
    assert entry(f"gs://{name}/f", **options).checksum == f"md5:{hashlib.md5(CONTENT).hexdigest()}"
