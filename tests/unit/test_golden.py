"""The bytes of releases, which later ones read and send: whoever changes a line of them breaks clusters under update."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.transport import protocol as p
from tests import golden

KEPT = golden.kept()
NAMES = {kind: [n for n in KEPT if n.startswith(f"{kind} ")] for kind in ("frame", "message")}


def test_every_frame_and_message_is_kept() -> None:
    """Else: `python -m tests.golden` adds those that are new, and a released one is never taken out."""
    assert set(golden.lines()) == set(KEPT)
    assert {type(frame) for frame in golden.FRAMES.values()} == set(get_args(p.Frame))


@pytest.mark.parametrize("name", NAMES["frame"])
def test_a_frame_is_sent_and_read_as_it_was(name: str) -> None:
    frame, data = golden.FRAMES[name.removeprefix("frame ")], KEPT[name]
    assert p.encode(frame) == data
    kind, length = p.decode_header(data[: p.HEADER.size])
    assert p.HEADER.size + length == len(data)
    assert p.decode(kind, data[p.HEADER.size :]) == frame


@pytest.mark.parametrize("role", ["child", "parent"])
def test_what_is_signed_is_what_it_was(role: str) -> None:
    assert golden.HANDSHAKE._data(role) == KEPT[f"handshake {role}"]


@pytest.mark.parametrize("name", NAMES["message"])
def test_a_message_is_read_in_full_and_sent_so_that_it_is_read(name: str) -> None:
    """New fields may stand beside those that were there."""
    message = m.decode(KEPT[name])
    assert type(message).__name__ == name.split()[1]
    version, said = msgspec.msgpack.decode(KEPT[name])
    now, says = msgspec.msgpack.decode(m.encode(message))
    assert now == version, "a build that is one version behind would refuse it"
    assert within(said, says), f"{said} is not in {says}"


def within(said: Any, says: Any) -> bool:
    if isinstance(said, dict):
        return isinstance(says, dict) and all(k in says and within(v, says[k]) for k, v in said.items())
    if isinstance(said, list):
        return isinstance(says, list) and all(map(within, said, says)) and len(said) <= len(says)
    return bool(said == says)
