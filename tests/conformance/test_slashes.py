"""Object stores have flat names: `set`, `set/` and `set/a.bin` may be three objects. The slash of the URL decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

import boto3
import fsspec
import httpx
import pytest
from fsspec.asyn import sync

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceNotFoundError, SourceUnsupportedError, UnsafePathError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.sources import open_reader, resolve
from dragonfly_ray.sources.object_listing import below, list_objects
from dragonfly_ray.storage.manifest_paths import check_manifest
from tests.conformance.test_sources import azurite, gcs, moto  # noqa: F401, fixtures
from tests.local_server import ThreadedServer

SETTINGS = OriginSettings(read_timeout=60.0)


@dataclass
class Store:
    url: str
    """Of the bucket."""
    options: dict[str, object]
    put: Callable[[str, bytes], object]

    def source(self, path: str, **patterns: Any) -> Source:
        return Source(f"{self.url}/{path}", **patterns)

    def resolve(self, path: str, **patterns: Any) -> Manifest:
        return resolve(self.source(path, **patterns), Credentials(self.options), SETTINGS).manifest

    def read(self, path: str, **patterns: Any) -> dict[str, bytes]:
        """Of a folder: its files by their names below it; of a file: that one with an empty name."""
        manifest = self.resolve(path, **patterns)
        check_manifest(manifest)
        table = PieceTable.of(manifest)
        reader = open_reader(
            self.source(path, **patterns), Credentials(self.options), manifest, table, SETTINGS
        )
        parts = reader.read(
            0, len(table), lambda i: memoryview(bytearray(table[i].length)), lambda count: None
        )
        data = b"".join(bytes(view) for _, view in parts)
        reader.close()
        files = [(number, entry) for number, entry in enumerate(manifest.entries) if entry.kind == "file"]
        return {
            entry.path if manifest.directory else "": data[table.starts[n] : table.starts[n + 1]]
            for n, entry in files
        }


def s3(moto: str) -> Store:  # noqa: F811
    client: Any = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    bucket = f"b{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)

    def put(key: str, data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=data)

    return Store(f"s3://{bucket}", {"key": "k", "secret": "s", "endpoint_url": moto}, put)


def gs(gcs: str) -> Store:  # noqa: F811
    options: dict[str, object] = {"endpoint_url": gcs, "token": "anon", "project": "p"}
    bucket = f"b{uuid4().hex[:12]}"
    files: Any = fsspec.filesystem("gs", **options)
    files.mkdir(bucket)

    def put(key: str, data: bytes) -> None:
        parts: Any = {
            "meta": (None, json.dumps({"name": key}), "application/json"),
            "data": (None, data, "application/octet-stream"),
        }
        url = f"{gcs}/upload/storage/v1/b/{bucket}/o"
        httpx.post(url, params={"uploadType": "multipart"}, files=parts).raise_for_status()

    return Store(f"gs://{bucket}", options, put)


def az(azurite: str) -> Store:  # noqa: F811
    from azure.storage.blob import BlobServiceClient

    client = BlobServiceClient.from_connection_string(azurite).create_container(f"c{uuid4().hex[:12]}")

    def put(key: str, data: bytes) -> None:
        client.upload_blob(key, data, overwrite=True)

    return Store(f"az://{client.container_name}", {"connection_string": azurite}, put)


STORES: dict[str, tuple[str, Callable[[str], Store]]] = {
    "s3": ("moto", s3), "gs": ("gcs", gs), "az": ("azurite", az)
}  # fmt: skip


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    server, make = STORES[request.param]
    return make(request.getfixturevalue(server))


def test_the_slash_decides(store: Store) -> None:
    store.put("top/set", b"the object")
    store.put("top/set/a.bin", b"below it")
    store.put("top/set/b/c.bin", b"deeper")
    store.put("top/set2/a.bin", b"another")
    store.put("top/set-1", b"another")
    assert store.read("top/set") == {"": b"the object"}
    assert store.read("top/set/") == {"a.bin": b"below it", "b/c.bin": b"deeper"}


def test_in_the_root_of_a_bucket_too(store: Store) -> None:
    store.put("set", b"the object")
    store.put("set/a.bin", b"below it")
    assert store.read("set") == {"": b"the object"}
    assert store.read("set/") == {"a.bin": b"below it"}


def test_they_are_two_sources(store: Store) -> None:
    ids = {source_of(f"{store.url}/{path}", Credentials(store.options)).id for path in ("set", "set/")}
    assert len(ids) == 2


def test_an_empty_object_with_others_below_it_is_a_folder(store: Store) -> None:
    store.put("top/set", b"")
    store.put("top/set/a.bin", b"below it")
    for path in ("top/set", "top/set/"):
        assert store.read(path) == {"a.bin": b"below it"}
    assert store.read("top/") == {"set/a.bin": b"below it"}


def test_an_empty_object_alone_is_a_file(store: Store) -> None:
    store.put("top/set", b"")
    store.put("top/set2/a.bin", b"another")
    assert store.read("top/set") == {"": b""}
    assert store.read("top/") == {"set": b"", "set2/a.bin": b"another"}


def test_an_object_alone_is_no_folder(store: Store) -> None:
    store.put("top/set", b"the object")
    store.put("top/set2/a.bin", b"another")
    with pytest.raises(SourceNotFoundError, match="slash"):
        store.resolve("top/set/")


@pytest.mark.parametrize("path", ["top/set", "top/set/"])
def test_nothing_is_not_found(store: Store, path: str) -> None:
    store.put("top/set2/a.bin", b"another")
    with pytest.raises(SourceNotFoundError):
        store.resolve(path)


@pytest.mark.parametrize("path", ["top/set", "top/set/"])
def test_what_stands_for_a_folder_alone_is_an_empty_one(store: Store, path: str) -> None:
    store.put("top/set/", b"")
    manifest = store.resolve(path)
    assert (manifest.directory, manifest.entries) == (True, ())


def test_what_stands_for_a_folder_is_one_in_a_listing(store: Store) -> None:
    store.put("top/", b"")
    store.put("top/empty/", b"")
    store.put("top/full/", b"")
    store.put("top/full/a.bin", b"content")
    kinds = {entry.path: entry.kind for entry in store.resolve("top/").entries}
    assert kinds == {"empty": "dir", "full": "dir", "full/a.bin": "file"}


def test_an_object_beside_a_folder_of_its_name_is_never_left_out_silently(store: Store) -> None:
    store.put("top/set", b"the object")
    store.put("top/set/a.bin", b"below it")
    store.put("top/x", b"x")
    with pytest.raises(SourceUnsupportedError, match="'set'"):
        store.resolve("top/")
    assert store.read("top/", exclude=("set/*",)) == {"set": b"the object", "x": b"x"}
    assert store.read("top/", include=("x",)) == {"x": b"x"}


@pytest.mark.parametrize("store", ["s3", "az"], indirect=True)  # the emulator of Google's takes them for one
def test_names_that_a_path_does_not_keep_apart(store: Store) -> None:
    """`top//x` is no other spelling of `top/x`."""
    store.put("top/x", b"x")
    store.put("top//x", b"another")
    manifest = store.resolve("top/")
    with pytest.raises(UnsafePathError):
        check_manifest(manifest)
    assert store.read("top/", exclude=("/*",)) == {"x": b"x"}


def test_bytes_under_a_name_that_no_file_has(store: Store) -> None:
    store.put("top/set/", b"content")
    store.put("top/x", b"x")
    with pytest.raises(SourceUnsupportedError, match="'set/'"):
        store.resolve("top/")
    for exclude in ("set/", "set/*", "s*"):
        assert store.read("top/", exclude=(exclude,)) == {"x": b"x"}
    with pytest.raises(SourceUnsupportedError, match="'set/'"):
        store.resolve("top/set/")


def test_a_name_with_two_colons(store: Store) -> None:
    store.put("top/a::b", b"x")
    assert store.read("top/a::b") == {"": b"x"}
    assert store.read("top/") == {"a::b": b"x"}


def test_a_google_bucket_with_true_folders(gcs: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The emulator has none, nor the service that tells of them, so that is answered for it."""
    from gcsfs.extended_gcsfs import ExtendedGcsFileSystem

    store = gs(gcs)
    bucket = store.url.removeprefix("gs://")

    async def yes(fs: Any, bucket: str) -> bool:
        return True

    async def folders(fs: Any, path: str, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
        return [
            {"name": f"{bucket}/top/{name}", "type": "directory", "size": 0} for name in ("empty", "full")
        ]

    monkeypatch.setattr(ExtendedGcsFileSystem, "_is_bucket_hns_enabled", yes)
    monkeypatch.setattr(ExtendedGcsFileSystem, "_get_all_folders", folders)
    store.put("top/full/a.bin", b"content")
    files = ExtendedGcsFileSystem(**store.options, skip_instance_cache=True)
    found = below(sync(files.loop, list_objects, files, f"{bucket}/top", 100), f"{bucket}/top", store.url)
    assert set(found.files) == {"full/a.bin"}
    assert set(found.folders) == {"empty", "full"}


def test_of_a_web_server_too() -> None:
    """A gateway to an object store, say."""
    pages = {
        "/set": (b"the object", "application/octet-stream"),
        "/set/": (b'<h1>Index of /set/</h1><a href="../">../</a><a href="a.bin">a.bin</a>', "text/html"),
        "/set/a.bin": (b"below it", "application/octet-stream"),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data, kind = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadedServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        web = Store(f"http://127.0.0.1:{server.server_address[1]}", {}, lambda key, data: None)
        assert web.read("set") == {"": b"the object"}
        assert web.read("set/") == {"a.bin": b"below it"}
        assert web.source("set").id != web.source("set/").id
        server.shutdown()
