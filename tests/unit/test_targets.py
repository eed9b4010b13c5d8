"""What a selector that means nobody is told."""

from __future__ import annotations

import pytest

from dragonfly_ray.errors import UnknownNodesError
from dragonfly_ray.targets import MOST_SHOWN, Member, select


def refused(addresses: list[str]) -> str:
    members = [Member(f"{i:012}", address, f"w{i}") for i, address in enumerate(addresses)]
    with pytest.raises(UnknownNodesError) as caught:
        select(["nobody"], members)
    return str(caught.value)


def test_each_address_is_named_once() -> None:
    assert refused(["127.0.0.1"] * 30) == "no such nodes: nobody; alive: 127.0.0.1"


def test_more_than_one_line_holds_are_counted() -> None:
    said = refused([f"10.0.0.{i}" for i in range(MOST_SHOWN + 3)])
    assert said.endswith(f"10.0.0.{MOST_SHOWN - 1} and 3 more")
