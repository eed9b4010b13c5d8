"""The record of what became of a URL on a node, on its way from a peer to a caller."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.distribution import Distribution
from dragonfly_ray.errors import StorageFullError
from dragonfly_ray.model import Credentials
from dragonfly_ray.outcome import NAMES, TOLD, NodeOutcome, Outcome
from dragonfly_ray.remote.submission import distribution_of
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.serve.database.tables import Job as JobRow
from dragonfly_ray.serve.database.tables import JobNode as NodeRow
from dragonfly_ray.serve.database.tables import now
from dragonfly_ray.serve.jobs import presenters
from tests.unit.one_scheduler import SOURCE, TASK, Cluster, host

FULL = NodeOutcome(
    "n0",
    "failed",
    path="/d/f",
    size=1,
    seconds=2.0,
    bytes_origin=3,
    bytes_peers=4,
    bytes_object_store=5,
    bytes_cache=6,
    bytes_audit=7,
    origin_pieces="0-63,70",
    merged=True,
    written_by="n1",
    error_kind="storage-full",
    error="n0: full",
)
"""With no field as by default."""


def test_each_field_of_the_example_tells_something() -> None:
    blank = NodeOutcome("")
    assert [name for name in NAMES if getattr(FULL, name) == getattr(blank, name)] == []


def test_it_is_told_by_a_scheduler_and_heard_as_it_was() -> None:
    row = FULL.to_row()
    assert NodeOutcome.from_row("n0", json.loads(json.dumps(row))) == FULL
    assert (row["kind"], row["message"], row["bytes_small"]) == ("storage-full", "n0: full", 5)


def test_older_and_newer_schedulers_are_understood() -> None:
    row = FULL.to_row()
    older = {name: value for name, value in row.items() if name not in ("bytes_audit", "origin_pieces")}
    expected = dataclasses.replace(FULL, bytes_audit=0, origin_pieces="")
    assert NodeOutcome.from_row("n0", older) == expected
    assert NodeOutcome.from_row("n0", row | {"bytes_by_owl": 8}) == FULL


def test_what_a_peer_tells_of_an_end_is_kept_whole() -> None:
    """Every field of the record that the message has."""
    told = {told: getattr(FULL, name) for name, told in TOLD if told in m.Ended.__struct_fields__}
    state = DistributionState.new(m.DistributionSpec("s.0", SOURCE, ("n0",)), Credentials(), 0.0)
    state.end_node("n0", m.Ended("h0", "s.0", TASK.id, ok=False, **told), FULL.origin_pieces)
    assert state.nodes["n0"] == FULL
    assert state.unfinished == 0
    assert {told for _, told in TOLD} - set(told) == {"state", "origin_pieces"}


def test_what_runs_is_told_with_what_has_come_so_far() -> None:
    cluster = Cluster([host(0), host(1)])
    cluster.submit([0, 1])
    cluster.resolved()
    cluster.report(0, bytes_origin=1, bytes_peers=2, bytes_cache=3, bytes_small=4, bytes_audit=5)
    view = cluster.core.view("s.0")
    assert view is not None
    found = NodeOutcome.from_row("n0", view["nodes"]["n0"])
    assert found == NodeOutcome(
        "n0",
        "running",
        bytes_origin=1,
        bytes_peers=2,
        bytes_cache=3,
        bytes_object_store=4,
        bytes_audit=5,
    )
    assert found.bytes_done == 10


def test_a_caller_gets_all_of_it() -> None:
    outcome = Outcome.of(FULL, "host0", "http://h/f")
    for name in set(NAMES) - {"path", "error_kind", "error"}:
        assert getattr(outcome, name) == getattr(FULL, name), name
    assert (outcome.node, outcome.url, outcome.path) == ("host0", "http://h/f", Path("/d/f"))
    assert isinstance(outcome.error, StorageFullError)
    again = pickle.loads(pickle.dumps(outcome))
    assert again.to_dict() == outcome.to_dict()
    assert set(outcome.to_dict()) == {each.name for each in dataclasses.fields(Outcome)} | {"ok"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.size = 2  # type: ignore[misc]


def test_a_manager_keeps_and_tells_all_of_it() -> None:
    """Through its table and its API to a client, it is what a caller in the cluster gets."""
    values = {name: getattr(FULL, name) for name in NAMES}
    row = NodeRow(job_id="j", url_index=0, node_name="host0", **values)
    job = JobRow(id="j", urls=["http://h/f"], state="failed", started_at=now())
    told = presenters.plain(presenters.node(row, job, None))
    record: dict[str, Any] = {
        "id": "j", "urls": ["http://h/f"], "seconds": 2.0, "size": 1, "state": "failed", "error": None,
    }  # fmt: skip
    (heard,) = distribution_of(record, [told]).outcomes
    view = {"url": "http://h/f", "nodes": {"n0": FULL.to_row()}, "seconds": 2.0, "size": 1}
    (here,) = Distribution.from_views("j", [view], {"n0": "host0"}).outcomes
    assert heard.to_dict() == here.to_dict()
    assert msgspec.json.decode(msgspec.json.encode(told)) == told
