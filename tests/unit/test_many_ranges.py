"""A little of each of many files: what that costs grows with their number, not with its square."""

from __future__ import annotations

import inspect
from uuid import uuid4

import fsspec
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Manifest, Segment, Source
from dragonfly_ray.sources import range_reader, resolve


def test_entries_are_not_counted_again_for_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = f"/{uuid4().hex}"
    files = fsspec.filesystem("memory")
    files.pipe({f"{folder}/f{number:03}": b"%03d" % number for number in range(200)})
    source = Source(f"memory:/{folder}/")
    counted: list[Manifest] = []
    leaf = inspect.getattr_static(Manifest, "leaf")

    def count(manifest: Manifest) -> int:
        counted.append(manifest)
        return int(leaf.fget(manifest))

    monkeypatch.setattr(Manifest, "leaf", property(count))
    manifest = resolve(source, Credentials(), OriginSettings()).manifest
    with range_reader(source, Credentials(), OriginSettings(), manifest) as read:
        found = read([Segment(number, 1, 2) for number in range(200)])
    assert found == [(b"%03d" % number)[1:] for number in range(200)]
    assert len(counted) < 60, "each thread once, if they begin together"
