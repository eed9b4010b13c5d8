"""URLs that differ in an escape alone, at a server that tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere

RAW = 'location / { default_type application/octet-stream; return 200 "$request_uri"; }'
"""Every file holds the target of its request, byte for byte."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/g%2Fp/raw.bin", "/g/p/raw.bin"),
        ("/a%3Bb", "/a;b"),
        ("/a%2Bb?x=1", "/a+b?x=1"),
        ("/a%3Fx=1", "/a?x=1"),
        ("/a%23b", "/a"),
        ("/a%252Fb", "/a%2Fb"),
        ("/a?path=x%26y=1", "/a?path=x&y=1"),
    ],
)
def test_each_gets_its_own_bytes(tmp_path: Path, swarm: Callable[..., Swarm], one: str, other: str) -> None:
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra=RAW, real=True) as served:
        built = swarm(2)
        for number, target in enumerate((one, other, one)):
            view = built.distribute(f"{served.url}{target}", f"s{number}.0")
            assert_everywhere(view, target.encode(), 2)
