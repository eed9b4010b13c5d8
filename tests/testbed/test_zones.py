"""Peers without Ray in zones of real links: what the bench of zones stands on."""

from __future__ import annotations

import pytest

from dragonfly_ray.config import Settings
from tests.benchmarks.zones import MIB, Plan, ZoneBed, measure
from tests.testbed import network

WHY_NOT = network.available()
pytestmark = [pytest.mark.testbed, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "never")]


def test_every_host_gets_it_and_the_zone_links_count_it() -> None:
    plan = Plan(zones=2, size=8 * MIB, hosts=4)
    with ZoneBed(plan) as bed:
        one = measure(bed, 0, Settings())
        assert 1.0 <= one.origin < 1.01  # a look at it takes a byte
        (into,) = one.into
        assert 1.0 <= into < 4.0  # at least once, or the link was passed by
    assert not network.namespaces()
