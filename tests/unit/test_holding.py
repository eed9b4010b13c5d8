"""Who holds what of a task: what some holder has, and what is with several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly_ray import bitset as bits
from dragonfly_ray.model import Task
from dragonfly_ray.scheduling.task import new_task

PIECES = 12
HOSTS = ("a", "b", "c", "d")
TASK = Task("t" * 64, "s", "http://origin/x", "", b"", 0, PIECES * 1024, PIECES, 1, False, True)

sets = st.integers(0, bits.full(PIECES))
hosts = st.sampled_from(HOSTS)
steps = st.one_of(
    st.tuples(st.just("hold"), hosts, sets),
    st.tuples(st.just("drop"), hosts, st.none() | sets),
    st.tuples(st.just("discard"), st.none(), sets),
    st.tuples(st.sampled_from(["ban", "shun"]), hosts, st.none()),
    st.tuples(st.just("pardon"), st.none(), st.none()),
)


@given(st.lists(steps, max_size=30))
def test_what_is_somewhere_and_what_is_with_several(drawn: list[tuple[str, str, int]]) -> None:
    """The same as counted piece by piece from who holds what; the banned do not count."""
    task = new_task(TASK, timeout=30, everybody=64, degree=40, origin="http://origin")
    for step, host, pieces in drawn:
        match step:
            case "hold" | "drop":
                getattr(task, step)(host, pieces)
            case "discard":
                task.discard(pieces)
            case "ban" | "shun":
                getattr(task, step)(host)
            case "pardon":
                task.pardon()
        held = [has for host, has in task.holders.items() if host not in task.banned]
        copies = [sum(has >> piece & 1 for has in held) for piece in range(PIECES)]
        assert task.somewhere() == bits.of(p for p, count in enumerate(copies) if count)
        assert task.passing.spread == bits.of(p for p, count in enumerate(copies) if count > 1)


@pytest.mark.parametrize("named", [(), (0, 11), (12,), (-1, 3), (10**12, 3)])
def test_pieces_that_others_name(named: tuple[int, ...]) -> None:
    assert bits.among(named, PIECES) == bits.of(set(named) & set(range(PIECES)))
