"""Each piece has one importer a zone, and one zone that it is imported from."""

from __future__ import annotations

import pytest

from dragonfly_ray import bitset as bits
from dragonfly_ray.scheduling.graph import Graph
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.scheduling.zones import (
    ALWAYS_UP_TO,
    FIRST_PATIENCE,
    HOSTS_A_PIECE_TIME,
    LEFT_TO_SLOW,
    MOST_LOSS,
    STALLED_AFTER,
    Imports,
    region_of,
    worth_importing,
)

COUNT = 200
ALL = bits.full(COUNT)
MATES = ("a0", "a1", "a2")


def imports(host: str, zone: str = "a", others: tuple[str, ...] = ("b", "c", "d")) -> Imports:
    made = Imports(host, zone, COUNT)
    for mate in MATES:
        made.importer(mate, True)
    for other in others:
        made.zone_joined(other)
    return made


def test_each_piece_has_one_importer_and_all_agree() -> None:
    views = [imports(host) for host in MATES]
    shares = [view.share(view.host) for view in views]
    assert sum(share.bit_count() for share in shares) == COUNT
    assert shares[0] | shares[1] | shares[2] == ALL
    assert all(view.share("a1") == shares[1] for view in views)
    assert all(share.bit_count() > COUNT / 6 for share in shares)


def test_only_what_the_lost_importer_had_changes_hands() -> None:
    view = imports("a0")
    mine, theirs = view.share("a0"), view.share("a1")
    view.importer("a1", False)
    assert view.share("a0") & mine == mine
    assert view.share("a0") & ~mine & ~theirs == 0
    assert view.share("a0") | view.share("a2") == ALL


def test_no_zone_exports_a_piece_twice() -> None:
    names = ("a", "b", "c", "d")
    exported = dict.fromkeys(names, 0)
    for zone in names:
        view = imports("x", zone, tuple(n for n in names if n != zone))
        sources = {other: view.source(other) for other in names if other != zone}
        assert sum(s.bit_count() for s in sources.values()) == COUNT, "each is imported from one zone"
        for other, pieces in sources.items():
            assert not exported[other] & pieces
            exported[other] |= pieces
    assert all(pieces == ALL for pieces in exported.values())


def test_an_importer_that_makes_no_progress_is_succeeded_until_it_does() -> None:
    view = imports("a0", others=("b",))
    mine, lacking = view.share("a0"), {"b": ALL}
    view.look(lacking, 0.0)
    view.moved("a2")
    view.look(lacking, STALLED_AFTER)
    assert view.share("a1") == 0
    assert view.share("a0") & mine == mine != view.share("a0")
    view.moved("a1")
    view.look(lacking, STALLED_AFTER + 0.1)
    assert view.share("a0") == mine


def test_whoever_has_nothing_to_import_is_not_passed_over() -> None:
    view = imports("a0", others=("b",))
    for second in range(20):
        view.look({}, float(second))
    assert view.share("a1")


def test_where_imports_are_slow_for_everybody_nobody_is_passed_over() -> None:
    view = imports("a0", others=("b",))
    view.began(0, 0.0)
    view.ended(0, 10.0)
    view.look({"b": ALL}, 10.0)
    view.look({"b": ALL}, 10.0 + 3 * 10.0)
    assert view.share("a1")


def test_the_predecessor_is_waited_for_and_then_the_least_used_zone_is_asked() -> None:
    view = imports("a0")
    late = {"c": ALL & ~view.source("c"), "d": 0}
    view.used["c"] = 0
    assert view.wanted(late, 0.0) == {}
    assert view.wanted(late, FIRST_PATIENCE / 2) == {}
    found = view.wanted(late, FIRST_PATIENCE)
    assert found == {"c": late["c"] & view.share("a0")}


def test_out_of_turn_the_zone_used_least_gives() -> None:
    view = imports("a0")
    both = ALL & ~view.source("c") & ~view.source("d")
    view.wanted({"c": both, "d": both}, 0.0)
    first = view.wanted({"c": both, "d": both}, FIRST_PATIENCE)
    (zone,) = first
    view.out_of_turn(zone)
    assert list(view.wanted({"c": both, "d": both}, FIRST_PATIENCE)) != [zone]


def test_who_is_through_takes_over_from_the_slowest_and_no_two_take_the_same() -> None:
    views = {host: imports(host, others=("b",)) for host in MATES}
    late = views["a0"].share("a1")
    taken = {}
    for host in ("a0", "a2"):
        assert views[host].wanted({"b": late}, 0.0) == {}
        assert views[host].wanted({"b": late}, FIRST_PATIENCE - 0.1) == {}
        taken[host] = views[host].wanted({"b": late}, FIRST_PATIENCE)["b"]
    assert taken["a0"] | taken["a2"] == late
    assert not taken["a0"] & taken["a2"]
    assert views["a1"].wanted({"b": late}, 0.0) == {"b": late}, "it goes on meanwhile"


def test_what_a_slow_importer_has_asked_for_is_left_to_it() -> None:
    view = imports("a0", others=("b",))
    last = bits.of(list(bits.members(view.share("a1")))[:LEFT_TO_SLOW])
    view.wanted({"b": last}, 0.0)
    assert view.wanted({"b": last}, 100.0) == {}


def test_one_piece_at_a_time_is_taken_over() -> None:
    view = imports("a0", others=("b",))
    late = view.share("a1")
    view.wanted({"b": late}, 0.0)
    (first, *_) = bits.members(view.wanted({"b": late}, FIRST_PATIENCE)["b"])
    view.began(first, FIRST_PATIENCE, "b")
    assert view.wanted({"b": late}, FIRST_PATIENCE) == {}
    view.ended(first, FIRST_PATIENCE + 0.1)
    assert view.wanted({"b": late & ~(1 << first)}, FIRST_PATIENCE + 0.1)


REGIONS = {"a": "r", "b": "r", "c": "s", "d": "s", "e": "t"}


def in_regions(zone: str) -> Imports:
    made = Imports("x", zone, COUNT, REGIONS[zone])
    for other, region in REGIONS.items():
        if other != zone:
            made.zone_joined(other, region)
    made.importer("x", True)
    return made


def test_each_piece_comes_into_a_region_by_one_of_its_zones_from_one_other_region() -> None:
    views = {zone: in_regions(zone) for zone in REGIONS}
    for region in "rst":
        gates = 0
        for zone in (z for z in REGIONS if REGIONS[z] == region):
            abroad = 0
            for other in (z for z in REGIONS if REGIONS[z] not in (region, "")):
                pieces = views[zone].source(other)
                twins = [z for z in REGIONS if REGIONS[z] == REGIONS[other]]
                assert all(views[zone].source(twin) == pieces for twin in twins), (
                    "whichever zone of it has the piece"
                )
                abroad |= pieces
            assert not gates & abroad
            gates |= abroad
        assert gates == ALL, region


def test_zones_of_one_region_are_a_ring_of_their_own() -> None:
    a, b = in_regions("a"), in_regions("b")
    assert a.source("b") == b.source("a") == ALL


def test_what_is_in_the_region_comes_from_there() -> None:
    view = in_regions("a")
    due = view.source("c") | view.source("e")
    found = view.wanted({"b": bits.of(range(100)), "c": ALL, "e": ALL}, 0.0)
    assert found.pop("b") == bits.of(range(100))
    abroad = found.get("c", 0) | found.get("e", 0)
    assert abroad == due & ~bits.of(range(100))
    assert view.wanted({"b": ALL, "c": ALL}, 0.0) == {"b": ALL}


def test_a_zone_whose_region_is_not_known_is_in_no_other_one() -> None:
    view = Imports("x", "a", COUNT, "r")
    view.zone_joined("b")
    view.zone_joined("c", "s")
    assert view.source("b") == ALL
    view.zone_joined("b", "s")
    assert view.source("b") == view.source("c") == ALL, "this zone alone is the gate of its region"


def test_the_region_is_the_first_part_of_a_location() -> None:
    assert region_of("EU|fra|rack1") == "eu"
    assert region_of("eu") == "eu"
    assert region_of("") == ""


def picker(host: str) -> Picker:
    made = Picker(COUNT, seed=1)
    made.imports = Imports(host, "a", COUNT)
    for mate in MATES[:2]:
        made.imports.importer(mate, True)
    return made


def test_nobody_but_importers_asks_other_zones_and_they_for_their_own_share() -> None:
    asked: dict[str, set[int]] = {}
    for host in MATES:
        made = picker(host)
        made.joined("far", ALL, far=True, zone="b")
        asked[host] = set()
        while run := made.pick("far", 8, 0.0):
            asked[host].update(run)
    assert asked["a2"] == set()
    assert asked["a0"] | asked["a1"] == set(range(COUNT))
    assert not asked["a0"] & asked["a1"]


def test_what_is_near_is_not_imported() -> None:
    made = picker("a0")
    made.joined("near", ALL, zone="a")
    made.joined("far", ALL, far=True, zone="b")
    assert not made.pick("far", 8, 0.0)
    assert made.pick("near", 8, 0.0)


def test_when_no_importer_is_left_whoever_needs_something_asks() -> None:
    made = picker("a2")
    made.joined("far", ALL, far=True, zone="b")
    assert not made.pick("far", 8, 0.0)
    for mate in MATES[:2]:
        made.left(mate)
    made.imports.importer("a0", False)  # type: ignore[union-attr]
    made.imports.importer("a1", False)  # type: ignore[union-attr]
    assert made.pick("far", 8, 0.0)


@pytest.mark.parametrize("everybody", [4, 100])
def test_importers_of_all_zones_know_each_other_and_have_successors(everybody: int) -> None:
    graph = Graph(everybody=everybody, degree=6, importers=2, seed=1)
    graph.join_all([(f"{zone}{n}", zone) for n in range(10) for zone in "abc"])
    chosen = [h for n in range(10) for h in (f"a{n}", f"b{n}", f"c{n}") if graph.imports(h)]
    assert len(chosen) == 6
    for host in chosen:
        assert graph.neighbours(host) >= set(chosen) - {host}
    lost = next(h for h in chosen if h.startswith("a"))
    gained = graph.leave(lost)
    after = [h for h in (f"a{n}" for n in range(10)) if graph.imports(h)]
    assert len(after) == 2
    (new,) = set(after) - set(chosen)
    assert graph.neighbours(new) >= {h for h in chosen if h != lost}
    assert all(new in gained[other] for other in graph.neighbours(new)), "all of its neighbours hear of it"
    assert new in gained[new], "and it itself"


def test_without_zones_nobody_imports() -> None:
    graph = Graph(everybody=4, degree=6, importers=2, seed=1)
    graph.join_all([(f"h{n}", "") for n in range(10)])
    assert not any(graph.imports(f"h{n}") for n in range(10))


@pytest.mark.parametrize(("most", "expected"), [(700, 4), (699, 0), (None, 4)])
def test_large_tasks_have_importers_only_where_that_is_asked_for(most: int | None, expected: int) -> None:
    graph = Graph(everybody=4, degree=6, importers=2, import_up_to=most, seed=1)
    graph.join_all([(f"h{n}", "ab"[n % 2]) for n in range(700)])
    assert sum(graph.imports(f"h{n}") for n in range(700)) == expected


def test_importers_are_worth_it_where_they_lose_little_if_links_are_wide() -> None:
    """The loss is a piece's time for so many hosts, so that it depends on both."""
    assert worth_importing(1) == worth_importing(100) == ALWAYS_UP_TO
    assert worth_importing(1024) == 768
    for pieces in (256, 1024, 10_000):
        hosts = worth_importing(pieces)
        assert hosts / HOSTS_A_PIECE_TIME / pieces <= MOST_LOSS < (hosts + 1) / HOSTS_A_PIECE_TIME / pieces


def _without_importer(graph: Graph) -> list[str]:
    """Hosts that know no importer of their zone."""
    zones = {host: host[0] for host in graph._numbers}
    return [
        host
        for host, zone in zones.items()
        if not graph.imports(host)
        and not any(zones[other] == zone and graph.imports(other) for other in graph.neighbours(host))
    ]


@pytest.mark.parametrize("at_once", [True, False])
def test_every_host_of_a_large_task_knows_an_importer_of_its_zone_whoever_leaves(at_once: bool) -> None:
    graph = Graph(everybody=4, degree=6, importers=2, seed=1)
    hosts = [(f"{zone}{n}", zone) for n in range(60) for zone in "abc"]
    for some in [hosts] if at_once else [[host] for host in hosts]:
        graph.join_all(some)
    assert not _without_importer(graph)
    edges = [graph.degree_of(host) for host in graph._numbers if graph.imports(host)]
    assert max(edges) - min(edges) <= 20, "no importer bears them all"
    for _ in range(4):
        lost = next(host for host in graph._numbers if graph.imports(host))
        neighbours = graph.neighbours(lost)
        gained = graph.leave(lost)
        assert not _without_importer(graph)
        told = {host for host in neighbours if any(graph.imports(other) for other in gained.get(host, ()))}
        assert neighbours <= told | {h for h in neighbours if h[0] != lost[0] or graph.imports(h)} | {
            h for h in neighbours if any(graph.imports(o) and o[0] == h[0] for o in graph.neighbours(h))
        }
    graph.dismiss([host for host in graph._numbers if graph.imports(host)][:3])
    assert not _without_importer(graph)
