"""When a holder is given up for its rate: next to others, and never where all are alike."""

from __future__ import annotations

import pytest

from dragonfly_ray.scheduling.stragglers import FIRST_PAUSE_S, Pauses, Transfer, too_slow, usual

MIB = 1 << 20
LINK = 50e6 / 8
"""Bytes a second of 50 Mbit/s."""


def gone_on(length: int, rate: float, seconds: float, step: float = 0.5) -> tuple[Transfer, float]:
    """A transfer at an even rate, and the time now."""
    transfer, now = Transfer(length, 100.0), 100.0
    while now < 100.0 + seconds:
        now += step
        transfer.moved(int(rate * step), now)
    return transfer, now


def given_up(transfer: Transfer, others: float, now: float, *, elsewhere: bool, waited_for: bool) -> bool:
    return transfer.measured(now) and too_slow(
        transfer.rate(now), transfer.left(now), others, elsewhere=elsewhere, waited_for=waited_for
    )


@pytest.mark.parametrize("length", [128 * 1024, 16 * MIB])
def test_a_trickle_is_given_up_where_somebody_else_has_the_piece(length: int) -> None:
    transfer, now = gone_on(length, 1000.0, 5.0)
    assert given_up(transfer, LINK, now, elsewhere=True, waited_for=False)
    assert not given_up(transfer, LINK, now, elsewhere=False, waited_for=False), "better than nothing"
    assert not given_up(transfer, 2000.0, now, elsewhere=True, waited_for=False), "all are so"


def test_nobody_is_judged_at_once() -> None:
    transfer, now = gone_on(16 * MIB, 0.0, 2.0)
    assert not given_up(transfer, LINK, now, elsewhere=True, waited_for=True)


def test_four_trickles_do_not_keep_the_buffers_that_others_wait_for() -> None:
    transfer, now = gone_on(16 * MIB, 1000.0, 5.0)
    assert given_up(transfer, usual([1000.0] * 3), now, elsewhere=False, waited_for=True)


@pytest.mark.parametrize("children", [1, 10, 40])
@pytest.mark.parametrize("at_a_time", [4, 40])
@pytest.mark.parametrize("unfair", [1.0, 0.2])
def test_links_shared_by_many_are_healthy(children: int, at_a_time: int, unfair: float) -> None:
    """Everybody at 50 Mbit/s, pieces of 16 MiB, and a child takes from so many at a time."""
    rate = LINK / max(children, at_a_time)
    transfer, now = gone_on(16 * MIB, unfair * rate, 30.0)
    waited_for = at_a_time == 4
    assert not given_up(transfer, rate, now, elsewhere=True, waited_for=waited_for)


def test_what_lay_ready_in_the_kernel_makes_no_shared_link_look_slow() -> None:
    transfer, now = gone_on(4 * MIB, LINK / 40, 10.0)
    assert not given_up(transfer, 5e9, now, elsewhere=True, waited_for=True)


def test_what_is_nearly_here_is_waited_for() -> None:
    transfer, now = gone_on(16 * MIB, 1000.0, 5.0)
    transfer.moved(16 * MIB - 10_000, now + 4)
    later = now + 4
    for _ in range(8):
        later += 1
        transfer.moved(1000, later)
    assert not given_up(transfer, LINK, later, elsewhere=True, waited_for=True)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    transfer, now = gone_on(16 * MIB, LINK / 20, 10.0)
    for _ in range(20):
        now += 1
        transfer.moved(1000, now)
    assert transfer.rate(now) < 3000.0
    assert given_up(transfer, LINK, now, elsewhere=True, waited_for=False), "it was quick once"


def test_pauses_grow_until_it_is_well_again() -> None:
    pauses = Pauses()
    assert pauses.left(0.0) == 0.0
    pauses.begin(0.0)
    assert pauses.left(10.0) == FIRST_PAUSE_S - 10.0
    pauses.begin(100.0)
    assert pauses.left(100.0) == 2 * FIRST_PAUSE_S
    pauses.end()
    pauses.begin(200.0)
    assert pauses.left(200.0) == FIRST_PAUSE_S


def test_the_usual_rate_is_no_average() -> None:
    assert usual([]) == 0.0
    assert usual([0.0, 1.0, 1000.0, 1001.0, 1e9]) == 1001.0
