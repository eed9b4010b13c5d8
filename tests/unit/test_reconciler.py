"""One peer per node, through every way of coming and going."""

from __future__ import annotations

import itertools

from dragonfly_ray.scheduling.reconciler import (
    LONGEST_PAUSE,
    READY_TIMEOUT,
    STRIKES,
    Check,
    Kill,
    Reconciler,
    Start,
)


def test_a_hundred_nodes_get_one_peer_each() -> None:
    reconciler = Reconciler()
    nodes = [f"n{i}" for i in range(100)]
    assert reconciler.tick(nodes, 0.0) == [Start(n) for n in nodes]
    assert reconciler.tick(nodes, 0.1) == []


def test_a_node_that_leaves_loses_its_peer_and_one_that_joins_gets_one() -> None:
    reconciler = Reconciler()
    reconciler.tick(["a", "b"], 0.0)
    reconciler.ready("a", 0.1)
    assert reconciler.tick(["b", "c"], 0.2) == [Kill("a"), Start("c")]
    assert set(reconciler.peers) == {"b", "c"}


def test_a_dead_peer_is_started_again_at_once_then_with_growing_pauses() -> None:
    reconciler = Reconciler()
    reconciler.tick(["a"], 0.0)
    reconciler.ready("a", 0.0)
    reconciler.died("a", 100.0)
    assert reconciler.tick(["a"], 100.0) == [Start("a")]
    now, pauses = 100.0, []
    for _ in range(12):
        reconciler.failed("a", "no", now)
        died = now
        while Start("a") not in reconciler.tick(["a"], now):
            now += 0.1
        pauses.append(now - died)
    assert all(a <= b + 0.15 for a, b in itertools.pairwise(pauses))
    assert LONGEST_PAUSE - 1 < pauses[-1] < LONGEST_PAUSE + 1


def test_health_is_checked_one_at_a_time_and_three_strikes_replace() -> None:
    reconciler = Reconciler(interval=1.0)
    reconciler.tick(["a"], 0.0)
    reconciler.ready("a", 0.0)
    assert reconciler.tick(["a"], 0.5) == []
    assert reconciler.tick(["a"], 1.0) == [Check("a")]
    assert reconciler.tick(["a"], 2.0) == [], "the check is still under way"
    for strike in range(1, STRIKES):
        assert reconciler.unanswered("a", 2.0 + strike) == []
        assert reconciler.tick(["a"], 2.0 + strike) == [Check("a")]
    assert reconciler.unanswered("a", 9.0) == [Kill("a")]
    assert reconciler.tick(["a"], 9.0) == [Start("a")]


def test_one_answer_forgives_the_strikes() -> None:
    reconciler = Reconciler(interval=1.0)
    reconciler.tick(["a"], 0.0)
    reconciler.ready("a", 0.0)
    for now in range(1, 20):
        reconciler.tick(["a"], float(now))
        reconciler.unanswered("a", float(now))
        reconciler.tick(["a"], float(now))
        reconciler.healthy("a", float(now))
    assert reconciler.peers["a"].state == "healthy"


def test_a_start_that_hangs_is_killed() -> None:
    reconciler = Reconciler()
    reconciler.tick(["a"], 0.0)
    assert reconciler.tick(["a"], READY_TIMEOUT + 1) == [Kill("a")]
    assert Start("a") in reconciler.tick(["a"], READY_TIMEOUT + 1)


def test_late_news_of_a_node_that_left_changes_nothing() -> None:
    reconciler = Reconciler()
    reconciler.tick(["a"], 0.0)
    reconciler.tick([], 1.0)
    reconciler.ready("a", 2.0)
    reconciler.died("a", 2.0)
    assert reconciler.unanswered("a", 2.0) == []
    assert reconciler.peers == {}
