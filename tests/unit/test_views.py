"""What others are told of a scheduler's state."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.model import Endpoint, Host, Task
from dragonfly_ray.scheduling import views
from dragonfly_ray.scheduling.scheduler import SchedulerCore
from tests.unit.one_scheduler import PIECES, TASK, Cluster, host


def a_core(pieces: int, held: list[int]) -> SchedulerCore:
    core = SchedulerCore(Settings(), lambda task, host: b"grant")
    task = Task("t", "s", "http://h/f", "default", b"", 1, pieces, pieces, 1, False, True)
    for number, bits in enumerate(held):
        host = Host(f"h{number}", f"n{number}", (Endpoint("a", 1),))
        core.announce(m.Announce(host, (m.Held(task, bitset.to_bytes(bits, pieces)),)), 1.0)
    return core


@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 5), st.randoms(use_true_random=False))
def test_cells_are_the_shares_of_their_pieces(
    pieces: int, cells: int, hosts: int, rng: random.Random
) -> None:
    held = [rng.getrandbits(pieces) for _ in range(hosts)] + [0, bitset.full(pieces)]
    found = a_core(pieces, held).availability("t", cells)
    assert found is not None
    count, number, nodes = found
    assert (count, number) == (pieces, min(cells, pieces))
    assert set(nodes) == {f"n{i}" for i in range(len(held))}
    for index, bits in enumerate(held):
        row = nodes[f"n{index}"]
        assert len(row) == number
        for cell, value in enumerate(row):
            mine = range(cell * pieces // number, (cell + 1) * pieces // number)
            here = sum(bits >> piece & 1 for piece in mine)
            assert (value == 0) == (here == 0)
            assert (value == 255) == (here == len(mine))
            assert abs(value - 255 * here / len(mine)) <= 1


def test_a_listing_names_holders_and_leaves_out_who_has_gone() -> None:
    core = a_core(10, [bitset.full(10), 0b11111, 0])
    number: dict[str, int] = {}
    task = views.summary(core.cluster, core.tasks["t"], number)
    nodes = list(number)
    assert {nodes[n]: share for n, share in task.holders.items()} == {"n0": 1.0, "n1": 0.5}
    assert (task.whole, task.partial, task.pieces, task.active) == (1, 1, 10, 0)
    assert core.keepers("t")[:2] == ["n0", "n1"]
    core.probed("h0", "gone", 2.0)
    assert core.keepers("t")[:1] == ["n1"]
    assert views.summary(core.cluster, core.tasks["t"], {}).whole == 0
    assert core.keepers("nothing") == []
    assert core.availability("nothing", 5) is None


def test_a_watcher_hears_of_what_is_not_as_it_knows_it_and_of_an_end_at_once() -> None:
    cluster = Cluster([host(0), host(1)])
    cluster.submit([0, 1])
    core = cluster.core
    version = core.specs["s.0"].version
    assert core.news({"s.0": version}, 200.0) == (False, [])
    assert core.specs["s.0"].heartbeat == 200.0
    assert core.news({"s.0": version - 1}, 200.0) == (False, ["s.0"])
    assert core.news({"s.0": version, "unknown.0": 3}, 200.0) == (True, ["unknown.0"])
    assert core.awaited() == {"n0", "n1"}
    assert not core.over("s.0")
    cluster.resolved()
    cluster.do(core.ended(m.Ended("h0", "s.0", TASK.id, True), cluster.now)[1])
    assert core.awaited() == {"n1"}
    cluster.do(core.cancel("s.0", cluster.now))
    assert core.news({"s.0": version}, 200.0) == (True, ["s.0"])
    assert core.awaited() == set()
    assert core.over("s.0")
    assert core.over("unknown.0")


def test_the_status_tells_of_hosts_tasks_and_distributions() -> None:
    cluster = Cluster([host(0), host(1)])
    cluster.submit([0])
    cluster.resolved()
    cluster.report(0, got=(0,), parents=(("h1", 5),))
    found = cluster.core.status()
    assert found["hosts"] == {"n0": True, "n1": True}
    (task,) = found["tasks"]
    assert (task["whole"], task["partial"], task["active"], task["pieces"]) == (0, 1, 1, PIECES)
    assert [(e["parent"], e["child"], e["bytes"]) for e in task["edges"]] == [("h1", "h0", 5)]
    assert found["distributions"] == [cluster.core.view("s.0")]
