"""Whom a single reader of the origin tells of which piece."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly_ray import bitset as bits
from dragonfly_ray.scheduling.download.superseed import AHEAD, SuperSeeder


def told(announcer: SuperSeeder, now: float = 0.0) -> list[tuple[str, int]]:
    """(neighbour, piece) of what is due, by piece."""
    due = announcer.due(now)
    return sorted(
        ((h, p) for h, pieces in due.items() for p in bits.members(pieces)), key=lambda each: each[1]
    )


def test_each_fresh_piece_is_told_to_one_neighbour_in_turn() -> None:
    announcer = SuperSeeder(6)
    for host in "abc":
        announcer.joined(host)
    announcer.fresh(range(4))
    assert told(announcer) == [("a", 0), ("b", 1), ("c", 2), ("a", 3)]
    assert not told(announcer), "nobody hears of anything twice"
    assert announcer.may_ask("a") == bits.of([0, 3])


def test_not_more_is_told_ahead_than_the_link_can_use() -> None:
    announcer = SuperSeeder(100)
    for host in "abcd":
        announcer.joined(host)
    announcer.fresh(range(100))
    assert len(told(announcer)) == AHEAD
    announcer.has("d", 1 << 0)
    assert [piece for _, piece in told(announcer)] == [AHEAD]


def test_once_every_piece_is_given_everybody_may_know_everything() -> None:
    announcer = SuperSeeder(2)
    announcer.joined("a")
    announcer.joined("b")
    announcer.fresh([0, 1])
    assert told(announcer) == [("a", 0), ("b", 1)]
    announcer.has("a", 0b01)
    before = announcer.over
    announcer.has("b", 0b10)
    assert (before, announcer.over) == (False, True)
    assert told(announcer) == [("b", 0), ("a", 1)]


def test_what_only_a_lost_neighbour_had_is_fresh_again() -> None:
    announcer = SuperSeeder(4)
    announcer.joined("a")
    announcer.joined("b")
    announcer.fresh([0, 1])
    assert told(announcer) == [("a", 0), ("b", 1)]
    announcer.has("a", 0b01)
    announcer.left("a")
    assert told(announcer) == [("b", 0)]


def test_what_was_told_in_vain_is_told_to_somebody_else() -> None:
    announcer = SuperSeeder(4, patience=2.0)
    announcer.joined("a")
    announcer.joined("b")
    announcer.fresh([0])
    assert told(announcer, 0.0) == [("a", 0)]
    assert not told(announcer, 1.9)
    assert told(announcer, 2.0) == [("b", 0)]


def test_while_the_origin_is_slow_what_the_fewest_have_follows() -> None:
    announcer = SuperSeeder(9)
    for host in "abc":
        announcer.joined(host)
    announcer.fresh([0, 1])
    assert told(announcer) == [("a", 0), ("b", 1)]
    announcer.has("a", 0b11)
    announcer.has("b", 0b10)
    assert told(announcer) == [("c", 0), ("b", 0)]


@settings(max_examples=200)
@given(st.data())
def test_every_piece_is_told_in_the_end_and_given_once_first(data: st.DataObject) -> None:
    """Neighbours come, fetch and go; nothing is withheld for ever, and nothing is told twice to one."""
    count = data.draw(st.integers(1, 30))
    announcer = SuperSeeder(count, patience=5.0)
    announcer.joined("rock")
    known: dict[str, int] = {"rock": 0}
    owned: dict[str, int] = {"rock": 0}
    now = 0.0
    for step in range(data.draw(st.integers(0, 60))):
        now += 1.0
        host = data.draw(st.sampled_from(["rock", "a", "b", "c"]))
        match data.draw(st.sampled_from(["fresh", "join", "left", "has"])):
            case "fresh":
                announcer.fresh([step % count])
            case "join" if host not in known:
                announcer.joined(host)
                known[host] = owned[host] = 0
            case "left" if host in known and host != "rock":
                announcer.left(host)
                del known[host], owned[host]
            case "has" if host in known:
                owned[host] |= known[host]
                announcer.has(host, known[host])
        for to, pieces in announcer.due(now).items():
            assert not pieces & known[to]
            known[to] |= pieces
            assert announcer.may_ask(to) == known[to]
    for host in [h for h in known if h != "rock"]:
        announcer.left(host)
    announcer.fresh(range(count))
    for _ in range(3 * count):
        now += 1.0
        known["rock"] |= announcer.due(now).get("rock", 0)
        announcer.has("rock", known["rock"])
    assert announcer.over
    assert known["rock"] | owned["rock"] == bits.full(count)


def test_another_zone_hears_of_what_nobody_here_takes() -> None:
    announcer = SuperSeeder(100)
    announcer.joined("near")
    announcer.joined("far", far=True)
    announcer.fresh([0, 1])
    assert told(announcer) == [("near", 0), ("near", 1)]
    announcer.has("near", 0b1)
    assert told(announcer, 1.9) == []
    assert told(announcer, 2.0) == [("far", 1)], "told in vain"
    announcer.left("near")
    announcer.fresh([2])
    assert ("far", 2) in told(announcer, 2.0)


def test_another_zone_hears_of_everything_once_all_is_given() -> None:
    """Or it would have all of it from those of this zone, however slow they are."""
    announcer = SuperSeeder(4)
    announcer.joined("near")
    announcer.joined("far", far=True)
    announcer.fresh(range(4))
    assert {host for host, _ in told(announcer)} == {"near"}
    announcer.has("near", 0b1111)
    assert [piece for host, piece in told(announcer, 0.1) if host == "far"] == [0, 1, 2, 3]
