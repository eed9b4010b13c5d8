"""Messages of other versions and of kinds that are not known: each is answered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from tests.swarm import Swarm


def packed(version: int, name: str, **fields: Any) -> bytes:
    return msgspec.msgpack.encode((version, {"type": name, **fields}))


@pytest.mark.parametrize("version", range(m.LEAST_VERSION, m.VERSION + 1))
def test_each_version_of_the_range_is_read(version: int) -> None:
    assert m.decode(packed(version, "Cancel", spec_id="s", later=1)) == m.Cancel("s")


@pytest.mark.parametrize(
    ("version", "name"),
    [(m.VERSION, "Teleport"), (m.VERSION + 1, "Cancel"), (m.LEAST_VERSION - 1, "Cancel"), (m.VERSION, "")],
)
def test_what_is_not_known_has_an_answer(version: int, name: str) -> None:
    data = packed(version, name, spec_id="s")
    answer = m.decode_or_refuse(data)
    assert answer == m.Unsupported(name, version, m.LEAST_VERSION, m.VERSION)
    assert m.decode(m.encode(answer)) == answer
    with pytest.raises(m.UnsupportedMessageError, match=f"version {version} .supported versions: 1-2"):
        m.decode(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"noise", packed(1, "Cancel"), packed(1, "Cancel", spec_id=5), msgspec.msgpack.encode((1, {})),
     msgspec.msgpack.encode((1, {"type": 7})), msgspec.msgpack.encode(("1", {"type": "Cancel"}))],
)  # fmt: skip
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        m.decode_or_refuse(data)
    assert not isinstance(caught.value, m.UnsupportedMessageError)


def test_a_name_that_is_not_known_is_not_sent_back_in_full() -> None:
    answer = m.decode_or_refuse(packed(m.VERSION, "x" * 10_000))
    assert isinstance(answer, m.Unsupported)
    assert len(answer.name) == m.MAX_NAME


def test_a_version_behind_reads_all_that_it_knows() -> None:
    """Only what is new in this version has its number."""
    assert msgspec.msgpack.decode(m.encode(m.Cancel("s")))[0] == m.LEAST_VERSION
    assert msgspec.msgpack.decode(m.encode(m.Unsupported("x")))[0] == m.VERSION


def test_a_peer_answers_what_is_not_for_it(tmp_path: Any) -> None:
    built = Swarm(tmp_path, 1)
    try:
        assert built.peers["n0"].ask(m.Cancel("s")) == m.Unsupported("Cancel")
    finally:
        built.close()
