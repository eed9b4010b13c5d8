"""Content that changes and says nothing of it, on a real cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import dragonfly_ray as d
from tests.cluster.conftest import LocalCluster
from tests.origins import Behaviour, ScriptedOrigin

pytestmark = pytest.mark.cluster


CASES = {
    "small, no version": (50_000, Behaviour(etag="")),
    "small, one version": (50_000, Behaviour()),
    "small, no length": (50_000, Behaviour(etag="", ranges=False, length=False)),
    "no length": (1_000_000, Behaviour(etag="", ranges=False, length=False)),
}


@pytest.mark.parametrize(("size", "behaviour"), CASES.values(), ids=CASES)
def test_content_that_changes_without_a_new_version_is_delivered_at_once(
    cluster: LocalCluster, size: int, behaviour: Behaviour, tmp_path: Path
) -> None:
    """To one node, to another, to all: what was delivered stays, and each has what is there now."""
    first, second, third = (os.urandom(size) for _ in range(3))
    one, other = cluster.node_ids[:2]
    with ScriptedOrigin(behaviour) as origin:
        for content, nodes, name in ((first, [one], "a"), (second, [other], "b"), (third, "all", "c")):
            origin.behaviour.content = content
            done = d.submit(origin.url, nodes, dest=tmp_path / name / "{node}").result(60.0)
            for path in done.paths.values():
                assert path.read_bytes() == content
        assert (tmp_path / "a" / one).read_bytes() == first
        assert (tmp_path / "b" / other).read_bytes() == second
