"""Near the end, what is late with one reader of the origin is read by another, within a small share of the content."""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.model import SHORT_LEAF, digest
from dragonfly_ray.scheduling.origin_admission import REREAD_LEAST
from tests.unit.one_scheduler import PIECES, TASK, Cluster, started

BYTE_A_TIME = 3000
"""Bytes a second that a slow host reads."""


class Tail:
    """Three hosts; the first has `slow` pieces leased, all others are everywhere after some seconds."""

    def __init__(self, slow: int = 2, usual: float = 0.5, pace: int = BYTE_A_TIME) -> None:
        self.pace = pace
        self.cluster: Cluster = started(3)
        mine = next(d for d in self.cluster.sent(m.Deliver) if d.lease).lease
        self.cluster.report(0)
        self.held = self._lease(0)[:slow]
        self.cluster.report(0, released=self._lease(0)[slow:])
        assert mine is not None
        self.slow_read = 0
        self._others(usual)

    def _lease(self, number: int) -> list[int]:
        task = self.cluster.core.tasks[TASK.id]
        held = task.leases.held_by(f"h{number}")
        return [p for p in range(PIECES) if held >> p & 1]

    def _others(self, usual: float) -> None:
        """The second and the third read everything else and tell each other."""
        total, task = {1: 0, 2: 0}, self.cluster.core.tasks[TASK.id]
        while True:
            given: dict[int, list[int]] = {}
            for number in (1, 2):
                self.cluster.report(number, claim=4 if task.leases.free else 0, bytes_origin=total[number])
                given[number] = self._lease(number)
            if not any(given.values()):
                return
            self.pass_time(usual)
            for number, pieces in given.items():
                total[number] += len(pieces) * SHORT_LEAF
                news = tuple((p, digest(bytes([p]))) for p in pieces)
                self.cluster.report(number, got=tuple(pieces), origin=news, bytes_origin=total[number])
            for number in (1, 2):
                self.cluster.report(number, got=tuple(given[3 - number]), bytes_origin=total[number])

    def pass_time(self, seconds: float) -> None:
        """The slow host trickles on."""
        while seconds > 0:
            step = min(0.5, seconds)
            seconds -= step
            self.cluster.now += step
            self.slow_read += int(self.pace * step)
            self.cluster.report(0, bytes_origin=self.slow_read)
            self.cluster.do(self.cluster.core.tick(self.cluster.now))


def test_an_idle_host_reads_what_is_late() -> None:
    tail = Tail()
    assert len(tail.held) == 2
    first = tail.cluster.report(1, claim=1).lease
    second = tail.cluster.report(2, claim=1).lease
    assert {*first, *second} == set(tail.held), "they are late"
    assert {p for news in tail.cluster.sent(m.TaskUpdate, to=0) for p in news.revoked} == set(tail.held)
    assert not tail.cluster.report(1, claim=1).lease, "nothing is left"


def test_nobody_is_late_where_all_take_as_long() -> None:
    tail = Tail(usual=30.0)
    task = tail.cluster.core.tasks[TASK.id]
    for piece in tail.held:  # given again, just now
        task.leases.release("h0", [piece])
        assert task.leases.claim("h0", 1, 3, tail.cluster.now, urgent=[piece]) == [piece]
    tail.pass_time(20.0)
    assert not tail.cluster.report(1, claim=1).lease


def test_who_was_given_much_and_comes_to_it_loses_nothing() -> None:
    """However long ago the lease was given that it is at."""
    tail = Tail(slow=8, pace=8 * SHORT_LEAF)
    tail.pass_time(10.0)
    assert not tail.cluster.report(1, claim=1).lease


def test_what_a_late_host_comes_to_last_is_read_first_by_others() -> None:
    tail = Tail(slow=3)
    assert tail.cluster.report(1, claim=1).lease == (tail.held[-1],)


def test_no_more_is_read_in_vain_than_a_small_share() -> None:
    tail = Tail()
    task = tail.cluster.core.tasks[TASK.id]
    task.reread = max(REREAD_LEAST, 0.01 * TASK.size)
    assert not tail.cluster.report(1, claim=1).lease
    task.reread = 0.0
    assert tail.cluster.report(1, claim=1).lease
    assert 0 < task.reread <= SHORT_LEAF
