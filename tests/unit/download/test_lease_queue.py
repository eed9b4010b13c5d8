"""What one peer does with its leases, before it reads anything."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dragonfly_ray.backoff import DEFAULT_RETRY_AFTER_S
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits
from dragonfly_ray.scheduling.download.lease_queue import (
    FIRST_BACKOFF_S,
    LAST_WAIT_S,
    LEAST_OFFERED,
    LEAST_WAIT_S,
    MAX_BACKOFF_S,
    MAX_RUN,
    LeaseQueue,
)
from dragonfly_ray.scheduling.lease_timeouts import SLOW_S
from dragonfly_ray.scheduling.picker import Picker

PIECES = 200
LIMITS = LeaseLimits(connections=2, lease_seconds=0.2, leaf=1000)


@pytest.fixture
def picker() -> Picker:
    return Picker(PIECES, seed=1)


@pytest.fixture
def leases(picker: Picker) -> LeaseQueue:
    return LeaseQueue(picker, LIMITS)


def test_what_waits_for_long_is_given_back_where_others_are_quick(picker: Picker, leases: LeaseQueue) -> None:
    leases.leased([1, 2, 3], 0.0)
    assert leases.replied(-1, 0.1, 0.0) == []
    later = LEAST_WAIT_S + 0.1
    assert leases.replied(-1, 1.0, later) == [], "others take as long"
    leases.leased([4], later)
    assert leases.replied(-1, 0.1, later) == [1, 2, 3]
    picker.joined("parent", 0b1110)
    assert picker.offered() == 3, "anybody may give them"


def test_what_cannot_be_read_from_any_place_on_is_kept(picker: Picker) -> None:
    leases = LeaseQueue(picker, LeaseLimits(2, 0.2, 1000, ranges=False))
    leases.leased(range(PIECES), 0.0)
    assert leases.replied(0, 0.1, 100.0) == []
    assert leases.next_run(0, 100.0) == range(PIECES), "in one stream"


def test_at_the_end_nothing_waits_behind_what_is_being_read(leases: LeaseQueue) -> None:
    leases.leased([1, 2], 0.0)
    assert leases.replied(1, 0.0, LAST_WAIT_S + 0.01) == []
    assert leases.replied(0, 0.0, LAST_WAIT_S + 0.01) == [1, 2]


@pytest.mark.parametrize(("left", "told"), [(0, True), (3, True), (PIECES, False)])
def test_near_the_end_whoever_is_idle_says_so_at_once(leases: LeaseQueue, left: int, told: bool) -> None:
    assert not leases.ended(0), "it had nothing"
    leases.leased([1], 0.0)
    leases.replied(left, 0.0, 0.0)
    assert leases.next_run(0, 0.0) == range(1, 2)
    assert leases.ended(0) == told
    assert not leases.ended(0), "once"


def test_one_connection_is_enough_while_neighbours_offer_plenty(picker: Picker, leases: LeaseQueue) -> None:
    alone = leases.appetite(0.0)
    picker.joined("parent", (1 << LEAST_OFFERED) - 1)
    assert leases.appetite(0.0) == alone
    picker.joined("parent", (1 << 2 * LEAST_OFFERED) - 1)
    assert 0 < leases.appetite(0.0) < alone
    leases.leased([100, 102], 0.0)
    assert leases.next_run(0, 0.0) == range(100, 101)
    assert leases.next_run(1, 0.0) is None
    for _ in range(2 * LEAST_OFFERED):
        picker.pick("parent", 1, 0.0)
    assert leases.next_run(1, 0.0) == range(102, 103), "all of it is on its way"


def test_as_much_is_claimed_as_is_read_in_the_time_of_a_lease(leases: LeaseQueue) -> None:
    leases.measured(100_000, 1.0, 0.5)
    assert leases.rate == 100_000
    assert leases.appetite(0.0) == 2 * 20 + 2, "two workers' lease, and two that are idle"
    assert leases.appetite(0.0, SLOW_S + 1) == 2 * MAX_RUN + 2, (
        "an answer that begins late is worth a longer request"
    )
    leases.leased(range(10), 0.0)
    assert leases.appetite(0.0) == 2 * 20 + 2 - 10
    leases.replied(8, 0.0, 0.0)
    assert leases.appetite(0.0) == 0, "near the end nothing ahead"


def test_what_is_leased_is_shared_among_idle_workers_in_consecutive_runs(leases: LeaseQueue) -> None:
    leases.measured(1_000_000, 1.0, 1.0)
    leases.leased([4, 5, 6, 9, 10, 11], 0.0)
    assert leases.next_run(0, 0.0) == range(4, 7)
    assert leases.next_run(1, 0.0) == range(9, 12)
    assert leases.next_run(2, 0.0) is None


def test_a_failing_origin_is_left_alone_twice_as_long_each_time(leases: LeaseQueue) -> None:
    leases.leased([1], 0.0)
    now, waits = 0.0, []
    for _ in range(8):
        leases.failed(now)
        wait = leases.pause(now)
        assert wait is not None
        assert leases.next_run(0, now) is None
        assert leases.appetite(now) == 0
        waits.append(wait)
        now += wait
    assert waits[:3] == pytest.approx([FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S])
    assert waits[-1] == pytest.approx(MAX_BACKOFF_S)
    leases.read()
    leases.failed(now)
    assert leases.pause(now) == pytest.approx(FIRST_BACKOFF_S), "it was well meanwhile"


@pytest.mark.parametrize(("said", "pause"), [(30.0, 30.0), (0.0, 0.0), (None, DEFAULT_RETRY_AFTER_S)])
def test_a_busy_origin_is_left_alone_for_as_long_as_it_says(
    leases: LeaseQueue, said: float | None, pause: float
) -> None:
    leases.leased([1], 0.0)
    assert leases.busy(5.0, said) == pause, "as others are told"
    assert leases.held_off(4.99 + pause)
    assert not leases.held_off(5.0 + pause)
    leases.failed(100.0)
    assert leases.pause(100.0) == pytest.approx(FIRST_BACKOFF_S), "it did not fail"


def test_what_somebody_else_reads_is_neither_begun_nor_gone_on_with(
    picker: Picker, leases: LeaseQueue
) -> None:
    leases.measured(10_000, 1.0, 1.0)
    leases.leased([1, 2, 3, 7], 0.0)
    assert leases.next_run(0, 0.0) == range(1, 3)
    leases.revoked([1, 3])
    assert not leases.unwanted(0), "a part of it is still its own"
    leases.revoked([2])
    assert not leases.unwanted(0), "told by itself, the other is still its own"
    picker.got(1)
    leases.revoked([2])
    assert leases.unwanted(0)
    leases.ended(0, [2])
    picker.joined("parent", 0b1100)
    assert picker.offered() == 2, "free for anybody"
    assert leases.next_run(0, 0.0) == range(7, 8)


class Leases(RuleBasedStateMachine):
    """Whatever happens in whatever order: no piece is read twice at once, and none that is not leased."""

    def __init__(self) -> None:
        super().__init__()
        self.picker = Picker(32, seed=1)
        self.queue = LeaseQueue(self.picker, LeaseLimits(3, 0.2, 1000))
        self.now = 0.0
        self.leased: set[int] = set()
        self.runs: dict[int, range] = {}

    @rule(pieces=st.sets(st.integers(0, 31)))
    def lease(self, pieces: set[int]) -> None:
        news = sorted(pieces - {p for run in self.runs.values() for p in run})  # some maybe once more
        self.queue.leased(news, self.now)
        self.leased.update(news)

    @rule(worker=st.integers(0, 2))
    def begin(self, worker: int) -> None:
        if worker in self.runs:
            return
        run = self.queue.next_run(worker, self.now)
        if run is None:
            assert not self.leased or self.queue.pause(self.now) is not None
            return
        assert self.leased.issuperset(run)
        self.leased.difference_update(run)
        self.runs[worker] = run

    @rule(worker=st.integers(0, 2), read=st.booleans())
    def finish(self, worker: int, read: bool) -> None:
        run = self.runs.pop(worker, range(0))
        for piece in run if read else ():
            self.picker.got(piece)
        if read and run:
            self.queue.read()
            self.queue.measured(1000 * len(run), 0.01, 0.01)
        self.queue.ended(worker, () if read else run)

    @rule(pieces=st.sets(st.integers(0, 31)))
    def revoke(self, pieces: set[int]) -> None:
        self.queue.revoked(pieces)
        self.leased -= pieces

    @rule(left=st.integers(-1, 5), usual=st.sampled_from([0.0, 0.05, 1.0]))
    def reply(self, left: int, usual: float) -> None:
        self.leased.difference_update(self.queue.replied(left, usual, self.now))

    @rule(seconds=st.floats(0, 1))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def fail(self) -> None:
        self.queue.failed(self.now)

    @invariant()
    def agrees(self) -> None:
        self.queue.validate()
        assert self.queue.waiting == len(self.leased)
        assert self.queue.appetite(self.now) >= 0


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLeases = Leases.TestCase
