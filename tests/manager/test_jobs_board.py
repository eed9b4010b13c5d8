"""Decisions without a cluster, a database or a clock."""

from __future__ import annotations

import dataclasses

import pytest

from dragonfly_ray.outcome import NodeOutcome, NodeState
from dragonfly_ray.serve.cluster import Part
from dragonfly_ray.serve.jobs.board import WINDOW, Board, Rate
from dragonfly_ray.serve.jobs.outcome_rules import Ended, verdict

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def part(index: int = 0, version: int = 1, phase: str = "running", **nodes: NodeOutcome) -> Part:
    outcomes = tuple(nodes.values())
    return Part("j", index, "https://e/x", phase, version, f"t{index}", 10 * MIB, 40, 1, None, outcomes)


def at(node: str, state: NodeState = "running", done: int = 0, **more: object) -> NodeOutcome:
    found = NodeOutcome(node, state, bytes_peers=done)
    return dataclasses.replace(found, **more)  # type: ignore[arg-type]


# --- verdicts -----------------------------------------------------------------------------------


def ended(*outcomes: tuple[str, str], cancel: bool = False) -> tuple[str, int, int, str]:
    """Each (node, kind of its error; empty: done)."""
    found = verdict(
        [Ended(node, node, not kind, kind, f"{kind}!") for node, kind in outcomes], cancel_requested=cancel
    )
    return found.state, found.nodes_done, found.nodes_failed, found.kind


@pytest.mark.parametrize(
    ("outcomes", "cancel", "expected"),
    [
        ([("a", ""), ("b", "")], False, ("succeeded", 2, 0, "")),
        ([("a", ""), ("b", "")], True, ("succeeded", 2, 0, "")),
        ([("a", ""), ("b", "stalled")], False, ("partial", 1, 1, "stalled")),
        ([("a", "stalled"), ("b", "stalled")], False, ("failed", 0, 2, "stalled")),
        # Two URLs: a node that has one of them has not everything.
        ([("a", ""), ("a", "stalled"), ("b", ""), ("b", "")], False, ("partial", 1, 1, "stalled")),
        ([("a", ""), ("a", "stalled")], False, ("failed", 0, 1, "stalled")),
        ([("a", ""), ("b", "cancelled")], True, ("cancelled", 1, 1, "cancelled")),
        ([("a", "stalled"), ("b", "cancelled")], True, ("cancelled", 0, 2, "cancelled")),
        # Nothing was there to cancel any more.
        ([("a", ""), ("b", "stalled")], True, ("partial", 1, 1, "stalled")),
        # Somebody else cancelled it on the cluster: that is no success, and was not asked for here.
        ([("a", ""), ("b", "cancelled")], False, ("partial", 1, 1, "cancelled")),
        ([("a", "x"), ("b", "y"), ("c", "y")], False, ("failed", 0, 3, "y")),
        ([], False, ("failed", 0, 0, "unknown-nodes")),
    ],
)
def test_verdicts(outcomes: list[tuple[str, str]], cancel: bool, expected: tuple[str, int, int, str]) -> None:
    assert ended(*outcomes, cancel=cancel) == expected


def test_a_reason_names_some_nodes_and_each_message_once() -> None:
    found = verdict([Ended(f"n{i}", f"n{i}", False, "k", "same") for i in range(9)], cancel_requested=False)
    assert found.message == "9 of 9 nodes failed (n0, n1, n2, …): same"


# --- rates --------------------------------------------------------------------------------------


def test_a_rate_over_the_last_moments() -> None:
    rate = Rate()
    assert rate.now(0.0) == 0.0
    for tenth in range(100):
        rate.add(tenth / 10, tenth * MIB)
    assert rate.now(10.0) == pytest.approx(10 * MIB)
    for tenth in range(100, 160):
        rate.add(tenth / 10, 99 * MIB + (tenth - 99) * 2 * MIB)
    assert rate.now(16.0) == pytest.approx(20 * MIB), "what was earlier than the window does not count"
    assert rate.now(16.0 + WINDOW + 1) == 0.0


def test_a_rate_does_not_fall_below_nothing() -> None:
    """Somebody begins anew: what was counted before is gone."""
    rate = Rate()
    rate.add(0.0, 10 * MIB)
    rate.add(1.0, 0)
    assert rate.now(1.0) == 0.0


# --- the board ----------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    found = Board(clock)
    found.track("j", 1, 2)
    return found


def test_only_what_changed_is_told(board: Board, clock: Clock) -> None:
    board.take({("j", 0): part(a=at("a"), b=at("b"))}, 1.0)
    version, everything = board.changes("j", -1) or (0, [])
    assert {n.outcome.node_id for n in everything} == {"a", "b"}
    clock.at += 1
    board.take({("j", 0): part(version=2, a=at("a"), b=at("b", done=4 * MIB))}, 1.0)
    later, changed = board.changes("j", version) or (0, [])
    assert [(n.outcome.node_id, n.bytes_done) for n in changed] == [("b", 4 * MIB)]
    assert changed[0].rate == pytest.approx(4 * MIB)
    assert changed[0].eta == pytest.approx(1.5)
    assert board.changes("j", later) == (later, [])


def test_who_stands_still_is_told_once(board: Board, clock: Clock) -> None:
    board.take({("j", 0): part(a=at("a"), b=at("b"))}, 1.0)
    clock.at += 1
    board.take({("j", 0): part(version=2, a=at("a", done=MIB), b=at("b"))}, 1.0)
    version, _ = board.changes("j", -1) or (0, [])
    clock.at += WINDOW + 1
    board.settle()
    later, changed = board.changes("j", version) or (0, [])
    assert [(n.outcome.node_id, n.rate, n.eta) for n in changed] == [("a", 0.0, None)]
    board.settle()
    assert board.changes("j", later) == (later, [])


def test_totals_of_several_urls(clock: Clock) -> None:
    board = Board(clock)
    board.track("j", 2, 2)
    board.take({("j", 0): part(0, a=at("a", "done", 10 * MIB, size=10 * MIB), b=at("b", "failed"))}, 1.0)
    totals = board.totals("j")
    assert totals is not None
    assert (totals.size, totals.nodes_done, totals.nodes_failed, totals.task_ids) == (None, 0, 1, ("t0", ""))
    board.take({("j", 1): part(1, a=at("a", "done", 2 * MIB, size=10 * MIB), b=at("b", done=MIB))}, 1.0)
    totals = board.totals("j")
    assert totals is not None
    assert (totals.size, totals.nodes_done, totals.nodes_failed) == (20 * MIB, 1, 1)
    assert totals.bytes_done == 21 * MIB, "what is done counts whole, wherever it came from"
    assert totals.bytes_peers == 13 * MIB


def test_what_a_scheduler_forgot_is_asked_again_after_a_pause(board: Board, clock: Clock) -> None:
    keys = [("j", 0)]
    assert board.known(keys) == {("j", 0): -1}
    board.take({("j", 0): part(version=7, a=at("a"))}, 1.0)
    assert board.known(keys) == {("j", 0): 7}
    board.take({("j", 0): None}, 1.0)
    assert board.version("j") == (2, True)
    assert board.known(keys) == {}
    clock.at += 2
    assert board.known(keys) == {("j", 0): -1}
    board.take({("j", 0): None}, 1.0)
    board.told("j")
    assert board.known(keys) == {("j", 0): -1}, "a scheduler that was told begins to count anew"
    board.take({("j", 0): part(version=1, phase="ended", a=at("a", "done"))}, 1.0)
    assert board.known(keys) == {}, "what has ended is not asked for"
    assert (board.version("j") or (0, True))[1] is False


def test_whoever_listens_hears_of_changes(board: Board) -> None:
    heard: list[int] = []
    end = board.listen(lambda: heard.append(1))
    board.take({("j", 0): part(a=at("a"))}, 1.0)
    assert heard == [1]
    board.take({}, 1.0)
    assert heard == [1]
    board.drop([])
    assert heard == [1, 1]
    end()
    board.track("j", 1, 1)
    board.take({("j", 0): part(a=at("a"))}, 1.0)
    assert heard == [1, 1]
    assert board.view("gone") is None
