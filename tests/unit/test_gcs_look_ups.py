"""What gcsfs asks beside the request: once, briefly, and nowhere that the policy of URLs does not see."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from gcsfs.extended_gcsfs import BucketType, ExtendedGcsFileSystem

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Segment, Source
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import gcs as bounds
from dragonfly_ray.sources import range_reader, resolve
from dragonfly_ray.sources.gcs import LatelySilent, bound_look_ups
from tests.conformance.test_sources import gcs  # noqa: F401, a fixture
from tests.stores import put_gcs

PRIVATE = "https://storage-mine.p.googleapis.com"


class Asked:
    """Counts what is asked by gRPC; nobody answers."""

    def __init__(self) -> None:
        self.buckets: list[str] = []

    async def never(self, bucket: str) -> BucketType:
        self.buckets.append(bucket)
        await asyncio.Event().wait()
        raise AssertionError

    async def zonal(self, bucket: str) -> BucketType:
        self.buckets.append(bucket)
        return BucketType.ZONAL_HIERARCHICAL


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def extended() -> Iterator[None]:
    """gcsfs as it is without the variable that other tests set."""
    known = fsspec.get_filesystem_class("gs")
    fsspec.register_implementation("gs", ExtendedGcsFileSystem, clobber=True)
    yield
    fsspec.register_implementation("gs", known, clobber=True)


def bucket_at(endpoint: str | None, ask: Any, *, unanswered: LatelySilent, guarded: bool = False) -> Any:
    files = ExtendedGcsFileSystem(token="anon", endpoint_url=endpoint, skip_instance_cache=True)
    files._get_bucket_type = ask
    bound_look_ups(files, guarded=guarded, unanswered=unanswered)
    return files


def kind_of(files: Any, bucket: str = "b") -> BucketType:
    found: BucketType = asyncio.run_coroutine_threadsafe(
        files._lookup_bucket_type(bucket), files.loop
    ).result(20)
    return found


def test_a_private_endpoint_that_does_not_answer_is_waited_for_briefly_and_once(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "KIND_TIMEOUT_S", 0.05)
    times = iter(range(0, 10_000, 100))
    unanswered = LatelySilent(ttl=450.0, clock=lambda: float(next(times)))
    for _ in range(2):
        files = bucket_at(PRIVATE, asked.never, unanswered=unanswered)
        assert [kind_of(files) for _ in range(3)] == [BucketType.UNKNOWN] * 3
    assert asked.buckets == ["b"]
    kind_of(bucket_at(PRIVATE, asked.never, unanswered=unanswered), "other")
    assert asked.buckets == ["b", "other"]
    for _ in range(5):
        _ = "" in unanswered  # time passes
    kind_of(bucket_at(PRIVATE, asked.never, unanswered=unanswered))
    assert asked.buckets == ["b", "other", "b"], "it is asked again after a while"


def test_an_answer_counts(asked: Asked) -> None:
    files = bucket_at(None, asked.zonal, unanswered=LatelySilent())
    assert kind_of(files) == kind_of(files) == BucketType.ZONAL_HIERARCHICAL
    assert asked.buckets == ["b"]


@pytest.mark.parametrize(("endpoint", "guarded"), [("http://127.0.0.1:9", False), (PRIVATE, True)])
def test_where_grpc_cannot_or_must_not_connect_nothing_is_asked(
    asked: Asked, endpoint: str, guarded: bool
) -> None:
    files = bucket_at(endpoint, asked.zonal, unanswered=LatelySilent(), guarded=guarded)
    assert kind_of(files) == BucketType.UNKNOWN
    assert asked.buckets == []


@pytest.mark.parametrize("policy", [None, UrlPolicy(networks=("127.0.0.0/8",))])
def test_a_requester_pays_bucket_at_an_endpoint_of_its_own_is_read_at_once(
    gcs: str,  # noqa: F811
    extended: None,
    policy: UrlPolicy | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected: list[object] = []

    async def connect(self: object) -> None:
        connected.append(self)
        raise OSError("nobody speaks gRPC here")

    monkeypatch.setattr(ExtendedGcsFileSystem, "_get_control_plane_client", connect)
    bucket = put_gcs(gcs, {"top/a": b"a" * 10, "top/b": b"b" * 300_000})
    options: dict[str, object] = {
        "endpoint_url": gcs,
        "token": "anon",
        "requester_pays": True,
        "project": "p",
    }
    source, opened = Source(f"gs://{bucket}/top/"), Credentials(storage_options=options)
    manifest = resolve(source, opened, OriginSettings(), policy=policy).manifest
    assert [entry.path for entry in manifest.entries] == ["a", "b"]
    with range_reader(source, opened, OriginSettings(), manifest, policy) as read:
        assert read([Segment(0, 0, 10), Segment(1, 1000, 10)]) == [b"a" * 10, b"b" * 10]
    assert connected == []
