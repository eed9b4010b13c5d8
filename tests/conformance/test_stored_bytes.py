"""Objects with a `Content-Encoding` are delivered as they are stored: sizes, ranges and checksums are of those bytes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import fsspec
import httpx
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import open_reader, resolve
from tests.archives import tar_bytes
from tests.conformance.test_sources import azurite, gcs, moto  # noqa: F401, fixtures
from tests.google_front import GoogleFront
from tests.nginx import Nginx
from tests.swarm import Swarm

SETTINGS = OriginSettings(read_timeout=60.0)
SMALL = gzip.compress(b"some text that packs well, " * 100)
LARGE = gzip.compress(os.urandom(3_000_000))
"""Of several pieces."""


@dataclass
class Store:
    url: str
    options: dict[str, object]
    put: Callable[[str, bytes, str], object]
    """Name, bytes as they are stored, Content-Encoding."""

    def resolve(self, path: str, small: int = 0) -> tuple[Manifest, bytes | None]:
        found = resolve(Source(f"{self.url}/{path}"), Credentials(self.options), SETTINGS, small_limit=small)
        return found.manifest, found.content

    def read(self, path: str, first: int = 0, last: int | None = None) -> bytes:
        manifest, _ = self.resolve(path)
        table = PieceTable.of(manifest)
        source = Source(f"{self.url}/{path}")
        reader = open_reader(source, Credentials(self.options), manifest, table, SETTINGS)
        last = len(table) if last is None else last
        parts = reader.read(first, last, lambda i: memoryview(bytearray(table[i].length)), lambda n: None)
        data = b"".join(bytes(view) for _, view in parts)
        reader.close()
        return data


@pytest.fixture
def front(gcs: str) -> Iterator[GoogleFront]:  # noqa: F811
    with GoogleFront(gcs) as made:
        yield made


@pytest.fixture
def google(gcs: str, front: GoogleFront) -> Store:  # noqa: F811
    bucket = f"b{uuid4().hex[:12]}"
    files: Any = fsspec.filesystem("gs", endpoint_url=gcs, token="anon", project="p")
    files.mkdir(bucket)

    def put(name: str, data: bytes, encoding: str) -> None:
        told = {"name": f"top/{name}", **({"contentEncoding": encoding} if encoding else {})}
        parts: Any = {
            "meta": (None, json.dumps(told), "application/json"),
            "data": (None, data, "application/octet-stream"),
        }
        url = f"{gcs}/upload/storage/v1/b/{bucket}/o"
        httpx.post(url, params={"uploadType": "multipart"}, files=parts).raise_for_status()

    return Store(f"gs://{bucket}/top", {"endpoint_url": front.url, "token": "anon", "project": "p"}, put)


@pytest.fixture
def amazon(moto: str) -> Store:  # noqa: F811
    client: Any = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    bucket = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)

    def put(name: str, data: bytes, encoding: str) -> None:
        client.put_object(Bucket=bucket, Key=f"top/{name}", Body=data, ContentEncoding=encoding)

    return Store(f"s3://{bucket}/top", {"key": "k", "secret": "s", "endpoint_url": moto}, put)


@pytest.fixture
def azure(azurite: str) -> Store:  # noqa: F811
    from azure.storage.blob import BlobServiceClient, ContentSettings

    client = BlobServiceClient.from_connection_string(azurite).create_container(f"c{uuid4().hex[:12]}")

    def put(name: str, data: bytes, encoding: str) -> None:
        settings = ContentSettings(
            content_encoding=encoding or None, content_md5=bytearray(hashlib.md5(data).digest())
        )
        client.upload_blob(f"top/{name}", data, content_settings=settings)

    return Store(f"az://{client.container_name}/top", {"connection_string": azurite}, put)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Store]:
    """nginx: `.gz` beside a file is sent to those that accept it; and whatever ends in `.enc` says that it is packed."""
    extra = "gzip_static on; location ~ [.]enc$ { add_header Content-Encoding gzip; }"
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra=extra, real=True) as server:
        (server.root / "top").mkdir()

        def put(name: str, data: bytes, encoding: str) -> None:
            (server.root / "top" / (f"{name}.enc" if encoding else name)).write_bytes(data)

        yield Store(f"{server.url}/top", {}, put)


STORES = ("google", "amazon", "azure")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_file(store: Store, data: bytes) -> None:
    store.put("f", data, "gzip")
    manifest, content = store.resolve("f", small=1 << 20)
    assert manifest.size == len(data)
    assert content == (data if len(data) <= 1 << 20 else None)
    assert store.read("f") == data


def test_any_run_of_pieces(store: Store) -> None:
    store.put("f", LARGE, "gzip")
    cuts = PieceTable.of(store.resolve("f")[0]).cuts
    for first, last in ((0, 1), (1, 3), (5, len(cuts) - 1)):
        assert store.read("f", first, last) == LARGE[cuts[first] : cuts[last]]


def test_a_folder_of_packed_and_plain_files(store: Store) -> None:
    files = {
        "a": (SMALL, "gzip"),
        "b": (b"plain " * 100, ""),
        "c": (LARGE, "gzip"),
        "d": (os.urandom(900_000), ""),
    }
    for name, (data, encoding) in files.items():
        store.put(name, data, encoding)
    assert store.read("") == b"".join(data for data, _ in files.values())


def test_the_checksum_is_of_the_stored_bytes(store: Store) -> None:
    """And so it is compared with what came."""
    store.put("f", SMALL, "gzip")
    (entry,) = store.resolve("f", small=1 << 20)[0].entries
    assert entry.checksum == f"md5:{hashlib.md5(SMALL).hexdigest()}"


@pytest.mark.parametrize(
    ("encoding", "data"), [("deflate", zlib.compress(LARGE[:50_000])), ("gzip", b"not packed at all")]
)
def test_other_encodings_and_untrue_ones(store: Store, encoding: str, data: bytes) -> None:
    store.put("f", data, encoding)
    assert store.read("f") == data


def test_google_is_never_asked_to_unpack(google: Store, front: GoogleFront) -> None:
    google.put("f", LARGE, "gzip")
    google.read("f")
    assert not front.unpacked


def test_what_google_packs_on_the_way_is_asked_for_again(google: Store, front: GoogleFront) -> None:
    data = b"text " * 100_000
    google.put("f", data, "")
    front.packs = True
    assert google.read("f") == data
    assert google.read("", 0, 1) == data[: len(google.read("", 0, 1))]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_web_server_that_sends_packed_files(web: Store, data: bytes) -> None:
    packed = gzip.compress(b"plain")  # it holds the time
    web.put("f", data, "gzip")
    web.put("g", b"plain", "")
    web.put("g.gz", packed, "")
    assert web.read("f.enc") == data
    assert web.read("g") == b"plain"
    assert web.read("") == data + b"plain" + packed


def test_an_archive_that_a_web_server_calls_packed(web: Store) -> None:
    """As many do with a `.tar.gz`."""
    files = {f"{number:02}": os.urandom(50_000) for number in range(20)}
    web.put("a.tar.gz", tar_bytes(files, compression="gz"), "gzip")
    options: dict[str, object] = {"tar": {"compression": "gzip"}}
    with pytest.raises(SourceUnsupportedError, match="simplecache::"):
        Store(f"tar://::{web.url}", options, web.put).read("a.tar.gz.enc")
    inside = Store(f"tar://::simplecache::{web.url}", options, web.put)
    assert inside.read("a.tar.gz.enc") == b"".join(files.values())


def test_to_all_nodes(google: Store, tmp_path: Path) -> None:
    google.put("a", LARGE, "gzip")
    google.put("b", SMALL, "gzip")
    built = Swarm(tmp_path / "swarm", 2)
    try:
        view = built.distribute(
            f"{google.url}/", credentials=Credentials(google.options), dest=str(tmp_path / "out" / "{node}")
        )
        assert {record["state"] for record in view["nodes"].values()} == {"done"}, view["nodes"]
        for node in built.peers:
            assert (tmp_path / "out" / node / "a").read_bytes() == LARGE
            assert (tmp_path / "out" / node / "b").read_bytes() == SMALL
    finally:
        built.close()
