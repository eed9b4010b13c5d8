"""Live settings and marks of nodes: what may change, and which of two tellings counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly_ray.cluster_directives import MAX_MARKS, Directives, Follower, Mark
from dragonfly_ray.config import Settings, TransportSettings
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.live_settings import changed, live_fields, live_schema

MARKS = st.dictionaries(
    st.sampled_from("abc"), st.builds(Mark, st.integers(1, 9), st.booleans(), st.booleans())
)


def test_a_change_is_typed_and_only_what_is_live_may_change() -> None:
    base = Settings(transport=TransportSettings(pipeline=5))
    new = changed(
        base, {"transport.upload_rate": 1000, "peer.dest_roots": ["/a", "/b"], "origin.policy": "seeds"}
    )
    assert (new.transport.upload_rate, new.transport.pipeline) == (1000, 5)
    assert new.peer.dest_roots == ("/a", "/b")
    assert new.origin.policy == "seeds"
    assert base.transport.upload_rate is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transport.port": 5}, "transport.port: cannot be changed at runtime"),
        ({"storage.root": "/x"}, "storage.root: cannot be changed at runtime"),
        ({"transport.nothing": 5}, "transport.nothing: unknown setting"),
        ({"nothing": 5}, "nothing: unknown setting"),
        ({"namespace": "x"}, "namespace: unknown setting"),
        ({"transport.pipeline": "3"}, "transport.pipeline: .*integer"),
        ({"transport.pipeline": 0}, "transport.pipeline: .*greater"),
        ({"origin.policy": "none"}, "origin.policy"),
        ({"origin.give_up": float("inf")}, "origin.give_up: .*finite"),
        ({"storage.durable": 1}, "storage.durable: .*boolean"),
        ({"storage.low_water": 0.95}, "low_water must not be above high_water"),
        ({"origin.give_up": object()}, "plain JSON"),
        ({"transport.pipeline": 0, "origin.retries": -1}, "transport.pipeline.*origin.retries"),
    ],
)
def test_what_is_wrong_with_a_change_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        changed(Settings(), changes)


def test_the_schema_describes_every_live_setting() -> None:
    schema = live_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(live_fields())
    assert {"transport.upload_rate", "origin.max_connections", "peer.dest_roots", "storage.quota"} <= set(
        live_fields()
    )
    assert "storage.root" not in schema["properties"]
    for name, shown in schema["properties"].items():
        assert shown["description"], name
        assert "default" in shown, name
        assert "live" not in shown


def test_whoever_holds_a_section_sees_the_change() -> None:
    base = Settings()
    follower = Follower(base)
    held = follower.settings.transport
    assert follower.take(Directives(3, {"transport.upload_rate": 7}))
    assert held.upload_rate == 7
    assert base.transport.upload_rate is None
    assert not follower.take(Directives(2, {"transport.upload_rate": 9})), "an older version changes nothing"
    assert not follower.take(Directives(3, {"transport.upload_rate": 9}))
    assert held.upload_rate == 7
    assert follower.take(Directives(4, {"origin.retries": 1}))
    assert held.upload_rate is None, "what is not named is as at the start"


def test_what_another_version_of_the_package_says_is_left_out() -> None:
    follower = Follower(Settings())
    assert not follower.take(Directives(3, {"transport.warp": 7}))
    assert follower.directives.version == 3, "and is passed on all the same"


@given(MARKS, MARKS, MARKS)
def test_marks_of_all_tellers_come_together_whatever_the_order(
    a: dict[str, Mark], b: dict[str, Mark], c: dict[str, Mark]
) -> None:
    one, two, three = (Directives(0, {}, marks) for marks in (a, b, c))
    left, right = one.merged(two).merged(three), one.merged(three).merged(two)
    assert {n: m.stamp for n, m in left.marks.items()} == {n: m.stamp for n, m in right.marks.items()}
    assert left.stamp == max((m.stamp for marks in (a, b, c) for m in marks.values()), default=0)


def test_a_mark_that_was_taken_away_does_not_come_back() -> None:
    known = Directives().marked("n", 5.0, cordoned=True, draining=True)
    assert known.cordoned == known.draining == {"n"}
    gone = known.marked("n", 4.0, draining=False).marked("n", 4.0, cordoned=False)
    assert gone.cordoned == frozenset()
    assert gone.merged(known).cordoned == frozenset()
    assert known.merged(gone).cordoned == frozenset()
    assert Directives.decode(gone.encode()) == gone


def test_what_ray_drains_is_cordoned_as_long_as_it_does() -> None:
    known = Directives(leaving=("n",))
    assert known.draining == known.cordoned == {"n"}
    assert known.merged(Directives()).draining == frozenset()


def test_marks_that_say_nothing_any_more_are_forgotten_after_a_day() -> None:
    day = 24 * 3600.0
    known = Directives()
    for number in range(1000):
        node = f"n{number}"
        known = known.marked(node, number * day / 10, draining=True)
        known = known.marked(node, number * day / 10 + 1, draining=False)
    assert len(known.marks) <= 11
    told = Directives(marks={"n0": Mark(1), "n500": Mark(2, draining=True)})
    assert set(known.merged(told).marks) == {*known.marks, "n500"}, (
        "whoever heard them long ago brings none back"
    )


def test_marks_of_nodes_that_are_gone_are_bounded() -> None:
    known = Directives()
    for number in range(MAX_MARKS + 10):
        known = known.marked(f"n{number}", float(number), cordoned=True)
    assert len(known.marks) == MAX_MARKS
    assert "n0" not in known.marks
    assert f"n{MAX_MARKS + 9}" in known.cordoned
