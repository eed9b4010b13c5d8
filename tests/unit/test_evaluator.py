"""Who is drawn as whose neighbour, what is kept of it, and that it stays cheap."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from dragonfly_ray.model import Host
from dragonfly_ray.scheduling.decisions import EVERY, KEPT, MOST, WHOLE, DecisionLog
from dragonfly_ray.scheduling.evaluator import BalancedEvaluator, Facts, common
from dragonfly_ray.scheduling.graph import Graph
from dragonfly_ray.scheduling.traffic_matrix import TrafficMatrix

NOW = 1000.0
CHILD = Facts(Host("child", "n", idc="a", location="eu|fra|row1|rack1"))
PLAIN = Facts(Host("plain", "n", idc="b", location="us|nyc|row1|rack1"), uploads=8, slots=16)


def facts(name: str, **host: object) -> Facts:
    return Facts(Host(name, "n", **{"idc": "b", "location": "us|nyc|row1|rack1"} | host),  # type: ignore[arg-type]
                 uploads=8, slots=16)  # fmt: skip


def preferred(better: Facts, edges: tuple[int, int] = (10, 10)) -> bool:
    """Whether `better` is chosen over a plain host, wherever it stands."""
    rank = BalancedEvaluator().rank
    first = rank(CHILD, [better, PLAIN], edges, 1, NOW) == [0]
    last = rank(CHILD, [PLAIN, better], edges[::-1], 1, NOW) == [1]
    return first and last


@pytest.mark.parametrize("better", [
    facts("seed", seed=True),
    facts("zone", idc="a"),
    facts("location", location="eu|ams|row9"),
    replace(PLAIN, uploads=2),
], ids=["a seed", "the same zone", "a common location", "free upload slots"])  # fmt: skip
def test_each_advantage_decides_between_equals(better: Facts) -> None:
    assert preferred(better)
    assert not preferred(replace(PLAIN))


def test_the_less_connected_is_preferred_and_a_full_one_not_chosen_at_all() -> None:
    assert preferred(replace(PLAIN), edges=(5, 10))
    evaluator = BalancedEvaluator(bears=20)
    near = facts("near", seed=True, idc="a", location=CHILD.host.location)
    assert evaluator.rank(CHILD, [near, PLAIN], [20, 19], 2, NOW) == [1]
    assert evaluator.rank(CHILD, [near], [20], 1, NOW) == []


def test_more_of_the_location_in_common_is_better() -> None:
    row, rack = facts("row", location="eu|fra|row1|rack7"), facts("rack", location="eu|fra|row1|rack1")
    assert BalancedEvaluator().rank(CHILD, [row, rack], [1, 1], 1, NOW) == [1]
    assert [common("a|b|c", other) for other in ("x|b|c", "a|x|c", "A|b", "a|b|c")] == [0, 1, 2, 5]


def test_complaints_put_a_host_last_a_ban_bars_it_and_time_heals() -> None:
    evaluator = BalancedEvaluator()
    suspect = facts("suspect", idc="a", seed=True, location=CHILD.host.location)
    for _ in range(10):
        suspect.complained(NOW)
    assert not evaluator.bars(suspect, NOW), "complaints alone are no proof"
    assert evaluator.rank(CHILD, [suspect, PLAIN], [1, 10], 1, NOW) == [1]
    assert evaluator.rank(CHILD, [suspect, PLAIN], [1, 10], 1, NOW + 36_000.0) == [0]
    suspect.banned(NOW)
    assert evaluator.bars(suspect, NOW)
    assert not evaluator.bars(suspect, NOW + 3600.0)


def test_a_ranking_is_the_score_of_the_features() -> None:
    evaluator, rng = BalancedEvaluator(), random.Random(1)
    hosts = [
        Facts(Host(f"h{i}", "n", seed=rng.random() < 0.2, idc=rng.choice("ab"),
                   location=rng.choice(["", "eu|fra", "eu|ams", "us"])), rng.randrange(20), rng.choice([0, 16]),
              rng.choice([0.0, 0.5]), NOW - rng.random() * 1000)
        for i in range(50)
    ]  # fmt: skip
    edges = [rng.randrange(80) for _ in hosts]
    scores = [
        evaluator.score(evaluator.features(CHILD, h, e, NOW)) for h, e in zip(hosts, edges, strict=True)
    ]
    ranked = [scores[place] for place in evaluator.rank(CHILD, hosts, edges, 50, NOW)]
    assert ranked == pytest.approx(sorted(scores, reverse=True))


@pytest.mark.parametrize(("near", "far", "quota"), [
    (100, 100, (18, 2)), (100, 0, (20, 0)), (0, 100, (0, 20)), (5, 100, (5, 15)), (100, 1, (19, 1)),
])  # fmt: skip
def test_most_neighbours_are_of_the_own_zone(near: int, far: int, quota: tuple[int, int]) -> None:
    assert BalancedEvaluator().quota(20, near, far) == quota


# --- the graph ----------------------------------------------------------------------------------


class Judged:
    """The evaluator as a graph's choice, without a cluster round it; counts what it is asked."""

    def __init__(self, zones: int) -> None:
        self.zones = zones
        self.evaluator = BalancedEvaluator()
        self.quota = self.evaluator.quota
        self.asked = 0
        self.looked_at = 0
        self.repairs = 0

    def zone(self, host: str) -> str:
        return f"z{int(host[1:]) % self.zones}"

    def best(self, host: str, candidates: list[str], edges: list[int], count: int, now: float) -> list[int]:
        self.asked += 1
        self.looked_at += len(candidates)
        known = [Facts(Host(c, c, idc=self.zone(c))) for c in candidates]
        return self.evaluator.rank(Facts(Host(host, host, idc=self.zone(host))), known, edges, count, now)

    def drew(self, *what: object, pool: int, repair: bool) -> None:
        self.repairs += repair


def drawn(count: int, *, zones: int = 4, batch: bool = True) -> tuple[Graph, Judged, list[str]]:
    choice = Judged(zones)
    graph = Graph(everybody=48, degree=40, choice=choice, seed=1)
    hosts = [f"h{i}" for i in range(count)]
    if batch:
        graph.join_all((h, choice.zone(h)) for h in hosts)
    else:
        for host in hosts:
            graph.join(host, choice.zone(host))
    return graph, choice, hosts


def outside(graph: Graph, choice: Judged, hosts: list[str]) -> float:
    pairs = [(h, o) for h in hosts for o in graph.neighbours(h)]
    return sum(choice.zone(a) != choice.zone(b) for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("batch", [True, False])
def test_ten_thousand_hosts_get_level_numbers_of_neighbours_a_few_of_them_outside(batch: bool) -> None:
    graph, choice, hosts = drawn(10_000, batch=batch)
    degrees = [graph.degree_of(h) for h in hosts]
    assert min(degrees) >= (40 if batch else 20)
    assert max(degrees) <= (50 if batch else 80)
    assert 0.05 <= outside(graph, choice, hosts[::10]) <= 0.2
    assert choice.looked_at <= 10_000 * 120, "a sample, not everybody"
    assert all(h in graph.neighbours(o) for h in hosts[::100] for o in graph.neighbours(h))


def test_what_few_hosts_know_is_not_the_evaluators_to_choose() -> None:
    graph, choice, hosts = drawn(48, batch=False)
    assert not choice.asked
    assert all(len(graph.neighbours(h)) == 47 for h in hosts)


def test_a_lone_zone_is_not_overrun_by_all_others() -> None:
    choice = Judged(1)
    choice.zone = lambda host: "small" if host == "h7" else "large"  # type: ignore[method-assign]
    graph = Graph(everybody=48, degree=40, choice=choice, seed=1)
    for number in range(3000):
        graph.join(f"h{number}", choice.zone(f"h{number}"))
    assert graph.degree_of("h7") <= 80
    assert sum(graph.degree_of(f"h{i}") for i in range(3000)) / 3000 > 39


def test_losses_are_repaired_in_kind() -> None:
    graph, choice, hosts = drawn(2000)
    random.Random(2).shuffle(hosts)
    before = outside(graph, choice, hosts)
    gone, left = set(hosts[:1500]), hosts[1500:]
    for host in hosts[:1500]:
        for other, news in graph.leave(host).items():
            assert news <= graph.neighbours(other)
    assert choice.repairs
    assert len(graph) == 500
    assert all(not graph.neighbours(h) & gone and h not in graph.neighbours(h) for h in left)
    assert min(graph.degree_of(h) for h in left) >= 19
    assert all(graph.degree_of(h) == len(graph.neighbours(h)) for h in left), "no edge twice"
    assert outside(graph, choice, left) == pytest.approx(before, rel=0.25)
    assert Counter(h in graph.neighbours(o) for h in left for o in graph.neighbours(h)).keys() == {True}


# --- the log ------------------------------------------------------------------------------------


def test_the_log_is_bounded_and_says_what_it_left_out() -> None:
    log = DecisionLog()
    kept = [log.wants(n) for n in range(WHOLE + 10 * EVERY)]
    assert kept[:WHOLE] == [1] * WHOLE
    assert sorted(set(kept[WHOLE:])) == [0, EVERY]
    for number in range(KEPT["lease"] + 100):
        log.lease("t", "h", [number], NOW)
    log.ban("t", "h", NOW)
    log.edges("t", "child", [(f"p{i}", 1, 0) for i in range(1000)], 1.0, NOW)
    found = log.recent("t")
    assert [d.id for d in found] == sorted(d.id for d in found)
    assert Counter(d.kind for d in found) == {"lease": KEPT["lease"], "ban": 1, "edges": 1}
    assert len(found[-1].choice) == MOST
    assert log.recent("other") == []


def test_flows_add_up() -> None:
    flows = TrafficMatrix()
    for parent, child, nbytes in [("a", "b", 1), ("a", "c", 2), ("a", "b", 10), ("b", "c", 1 << 40)]:
        flows.add(parent, child, nbytes)
    assert sorted(flows) == [("a", "b", 11), ("a", "c", 2), ("b", "c", 1 << 40)]
    assert len(flows) == 3


def test_nobody_is_left_alone_where_all_are_full() -> None:
    choice = Judged(1)
    choice.evaluator.bears = 5
    graph = Graph(everybody=6, degree=4, choice=choice, seed=1)
    for number in range(7):
        graph.join(f"h{number}", "z0")
    assert all(graph.degree_of(f"h{i}") for i in range(7))
