"""Leases while the origin's answers take long to begin: piece by piece, without clocks."""

from __future__ import annotations

import pytest

from dragonfly_ray import bitset as bits
from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.scheduling.lease_timeouts import HEARD_S, LeaseTimeouts
from dragonfly_ray.scheduling.leases import LeaseTable
from tests.unit.one_scheduler import TASK, Cluster, started

LEASE, ANSWER = OriginSettings().lease_timeout, OriginSettings().answer_timeout


def held(cluster: Cluster, host: str) -> int:
    return cluster.core.tasks[TASK.id].leases.held_by(host)


def pass_time(cluster: Cluster, seconds: float, reports: dict[int, dict[str, float]]) -> None:
    """`reports`: what hosts say every half a second; `awaiting` grows with the time."""
    steps = round(seconds / 0.5)
    for step in range(1, steps + 1):
        cluster.now += 0.5
        cluster.core.beat("s.0", cluster.now)
        for number, said in reports.items():
            grown = {"awaiting": said["awaiting"] + step * 0.5} if "awaiting" in said else {}
            cluster.report(number, **{**said, **grown})
        cluster.do(cluster.core.tick(cluster.now))


def test_a_lease_is_kept_while_its_answer_is_waited_for() -> None:
    """Nobody knows yet how long that takes here."""
    cluster = started(2)
    before = held(cluster, "h0")
    assert before
    pass_time(cluster, 12.0, {0: {"awaiting": 0.0}, 1: {"awaiting": 0.0}})
    assert held(cluster, "h0") == before


def test_a_lease_without_a_byte_goes_where_nothing_is_waited_for() -> None:
    """A stall within an answer is no wait for one."""
    cluster = started(2)
    pass_time(cluster, LEASE + 0.5, {0: {}, 1: {"awaiting": 0.0}})
    assert not held(cluster, "h0")
    assert held(cluster, "h1")


def test_a_wait_is_as_long_as_a_request_may_wait_and_no_longer() -> None:
    cluster = started(1)
    pass_time(cluster, ANSWER, {0: {"awaiting": 0.0}})
    assert held(cluster, "h0")
    pass_time(cluster, 1.0, {0: {"awaiting": ANSWER}})
    assert not held(cluster, "h0")


def test_where_others_are_answered_at_once_a_wait_is_as_suspicious_as_a_stall() -> None:
    cluster = started(2)
    pass_time(cluster, LEASE + 0.5, {0: {"awaiting": 0.0}, 1: {"awaiting": 0.0, "answer": 0.02}})
    assert not held(cluster, "h0")


def test_where_all_answers_are_slow_nobody_is_late_for_one() -> None:
    cluster = started(2)
    pass_time(cluster, 40.0, {0: {"awaiting": 0.0}, 1: {"awaiting": 0.0, "answer": 12.0}})
    assert held(cluster, "h0")
    pass_time(cluster, 10.0, {0: {"awaiting": 40.0}, 1: {"awaiting": 0.0, "answer": 12.0}})
    assert not held(cluster, "h0"), "four times as long as usual"


def test_a_host_that_is_not_heard_of_does_not_wait() -> None:
    waits = LeaseTimeouts(60.0)
    waits.told("a", 1.0, 0.0, 10.0)
    assert waits.bears("a", 1, 2.0, 11.0)
    assert not waits.bears("a", 1, 2.0, 10.1 + HEARD_S)
    assert not waits.bears("b", 1, 2.0, 11.0)


def test_a_piece_that_is_slow_with_everybody_is_waited_for_twice_as_long_each_time() -> None:
    """Others come at once: it is not known whether this host is to blame, or this piece."""
    leases = LeaseTable(2, free=bits.full(2), timeout=2.0, waits=LeaseTimeouts(60.0))
    lasted, now = [], 0.0
    for turn in range(8):
        host = f"h{turn % 2}"
        assert leases.claim(host, 1, 2, now) == [0]
        begun = now
        while leases.held_by(host):
            now += 0.25
            leases.waits.told("quick", 0.0, 0.02, now)
            leases.waits.told(host, now - begun, 0.02, now)
            leases.expire(now)
        lasted.append(now - begun)
    assert lasted == pytest.approx([2.25, 4.25, 8.25, 16.25, 32.25, 60.25, 60.25, 60.25])


@pytest.mark.parametrize(("read", "moved"), [(0, False), (1, True)], ids=["waits", "reads slowly"])
def test_an_idle_host_takes_over_what_is_read_slowly_and_not_what_is_waited_for(
    read: int, moved: bool
) -> None:
    """Near the end, when everything is leased. Others are quick; here answers begin late."""
    cluster = started(2)
    task = cluster.core.tasks[TASK.id]
    last = next(bits.members(held(cluster, "h0")))
    task.hold("h1", task.everything & ~(1 << last))
    task.leases.done(task.everything & ~(1 << last))
    task.passing.given("h1", [1], cluster.now)
    task.passing.back("h1", [1], cluster.now + 0.1)
    assert task.passing.usual(cluster.now)
    waits = {"awaiting": 0.0, "answer": 12.0}
    pass_time(cluster, 10.0, {0: {**waits, "bytes_origin": read}, 1: {"claim": 1, "answer": 12.0}})
    assert bool(held(cluster, "h0")) != moved
    assert bool(held(cluster, "h1")) == moved


def test_slow_answers_are_asked_for_much_at_once_even_at_the_end() -> None:
    slow = LeaseTable(100, free=bits.full(8), timeout=2.0, waits=LeaseTimeouts(60.0))
    assert len(slow.claim("a", 64, 2, 0.0)) == 1
    slow.release("a", range(8))
    slow.waits.told("a", 0.0, 12.0, 0.0)
    assert len(slow.claim("a", 64, 2, 0.0)) == 4
    assert m.Report("a", "t").answer == 0.0
