"""One object by several presigned URLs: it leaves the origin once, and each signature opens it for its holder alone."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.model import Credentials
from dragonfly_ray.source_identity import source_of
from tests import presigning
from tests.origins import Behaviour
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere, kinds, patient

CONTENT = os.urandom(6 << 20)
PROOFS = 64 * 1024
"""Bytes that looks and proofs may take."""


@pytest.fixture
def origin() -> Iterator[presigning.SigningOrigin]:
    with presigning.SigningOrigin(Behaviour(CONTENT)) as made:
        yield made


def bytes_of(view: dict[str, Any], what: str) -> int:
    return sum(record[what] for record in view["nodes"].values())


def test_another_signature_finds_what_the_first_one_fetched(
    origin: presigning.SigningOrigin, swarm: Callable[..., Swarm], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="dragonfly_ray")
    built = swarm(2, settings=patient())
    first, second = (presigning.s3(origin.url, who) for who in ("alice", "bob"))
    assert_everywhere(built.distribute(first, "a.0"), CONTENT, 2)
    view = built.distribute(second, "b.0")
    assert_everywhere(view, CONTENT, 2)
    assert bytes_of(view, "bytes_origin") == 0
    assert bytes_of(view, "bytes_cache") == 2 * len(CONTENT)
    assert len(CONTENT) <= origin.sent <= len(CONTENT) + PROOFS
    assert any("bob" in query for query in origin.queries), "bob's own URL is asked, too"
    with built.scheduler.changed:
        held = built.scheduler.core.where(source_of(presigning.s3(origin.url, "carol"), Credentials()).id)
    assert set(held) == {"n0", "n1"}
    shown = f"{view} {caplog.text}"
    for secret in ("session-alice", "session-bob", *(url.rpartition("=")[2] for url in (first, second))):
        assert secret not in shown


@pytest.mark.parametrize("wrong", ["forged", "expired", "unsigned"])
def test_whose_signature_is_not_valid_gets_nothing_that_is_held(
    origin: presigning.SigningOrigin, swarm: Callable[..., Swarm], tmp_path: Path, wrong: str
) -> None:
    built = swarm(2)
    assert_everywhere(built.distribute(presigning.s3(origin.url, "alice"), "a.0"), CONTENT, 2)
    url = presigning.s3(origin.url, "mallory", expires=100)
    if wrong == "forged":
        url = url.replace("X-Amz-Signature=", "X-Amz-Signature=0")
    elif wrong == "unsigned":
        url = url.partition("?")[0]
    else:
        origin.now = lambda: time.time() + 101
    view = built.distribute(url, "m.0", dest=str(tmp_path / "out" / "{node}"))
    assert set(kinds(view).values()) == {"source-auth"}
    assert not (tmp_path / "out").exists()
    assert origin.refused


def test_a_signature_that_expires_half_way_ends_it_and_a_fresh_one_goes_on(
    origin: presigning.SigningOrigin, swarm: Callable[..., Swarm], tmp_path: Path
) -> None:
    built = swarm(2)
    url = presigning.s3(origin.url, "alice", expires=100)
    start = time.time()
    origin.now = lambda: start + (0 if origin.sent < len(CONTENT) // 2 else 200)
    dest = tmp_path / "out" / "{node}"
    view = built.distribute(url, "a.0", dest=str(dest))
    assert set(kinds(view).values()) == {"source-auth"}
    assert "X-Amz-Signature" not in str(view).replace("X-Amz-Signature=***", "")
    assert not (tmp_path / "out").exists()
    sent = origin.sent
    assert sent >= len(CONTENT) // 2
    origin.now = time.time
    view = built.distribute(presigning.s3(origin.url, "alice", expires=101), "a.1", dest=str(dest))
    assert set(kinds(view).values()) == {""}
    for node in ("n0", "n1"):
        assert (tmp_path / "out" / node).read_bytes() == CONTENT
    assert origin.sent - sent < len(CONTENT), "what had come is not fetched again"


def test_while_one_signature_expires_another_goes_on(
    origin: presigning.SigningOrigin, swarm: Callable[..., Swarm]
) -> None:
    built = swarm(2)
    start = time.time()
    short = presigning.s3(origin.url, "alice", expires=100)
    long = presigning.s3(origin.url, "bob", expires=1000)
    origin.behaviour.pace = 2e6
    origin.now = lambda: start + (0 if origin.sent < len(CONTENT) // 4 else 200)
    built.submit(short, "a.0", nodes=["n0"])
    built.submit(long, "b.0", nodes=["n1"])
    assert_everywhere(built.wait("b.0"), CONTENT, 1)
    assert set(kinds(built.wait("a.0")).values()) <= {"", "source-auth"}
