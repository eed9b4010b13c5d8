"""How the leased pieces of a task can be read at its origin."""

from __future__ import annotations

from typing import Any

import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import PieceTable, Task
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits, stream_start
from dragonfly_ray.scheduling.download.lease_queue import LeaseQueue
from dragonfly_ray.scheduling.picker import Picker

LEAF = 10
SIZES = (25, 5, 5, 0, 40)
"""Pieces: 0 and 1 of the first entry; 2 has the rest of it, and the second; 3 the third; 4 to 7 are of the last."""


def task(**fields: Any) -> Task:
    usual = {"pieces": 8, "entries": len(SIZES), "directory": True, "ranges": True, "size": sum(SIZES)}
    return Task("t", "s", "u", "", b"", 0, **(usual | fields))


def test_they_come_from_the_settings_and_the_task() -> None:
    settings = OriginSettings(connections=3, lease_seconds=0.5, small_connections=20)
    assert LeaseLimits.of(task(ranges=False), LEAF, settings, 4) == LeaseLimits(
        connections=3, lease_seconds=0.5, leaf=LEAF, least=1, ranges=False, requests=20
    )
    assert LeaseLimits.of(task(), 0, settings).leaf == 1, "content without bytes"


@pytest.mark.parametrize(("entries", "least"), [(32, 1), (33, 4)])
def test_pieces_of_many_small_files_are_read_together(entries: int, least: int) -> None:
    assert LeaseLimits.of(task(entries=entries), LEAF, OriginSettings(), 4).least == least


def test_small_files_are_asked_for_at_once_unless_the_scheduler_says_how_many() -> None:
    limits = LeaseLimits.of(task(), LEAF, OriginSettings(connections=2, small_connections=48))
    assert LeaseQueue(Picker(8), limits).connections == 48
    assert LeaseQueue(Picker(8), limits, connections=5).connections == 5
    assert LeaseQueue(Picker(8), limits).workers == 2, "each reads one run"


@pytest.mark.parametrize(("ranges", "validator"), [(True, "none"), (False, "strong")])
def test_a_stream_begins_with_what_is_asked_for(ranges: bool, validator: str) -> None:
    table = PieceTable(SIZES, LEAF)
    assert [stream_start(task(ranges=ranges, validator=validator), table, p) for p in range(8)] == list(
        range(8)
    )


@pytest.mark.parametrize("validator", ["weak", "none"])
def test_without_ranges_and_proof_it_begins_with_the_file(validator: str) -> None:
    table = PieceTable(SIZES, LEAF)
    assert len(table) == 8
    found = [stream_start(task(ranges=False, validator=validator), table, p) for p in range(8)]
    assert found == [0, 0, 2, 3, 4, 4, 4, 4]
