"""What object stores have and file systems do not: callers that pay, versions of one object, and odd names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import boto3
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceAuthError, SourceError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.sources import open_reader, resolve
from tests.conformance.test_slashes import Store, az, store  # noqa: F401, a fixture
from tests.conformance.test_sources import azurite, gcs, moto  # noqa: F401, fixtures
from tests.front import Front
from tests.stores import put_gcs

SETTINGS = OriginSettings(read_timeout=60.0)
LONG = os.urandom(700_000)


def read(source: Source, credentials: Credentials) -> tuple[Manifest, bytes]:
    manifest = resolve(source, credentials, SETTINGS).manifest
    table = PieceTable.of(manifest)
    reader = open_reader(source, credentials, manifest, table, SETTINGS)
    try:
        parts = reader.read(
            0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda count: None
        )
        return manifest, b"".join(bytes(view) for _, view in parts)
    finally:
        reader.close()


# --- whoever asks pays --------------------------------------------------------------------------


@pytest.fixture
def s3_client(moto: str) -> Any:  # noqa: F811
    return boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )


def s3_bucket(client: Any, **objects: bytes) -> str:
    bucket = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    for key, data in objects.items():
        client.put_object(Bucket=bucket, Key=f"set/{key}", Body=data)
    return bucket


@pytest.mark.parametrize("path", ["set/", "set/long"])
def test_requester_pays_on_s3(s3_client: Any, moto: str, path: str) -> None:  # noqa: F811
    bucket = s3_bucket(s3_client, long=LONG, short=b"short")

    def pays(path: str, headers: Mapping[str, str]) -> bool:
        return headers.get("x-amz-request-payer") == "requester"

    # One each: the library may still ask when its first refusal has been raised.
    with Front(moto, pays) as refusing, Front(moto, pays) as front:
        options: dict[str, object] = {"key": "k", "secret": "s", "endpoint_url": refusing.url}
        source = Source(f"s3://{bucket}/{path}")
        with pytest.raises(SourceAuthError):
            resolve(source, Credentials(options), SETTINGS)
        options["endpoint_url"] = front.url
        _, data = read(source, Credentials({**options, "requester_pays": True}))
        assert data == (LONG + b"short" if path == "set/" else LONG)
        assert all(passed for _, _, passed in front.asked), front.asked


@pytest.mark.parametrize("path", ["set/", "set/long"])
def test_requester_pays_on_google(gcs: str, path: str) -> None:  # noqa: F811
    bucket = put_gcs(gcs, {"set/long": LONG, "set/short": b"short"})

    def pays(path: str, headers: object) -> bool:
        return parse_qs(urlsplit(path).query).get("userProject") == ["mine"]

    with Front(gcs, pays) as refusing, Front(gcs, pays) as front:
        options: dict[str, object] = {"token": "anon", "endpoint_url": refusing.url, "project": "mine"}
        source = Source(f"gs://{bucket}/{path}")
        with pytest.raises(SourceAuthError):
            resolve(source, Credentials(options), SETTINGS)
        options["endpoint_url"] = front.url
        _, data = read(source, Credentials({**options, "requester_pays": True}))
        assert data == (LONG + b"short" if path == "set/" else LONG)
        assert all(passed for _, _, passed in front.asked), front.asked


def test_who_names_no_payer_is_told_so(gcs: str) -> None:  # noqa: F811
    """As Google's store says it."""
    bucket = put_gcs(gcs, {"set/long": LONG})
    refusal = {
        "error": {"code": 400, "message": "Bucket is a requester pays bucket but no user project provided."}
    }
    with Front(gcs, lambda path, headers: False, status=400, body=json.dumps(refusal).encode()) as front:
        options: dict[str, object] = {"token": "anon", "endpoint_url": front.url, "project": "mine"}
        with pytest.raises(SourceAuthError, match="requester_pays"):
            resolve(Source(f"gs://{bucket}/set/long"), Credentials(options), SETTINGS)
        assert len(front.asked) < 4


# --- versions of one object ---------------------------------------------------------------------


def test_each_version_of_an_object_is_a_source_of_its_own(s3_client: Any, moto: str) -> None:  # noqa: F811
    bucket = s3_bucket(s3_client)
    s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    contents = [os.urandom(len(LONG)) for _ in range(3)]
    ids = [s3_client.put_object(Bucket=bucket, Key="set/a", Body=each)["VersionId"] for each in contents]
    credentials = Credentials({"key": "k", "secret": "s", "endpoint_url": moto})
    url = f"s3://{bucket}/set/a"
    seen = set()
    for version, content in zip(ids, contents, strict=True):
        source = Source(f"{url}?versionId={version}")
        manifest, data = read(source, credentials)
        assert data == content
        assert manifest.entries[0].path == "a"
        seen.add(source_of(source.url, credentials).id)
    assert read(Source(url), credentials)[1] == contents[-1]
    seen.add(source_of(url, credentials).id)
    assert len(seen) == 4
    s3_client.delete_object(Bucket=bucket, Key="set/a")
    assert read(Source(f"{url}?versionId={ids[0]}"), credentials)[1] == contents[0], (
        "also of one that is deleted"
    )


def test_a_folder_is_of_the_newest_versions(s3_client: Any, moto: str) -> None:  # noqa: F811
    bucket = s3_bucket(s3_client)
    s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for data in (b"old", LONG):
        s3_client.put_object(Bucket=bucket, Key="set/a", Body=data)
    s3_client.put_object(Bucket=bucket, Key="set/gone", Body=b"gone")
    s3_client.delete_object(Bucket=bucket, Key="set/gone")
    manifest, data = read(
        Source(f"s3://{bucket}/set/"), Credentials({"key": "k", "secret": "s", "endpoint_url": moto})
    )
    assert [(entry.path, entry.size) for entry in manifest.entries] == [("a", len(LONG))]
    assert data == LONG


# --- names --------------------------------------------------------------------------------------

ODD = (
    "with space", " leading", "trailing ", "plus+sign", "percent%20sign", "100%", "%2F", "ünïcödé", "e\u0301", "😀",
    "q?x=1&y=2", "hash#tag", "star*", "[brackets]", "{braces}", "semi;colon", "comma,equals=", "quote'\"", "colon:x",
    "tilde~", ".hidden", "dot.", "...", "-dash", "at@sign", "dollar$", "pipe|", "<angle>", "back\\slash", "caret^`",
    "a::b", "https:x", "deep/ er/%/file",
)  # fmt: skip

_LOST = {"gs": ";", "az": "\\"}
"""What the emulator of Google's store takes for a parameter, and Azure's for a slash."""


def test_odd_but_legal_names_are_delivered(store: Store) -> None:  # noqa: F811
    names = [name for name in ODD if not any(sign in name for sign in _LOST.get(store.url[:2], ""))]
    wanted = {name: f"content of {name}".encode() for name in names}
    wanted["long &%+"] = LONG
    for name, data in wanted.items():
        store.put(f"top/{name}", data)
    assert store.read("top/") == wanted


@pytest.mark.parametrize(
    "name", ["with space", "plus+sign", "percent%20sign", "ünïcödé", "colon:x", "at@sign", "a::b"]
)
def test_an_odd_name_is_delivered_alone(store: Store, name: str) -> None:  # noqa: F811
    store.put(f"top/{name}", LONG)
    store.put("top/percent sign", b"another")
    assert store.read(f"top/{name}") == {"": LONG}


@pytest.mark.parametrize("name", ["?#", "a?", "a #"])
def test_a_name_that_a_library_takes_for_another_is_told_and_never_empty(azurite: str, name: str) -> None:  # noqa: F811
    """adlfs drops what it takes for an empty query or fragment."""
    blobs = az(azurite)
    blobs.put("top/good", b"good")
    blobs.put(f"top/{name}", LONG)
    with pytest.raises(SourceError) as caught:
        blobs.read("top/")
    assert f"({name})" in str(caught.value)
    assert blobs.read("top/", exclude=(name.replace("?", "[?]"),)) == {"good": b"good"}
