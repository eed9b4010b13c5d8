"""Slow hosts read little from the origin while quick ones read too."""

from __future__ import annotations

from dragonfly_ray import bitset as bits
from dragonfly_ray.scheduling.relay_latency import FIRST, RelayLatency

UNREAD, READ = 500, 500


def reads(passing: RelayLatency, host: str, pieces: range, start: float, takes: float) -> None:
    """`host` is given the pieces at `start`, and somebody has them from it `takes` seconds later."""
    passing.given(host, list(pieces), start)
    passing.spread |= bits.of(pieces)
    passing.room(host, UNREAD, READ, start + takes)


def two(slow_takes: float) -> RelayLatency:
    """A quick host and another one, each of which has read 20 pieces."""
    passing = RelayLatency()
    for number in range(10):
        now = float(number)
        reads(passing, "quick", range(4 * number, 4 * number + 2), now, 0.1)
        reads(passing, "slow", range(4 * number + 2, 4 * number + 4), now, slow_takes)
    passing.given("quick", [900], 10.0)
    return passing


def test_hosts_that_are_alike_read_alike() -> None:
    passing = two(slow_takes=0.12)
    assert passing.room("slow", UNREAD, READ, 10.1) > FIRST
    assert passing.room("quick", UNREAD, READ, 10.1) > FIRST


def test_a_slow_host_has_few_pieces_at_a_time() -> None:
    passing = two(slow_takes=0.9)
    assert passing.room("slow", UNREAD, READ, 10.1) == FIRST
    passing.given("slow", list(range(100, 100 + FIRST)), 10.1)
    assert passing.room("slow", UNREAD, READ, 10.2) == 0
    assert passing.room("quick", UNREAD, READ, 10.2) > 0


def test_a_slow_host_reads_nothing_towards_the_end() -> None:
    passing = two(slow_takes=0.9)
    assert passing.room("slow", 100, 900, 10.1) == 0
    assert passing.room("quick", 100, 900, 10.1) > 0


def test_a_host_that_was_slow_at_first_is_tried_again() -> None:
    passing = two(slow_takes=0.9)
    unread, read = 250, 750  # 3.4 seconds are left: more than twice what it takes, less than four times
    assert passing.room("slow", unread, read, 10.1) == 1
    for number in range(12):
        now = 10.2 + number / 5
        reads(passing, "quick", range(300 + 2 * number, 301 + 2 * number), now, 0.1)
        reads(passing, "slow", range(301 + 2 * number, 302 + 2 * number), now, 0.1)
    assert passing.room("slow", unread, read, 12.6) > 1, "and believed"


def test_before_anything_is_known_nobody_is_held_back() -> None:
    passing = RelayLatency()
    passing.given("new", [0, 1], 0.0)
    passing.given("other", [2, 3], 0.0)
    assert passing.room("new", UNREAD, 0, 0.1) == UNREAD


def test_a_newcomer_that_takes_its_time_has_few_pieces() -> None:
    passing = two(slow_takes=0.1)
    passing.given("new", [960], 9.0)
    assert passing.room("new", UNREAD, READ, 10.1) == FIRST - 1


def test_a_piece_that_nobody_fetches_counts_before_it_arrives() -> None:
    passing = two(slow_takes=0.1)
    passing.given("slow", [950], 10.0)
    assert passing.room("slow", UNREAD, READ, 10.1) > FIRST
    for tenth in range(10):
        passing.given("quick", [951 + tenth], 10.1 + tenth / 10)
    assert passing.room("slow", UNREAD, READ, 11.0) < FIRST


def test_whoever_reads_alone_reads_what_it_likes() -> None:
    passing = two(slow_takes=0.9)
    assert passing.room("slow", UNREAD, READ, 11.0) == UNREAD
    alone = RelayLatency()
    alone.given("only", list(range(50)), 0.0)
    assert alone.room("only", UNREAD, READ, 5.0) == UNREAD


def test_what_was_given_back_is_not_waited_for() -> None:
    passing = two(slow_takes=0.1)
    passing.given("slow", [950], 10.0)
    passing.back("slow", [950], 10.1)
    passing.given("quick", [951], 10.9)
    assert passing.room("slow", UNREAD, READ, 11.0) > FIRST


def test_who_gives_back_what_it_did_not_come_to_is_slow() -> None:
    passing = two(slow_takes=0.1)
    passing.given("slow", [950, 951], 10.0)
    passing.back("slow", [950, 951], 11.0)
    passing.given("quick", [952], 10.9)
    assert passing.room("slow", UNREAD, READ, 11.0) <= FIRST
