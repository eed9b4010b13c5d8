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
from dragonfly_ray.scheduling.core import SchedulerCore


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
    listed = views.summaries(core.cluster, core.tasks.values())
    (task,) = listed.tasks
    assert {listed.nodes[n]: share for n, share in task.holders.items()} == {"n0": 1.0, "n1": 0.5}
    assert (task.whole, task.partial, task.pieces, task.active) == (1, 1, 10, 0)
    assert core.keepers("t")[:2] == ["n0", "n1"]
    core.probed("h0", "gone", 2.0)
    assert core.keepers("t")[:1] == ["n1"]
    assert views.summaries(core.cluster, core.tasks.values()).tasks[0].whole == 0
    assert core.keepers("nothing") == []
    assert core.availability("nothing", 5) is None
