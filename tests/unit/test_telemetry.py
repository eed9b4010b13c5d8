"""What is counted reaches Ray's metrics, under names that changed also by their former ones."""

from __future__ import annotations

from collections import defaultdict

import pytest

from dragonfly_ray.telemetry import COUNTERS, GAUGES, RENAMED, Telemetry


class Exported:
    """What a scrape would find."""

    def __init__(self) -> None:
        self.counters: dict[str, float] = defaultdict(float)
        self.gauges: dict[str, float] = {}

    def add(self, name: str, amount: float, tags: dict[str, str]) -> None:
        self.counters[name] += amount

    def set(self, name: str, value: float, tags: dict[str, str]) -> None:
        self.gauges[name] = value


@pytest.mark.parametrize(("name", "former"), RENAMED.items())
def test_a_renamed_metric_is_exported_by_both_names(name: str, former: str) -> None:
    exported = Exported()
    telemetry = Telemetry(exported)
    if name in COUNTERS:
        telemetry.count(name, 2)
        telemetry.count(name)
    else:
        telemetry.gauge(name, 3)
    telemetry.flush()
    found = exported.counters if name in COUNTERS else exported.gauges
    assert (found[name], found[former]) == (3, 3)


def test_a_former_name_is_nobodys_own() -> None:
    assert set(RENAMED) <= COUNTERS.keys() | GAUGES.keys()
    assert not set(RENAMED.values()) & (COUNTERS.keys() | GAUGES.keys())
