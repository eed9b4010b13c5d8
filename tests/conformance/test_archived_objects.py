"""Objects that a store keeps but does not give out: whoever wants them is told so, and which one it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient, StandardBlobTier

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceArchivedError, SourceAuthError
from dragonfly_ray.model import Credentials, Segment, Source
from dragonfly_ray.sources import Resolution, range_reader, resolve
from tests import presigning
from tests.conformance.test_sources import azurite, gcs, moto  # noqa: F401, fixtures
from tests.stores import put_gcs
from tests.swarm import Swarm

CONTENT = os.urandom(400_000)


class Bucket:
    """Of S3: `set/a` lies there to be read, `set/b` as a test wants it."""

    def __init__(self, endpoint: str) -> None:
        self.name, self.endpoint = f"b{uuid4().hex[:12]}", endpoint
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        self.client.create_bucket(Bucket=self.name)
        self.put("set/a")
        self.credentials = Credentials({"key": "k", "secret": "s", "endpoint_url": endpoint})

    def put(self, key: str, storage_class: str = "STANDARD") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=CONTENT, StorageClass=storage_class)

    def source(self, path: str, **options: Any) -> Source:
        return Source(f"s3://{self.name}/{path}", **options)

    def resolve(self, path: str, small: int = 0, **options: Any) -> Resolution:
        return resolve(self.source(path, **options), self.credentials, OriginSettings(), small_limit=small)


@pytest.fixture
def bucket(moto: str) -> Bucket:  # noqa: F811
    return Bucket(moto)


@pytest.mark.parametrize("kept", ["GLACIER", "DEEP_ARCHIVE"])
@pytest.mark.parametrize("path", ["set/b", "set/"])
def test_an_archived_object_is_named_before_anything_is_read(bucket: Bucket, path: str, kept: str) -> None:
    bucket.put("set/b", kept)
    with pytest.raises(SourceArchivedError) as caught:
        bucket.resolve(path, small=1 << 20)
    text = str(caught.value)
    assert kept in text
    assert "restore" in text
    assert "storage_options" not in text
    assert f"{bucket.name}/set/" in text
    assert "b" in text.partition(": archived")[0].rpartition("/")[2]
    assert caught.value.kind == "source-archived"


def test_what_is_left_out_may_be_archived(bucket: Bucket) -> None:
    bucket.put("set/b", "GLACIER")
    assert [e.path for e in bucket.resolve("set/", exclude=("b",)).manifest.entries] == ["a"]


@pytest.mark.parametrize("kept", ["STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"])
def test_other_classes_are_read(bucket: Bucket, kept: str) -> None:
    bucket.put("set/b", kept)
    assert bucket.resolve("set/b", small=1 << 20).content == CONTENT
    assert len(bucket.resolve("set/").manifest.entries) == 2


def test_what_has_been_restored_is_read(bucket: Bucket) -> None:
    bucket.put("set/b", "GLACIER")
    bucket.client.restore_object(Bucket=bucket.name, Key="set/b", RestoreRequest={"Days": 1})
    assert bucket.resolve("set/b", small=1 << 20).content == CONTENT
    manifest = bucket.resolve("set/").manifest
    with range_reader(bucket.source("set/"), bucket.credentials, OriginSettings(), manifest) as read:
        assert read([Segment(1, 1000, 10)]) == [CONTENT[1000:1010]]


def test_one_that_is_archived_after_it_was_looked_at_is_named_when_it_is_read(bucket: Bucket) -> None:
    bucket.put("set/b")
    manifest = bucket.resolve("set/").manifest
    bucket.put("set/b", "DEEP_ARCHIVE")
    with (
        pytest.raises(SourceArchivedError, match=r"\(b\): archived .*DEEP_ARCHIVE"),
        range_reader(bucket.source("set/"), bucket.credentials, OriginSettings(), manifest) as read,
    ):
        read([Segment(1, 0, 100)])


def test_a_distribution_says_so_at_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("set/b", "GLACIER")
    with contextlib.closing(Swarm(tmp_path, 2)) as swarm:
        view = swarm.distribute(f"s3://{bucket.name}/set/", credentials=bucket.credentials)
    for node in view["nodes"].values():
        assert node["kind"] == "source-archived"
        assert "(b): archived (storage class GLACIER)" in node["message"]


def test_by_a_presigned_url(bucket: Bucket) -> None:
    bucket.put("set/b", "GLACIER")
    url = presigning.s3(bucket.endpoint, Bucket=bucket.name, Key="set/b")
    with pytest.raises(SourceArchivedError, match="GLACIER"):
        resolve(Source(url), Credentials(), OriginSettings())
    with pytest.raises(SourceAuthError):
        resolve(Source(url.partition("?")[0]), Credentials(), OriginSettings())


@pytest.fixture
def blob(azurite: str) -> Callable[[], tuple[str, str]]:  # noqa: F811
    service = BlobServiceClient.from_connection_string(azurite)
    if not service.get_container_client("container").exists():
        service.create_container("container")
    made = service.get_blob_client("container", f"{uuid4().hex}.bin")
    made.upload_blob(CONTENT)
    made.set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    return lambda: (service.url.rstrip("/"), str(made.blob_name))


def test_azures_archive_tier(azurite: str, blob: Callable[[], tuple[str, str]]) -> None:  # noqa: F811
    endpoint, name = blob()
    credentials = Credentials({"connection_string": azurite})
    source = Source(f"abfs://container/{name}")
    with pytest.raises(SourceArchivedError, match=f"{name}: archived .*Archive"):
        resolve(source, credentials, OriginSettings(), small_limit=1 << 20)
    manifest = resolve(source, credentials, OriginSettings()).manifest
    with (
        pytest.raises(SourceArchivedError, match="archived"),
        range_reader(source, credentials, OriginSettings(), manifest) as read,
    ):
        read([Segment(0, 0, 100)])
    with pytest.raises(SourceArchivedError, match="archived"):
        resolve(Source(presigning.azure(endpoint, name=name)), Credentials(), OriginSettings())


def test_googles_archive_class_is_read(gcs: str) -> None:  # noqa: F811
    bucket = put_gcs(gcs, {"set/b": CONTENT}, storageClass="ARCHIVE")
    credentials = Credentials({"endpoint_url": gcs, "token": "anon"})
    source = Source(f"gs://{bucket}/set/b")
    assert resolve(source, credentials, OriginSettings(), small_limit=1 << 20).content == CONTENT
