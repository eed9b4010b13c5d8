"""Which piece is asked of whom."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly_ray import bitset as bits
from dragonfly_ray.scheduling.picker import ENDGAME_AFTER, ENDGAME_PIECES, Picker


def ask_all(picker: Picker, host: str) -> list[int]:
    """Everything that `host` can be asked for, in order."""
    asked: list[int] = []
    while run := picker.pick(host, 8, 0.0):
        asked += run
    return sorted(asked)


def test_the_rarest_piece_comes_first() -> None:
    picker = Picker(8, seed=1)
    picker.joined("a", 0b1111_1111)
    picker.joined("b", 0b0111_1111)
    assert list(picker.pick("a", 1, 0.0)) == [7]


def test_a_run_never_asks_twice_for_the_same_piece() -> None:
    picker = Picker(64, seed=1)
    for name in "abcd":
        picker.joined(name, bits.full(64))
    asked: list[int] = []
    while runs := [run for name in "abcd" if (run := picker.pick(name, 5, 0.0))]:
        asked += [piece for run in runs for piece in run]
    assert sorted(asked) == list(range(64))


def test_what_is_read_comes_before_what_is_rare() -> None:
    picker = Picker(8, seed=1)
    picker.joined("a", 0b1111_1111)
    picker.joined("b", 0b0000_1111)
    picker.urgent = [2]
    assert list(picker.pick("a", 1, 0.0)) == [2]


def test_near_the_end_a_slow_piece_is_asked_of_somebody_else_too() -> None:
    picker = Picker(ENDGAME_PIECES, seed=1)
    picker.joined("a", bits.full(ENDGAME_PIECES))
    picker.joined("b", bits.full(ENDGAME_PIECES))
    assert ask_all(picker, "a") == list(range(ENDGAME_PIECES))
    assert not picker.pick("b", 4, ENDGAME_AFTER / 2)
    assert len(picker.pick("b", 4, ENDGAME_AFTER)) == 1


def test_whoever_else_was_asked_for_what_has_come_is_named() -> None:
    picker = Picker(2, seed=1)
    picker.joined("slow", 0b11)
    assert ask_all(picker, "slow") == [0, 1]
    picker.joined("quick", 0b01)
    assert list(picker.pick("quick", 1, 10.0)) == [0]
    assert picker.got(0, "quick") == ["slow"]
    assert picker.got(1, "slow") == []


def test_a_holder_that_leaves_frees_what_it_was_asked_for() -> None:
    picker = Picker(4, seed=1)
    picker.joined("a", 0b1111)
    picker.joined("b", 0b1111)
    assert ask_all(picker, "a") == [0, 1, 2, 3]
    picker.left("a")
    assert ask_all(picker, "b") == [0, 1, 2, 3]


def test_a_piece_that_was_bad_is_not_asked_of_the_same_holder_again() -> None:
    picker = Picker(1, seed=1)
    picker.joined("a", 1)
    picker.joined("b", 1)
    picker.pick("a", 1, 0.0)
    picker.refused("a", 0)
    assert not picker.pick("a", 1, 1.0)
    assert list(picker.pick("b", 1, 1.0)) == [0]


def test_leased_pieces_are_left_to_the_origin_workers() -> None:
    picker = Picker(4, seed=1)
    picker.joined("a", 0b1111)
    picker.claimed([0, 1])
    assert ask_all(picker, "a") == [2, 3]
    picker.unclaimed([0, 1])
    assert ask_all(picker, "a") == [0, 1]


@settings(max_examples=200)
@given(st.data())
def test_every_piece_arrives_whatever_happens(data: st.DataObject) -> None:
    """Holders come, go, refuse and stall; as long as one honest holder stays, the task ends."""
    count = data.draw(st.integers(1, 40))
    picker = Picker(count, seed=0)
    picker.joined("rock", bits.full(count))
    names = ["a", "b", "c"]
    for _ in range(data.draw(st.integers(0, 30))):
        name = data.draw(st.sampled_from(names))
        match data.draw(st.sampled_from(["join", "leave", "pick", "refuse", "got", "lost", "reset"])):
            case "join":
                picker.joined(name, data.draw(st.integers(0, bits.full(count))))
            case "leave":
                picker.left(name)
            case "pick":
                picker.pick(name, data.draw(st.integers(1, 8)), 0.0)
            case "refuse":
                picker.refused(name, data.draw(st.integers(0, count - 1)))
            case "got":
                picker.got(data.draw(st.integers(0, count - 1)))
            case "lost":
                picker.lost(data.draw(st.integers(0, count - 1)))
            case "reset":
                picker.reset(name)
    for name in names:
        picker.left(name)
    now = 10.0
    while not picker.done:
        run = picker.pick("rock", 8, now)
        assert run, "a missing piece that a holder has can be asked for"
        for piece in run:
            picker.got(piece)
    assert picker.available() == 0


def test_a_far_holder_is_asked_only_for_want_of_a_near_one() -> None:
    picker = Picker(4, seed=1)
    picker.joined("far", 0b1111, far=True)
    picker.joined("near", 0b0011)
    assert not picker.pick("far", 4, 0.0)
    assert ask_all(picker, "near") == [0, 1]
    assert ask_all(picker, "far") == [2, 3]


def test_a_near_holder_that_cannot_be_reached_keeps_nobody_from_a_far_one() -> None:
    picker = Picker(2, seed=1)
    picker.has("unmet", 0b11)
    picker.joined("broken", 0b11)
    picker.joined("far", 0b11, far=True)
    picker.reset("broken")
    assert ask_all(picker, "far") == [0, 1]


def test_ties_are_broken_evenly() -> None:
    """A member after a wide gap is as likely as one that has neighbours."""
    rng = random.Random(1)
    members = [0, 1, 2, 3, 200, 1023]
    drawn = Counter(bits.any_of(bits.of(members), rng) for _ in range(6000))
    assert sorted(drawn) == members
    assert all(850 < times < 1150 for times in drawn.values())
    assert bits.any_of(0, rng) == -1


@settings(max_examples=200)
@given(st.data())
def test_news_and_choices_are_those_of_a_naive_count(data: st.DataObject) -> None:
    """Against one counter a piece: the choice has always the fewest holders of what may be asked."""
    count = data.draw(st.integers(1, 80))
    picker = Picker(count, seed=0)
    said: dict[str, set[int]] = {}
    given_away: dict[int, str] = {}
    here: set[int] = set()
    own: set[int] = set()
    sets = st.sets(st.integers(0, count - 1))
    for _ in range(data.draw(st.integers(1, 40))):
        host = data.draw(st.sampled_from("abcde"))
        piece = data.draw(st.integers(0, count - 1))
        match data.draw(
            st.sampled_from(["join", "has", "numbers", "left", "refused", "got", "lost", "own", "pick"])
        ):
            case "join":
                news = data.draw(sets)
                picker.joined(host, bits.of(news))
                said.setdefault(host, set()).update(news)
            case "has":
                news = data.draw(sets)
                picker.has(host, bits.of(news))
                said.setdefault(host, set()).update(news)
            case "numbers":
                news = data.draw(sets)
                picker.has(host, [*news, count, -1])
                said.setdefault(host, set()).update(news)
            case "left":
                picker.left(host)
                said.pop(host, None)
                given_away = {p: h for p, h in given_away.items() if h != host}
            case "refused":
                picker.refused(host, piece)
                if host in said:
                    said[host].discard(piece)
                    if given_away.get(piece) == host:
                        del given_away[piece]
            case "got":
                picker.got(piece)
                here.add(piece)
                own.discard(piece)
                given_away.pop(piece, None)
            case "lost":
                picker.lost(piece)
                here.discard(piece)
            case "own":
                picker.claimed([piece])
                own.add(piece)
            case "pick":
                holders = Counter(p for held in said.values() for p in held)
                may = {p for p in said.get(host, ()) if p not in here | own and p not in given_away}
                run = picker.pick(host, data.draw(st.integers(1, 4)), 0.0)
                assert bool(run) == bool(may)
                assert set(run) <= may
                if run:
                    assert holders[run[0]] == min(holders[p] for p in may)
                given_away |= dict.fromkeys(run, host)
        assert picker.available() == bits.of(set().union(*said.values()) - here)
        assert picker.requests == len(given_away)
        assert all(picker.holder_bits(h) == bits.of(held) for h, held in said.items())


@given(st.lists(st.dictionaries(st.sampled_from("abcdefghijklmnop"), st.integers(0, 2**12 - 1)), max_size=6))
def test_news_of_many_holders_count_as_if_each_had_come_alone(rounds: list[dict[str, int]]) -> None:
    together, alone = Picker(12, seed=1), Picker(12, seed=1)
    told: dict[str, int] = {}
    for picker in (together, alone):
        for name in "abcdefghijkl":  # of the others nothing is known here
            picker.joined(name, 1, far=name in "ab")
    for each in rounds:
        news = {name: told.get(name, 0) | pieces for name, pieces in each.items()}
        told |= news
        together.hears(news)
        for name in news.keys() & set("abcdefghijkl"):
            alone.has(name, news[name])
        for name in "abcdefghijkl":
            assert together.holder_bits(name) == alone.holder_bits(name)
        assert [together._tally.count(piece) for piece in range(12)] == [
            alone._tally.count(piece) for piece in range(12)
        ]
    for name in "abcdefghijkl":
        together.left(name)
    assert not together._tally.held(), "and all of it can be taken out again"


def test_of_those_that_are_able_each_that_has_something_is_offered_and_nobody_else() -> None:
    picker = Picker(8, seed=1)
    for name in "abcd":
        picker.joined(name, 0b1111_0000 if name != "d" else 0)
    assert set(picker.order()) == {"a", "b", "c"}
    assert set(picker.order(able=["d", "c", "a", "unknown"])) == {"a", "c"}
    assert not list(picker.order(able=[]))
