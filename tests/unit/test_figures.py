"""The floor of a distribution, and what limited it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly_ray import messages as m
from dragonfly_ray.figures import Bound, Figures, Measured, figures
from dragonfly_ray.scheduling.simulator import Scenario, Simulation
from dragonfly_ray.scheduling.traffic_meter import MAX_WINDOWS, MIN_WINDOW_S, Inflow, TrafficMeter
from tests.unit import one_scheduler
from tests.unit.one_scheduler import TASK, Cluster

SIZE = 100_000_000


def steady(rate: int, seconds: float, step: float = 0.1) -> Inflow:
    inflow = Inflow()
    for turn in range(round(seconds / step)):
        inflow.add(round(rate * step), turn * step, (turn + 1) * step)
    return inflow


@pytest.mark.parametrize("seconds", [1.0, 10.0, 1000.0])
def test_a_steady_rate_is_what_it_is(seconds: float) -> None:
    inflow = steady(10_000_000, seconds)
    assert inflow.peak() == pytest.approx(10_000_000, rel=0.01)
    assert len(inflow._bins) <= MAX_WINDOWS


@pytest.mark.parametrize("gathered", [0.1, 1.0, 1.7])
def test_a_rate_is_the_same_however_long_its_bytes_are_gathered(gathered: float) -> None:
    """Hosts tell from whom bytes came once a second; three that tell at other times make no burst."""
    inflow = Inflow()
    for number in range(3):
        for turn in range(round(12 / gathered)):
            at = number * gathered / 3 + turn * gathered
            inflow.add(round(1_000_000 * gathered), at, at + gathered)
    assert inflow.peak() == pytest.approx(3_000_000, rel=0.05)


def test_the_rate_is_that_of_the_fastest_window() -> None:
    inflow = Inflow()
    for turn in range(100):
        inflow.add(5_000_000 if 40 <= turn < 80 else 500_000, turn * 0.1, (turn + 1) * 0.1)
    assert inflow.peak() == pytest.approx(50_000_000, rel=0.1)
    assert inflow.bound(10**12) == pytest.approx(inflow.total / inflow.peak())
    assert inflow.bound(50_000_000) == pytest.approx(1.0, rel=0.1), "no byte is needed twice"


def test_what_came_before_anybody_looked_has_no_rate() -> None:
    """As after a scheduler's restart, when every host tells at once what it has received so far."""
    inflow = Inflow()
    inflow.add(SIZE, None, 5.0)
    inflow.add(1_000_000, 5.0, 6.0)
    assert inflow.total == SIZE + 1_000_000
    assert inflow.peak() == pytest.approx(1_000_000)


def test_less_than_half_a_window_is_no_rate() -> None:
    inflow = Inflow()
    inflow.add(SIZE, 1.0, 1.0 + MIN_WINDOW_S / 4)
    assert inflow.peak() == 0.0
    assert inflow.bound(SIZE) == 0.0


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0.01, 30.0)), min_size=1, max_size=60))
def test_no_byte_is_lost_and_no_rate_is_higher_than_the_highest_told(steps: list[tuple[int, float]]) -> None:
    inflow, now, burst = Inflow(), 0.0, 0.0
    for nbytes, pause in steps:
        inflow.add(nbytes, now, now + pause)
        now += pause
        burst = max(burst, nbytes / pause)
    total = sum(nbytes for nbytes, _ in steps)
    assert inflow.total == total
    assert inflow.peak() <= burst * 1.001


class Flow:
    """A meter that hosts tell of their totals every 0.1 s for `seconds`, at these rates."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.meter = TrafficMeter()
        self.seconds = seconds

    def run(self, **rates: tuple[str, float, float, str]) -> Measured:
        """Node -> (zone, its rate at the origin, from a peer, that peer's zone)."""
        for turn in range(1, round(self.seconds * 10) + 1):
            for host, (zone, origin, peers, parent) in rates.items():
                each = 0.1 * turn
                self.meter.told(host, zone, int(origin * each), int(peers * each), each)
                if peers:
                    self.meter.fed(host, zone, [(parent, int(peers * 0.1))], each)
        return self.meter.measured(SIZE, rates)


def levels(measured: Measured) -> dict[str, float]:
    return {bound.level: bound.seconds for bound in measured.bounds}


def limited(seconds: float, measured: Measured) -> tuple[str, str]:
    found = figures(seconds, SIZE, [("n", seconds)], [measured])
    return found.limited_by, found.limited_at


def test_an_origin_that_all_wait_for_limits() -> None:
    measured = Flow().run(a=("", 5e6, 5e6, ""), b=("", 5e6, 5e6, ""))
    assert levels(measured) == {
        "origin": pytest.approx(10.0, rel=0.05),
        "node": pytest.approx(10.0, rel=0.05),
    }
    assert limited(10.5, measured) == ("origin", "")


def test_a_node_that_receives_slower_than_the_rest_limits() -> None:
    measured = Flow().run(a=("", 40e6, 0, ""), b=("", 40e6, 0, ""), c=("", 0, 10e6, ""))
    assert limited(10.5, measured) == ("node", "c")


def test_nodes_that_are_all_alike_are_not_named() -> None:
    measured = Flow().run(a=("", 10e6, 0, ""), b=("", 10e6, 1e6, ""), c=("", 10e6, 1e6, ""))
    assert limited(10.5, measured) == ("node", "")


def test_who_reads_the_origin_alone_is_named() -> None:
    measured = Flow().run(a=("", 10e6, 0, ""), b=("", 0, 10e6, ""))
    assert limited(10.5, measured) == ("origin", "a")


def test_a_zone_limits_that_others_feed_slower_than_the_origin() -> None:
    measured = Flow().run(a=("x", 40e6, 0, ""), b=("y", 0, 10e6, "x"), c=("y", 0, 10e6, "y"))
    assert limited(10.5, measured) == ("zone", "y")
    assert measured.bytes_across == pytest.approx(SIZE, rel=0.01)
    assert measured.bytes_peers == pytest.approx(2 * SIZE, rel=0.01)


def test_zones_that_are_not_known_are_none() -> None:
    one = Flow().run(a=("x", 40e6, 0, ""), b=("x", 0, 10e6, "x"))
    assert "zone" not in levels(one)
    assert one.bytes_across is None
    measured = Flow().run(a=("x", 40e6, 0, ""), b=("", 0, 10e6, "x"), c=("y", 0, 10e6, ""))
    assert measured.bytes_across == 0, "to or from a node without a zone"


def test_a_peer_that_starts_again_counts_anew() -> None:
    meter = TrafficMeter()
    meter.told("a", "", 6_000_000, 0, 1.0)
    meter.told("a", "", 9_000_000, 0, 2.0)
    meter.told("a", "", 1_000_000, 0, 3.0)
    meter.told("a", "", 2_000_000, 0, 4.0)
    assert meter.measured(SIZE, ()).bytes_origin == 11_000_000


def test_time_that_no_rate_explains_is_told_as_such() -> None:
    slow = Measured((Bound("origin", 10.0), Bound("node", 9.0, "n1")), bytes_origin=SIZE)
    assert limited(15.0, slow) == ("origin", "")
    assert limited(25.0, slow) == ("other", "")
    assert limited(0.3, Measured((), bytes_origin=1000)) == ("startup", "")
    assert limited(2.4, Measured((Bound("origin", 0.5),), bytes_origin=SIZE)) == ("startup", "")
    assert limited(30.0, Measured((Bound("origin", 0.5),), bytes_origin=SIZE)) == ("other", "")


def test_without_a_rate_nobody_knows_what_took_long() -> None:
    assert limited(30.0, Measured((), bytes_origin=1000)) == ("", "")


@pytest.mark.parametrize(("origin", "limit"), [(8.0, ("origin", "")), (7.0, ("node", "n1"))])
def test_the_outermost_of_what_comes_near_to_the_floor_limits(origin: float, limit: tuple[str, str]) -> None:
    near = Measured((Bound("origin", origin), Bound("node", 10.0, "n1")), bytes_origin=SIZE)
    assert limited(10.5, near) == limit


def test_the_first_word_of_a_host_counts_for_no_rate() -> None:
    """A restarted scheduler hears at once of all that came before."""
    meter = TrafficMeter()
    meter.told("a", "", SIZE, 0, 100.0)
    meter.told("a", "", SIZE + 1_000_000, 0, 101.0)
    (origin,) = (b for b in meter.measured(2 * SIZE, ()).bounds if b.level == "origin")
    assert origin.seconds == pytest.approx(101.0), "one second of 1 MB/s, and 101 MB to read"


def test_where_nothing_had_to_come_nothing_limited() -> None:
    found = figures(0.2, SIZE, [("a", 0.1), ("b", 0.1)], [Measured()])
    assert (found.limited_by, found.floor, found.origin_ratio, found.cross_zone_share) == (
        "",
        None,
        0.0,
        None,
    )


def test_what_is_not_known_is_none() -> None:
    assert figures(1.0, 0, [], [None]) == Figures()
    half = Measured((Bound("origin", 1.9),), bytes_origin=SIZE, bytes_peers=SIZE)
    assert figures(2.0, SIZE, [], [None, half]) == Figures(), "one of two sources says nothing of both"


def test_several_sources_have_the_greatest_floor_and_all_bytes() -> None:
    first = Measured((Bound("origin", 4.0), Bound("node", 3.9, "n1")), SIZE, SIZE, 0)
    second = Measured((Bound("zone", 8.0, "z"), Bound("node", 7.9, "n2")), SIZE, 3 * SIZE, SIZE)
    found = figures(8.8, 2 * SIZE, [], [first, second])
    assert found.floor == 8.0
    assert found.floor_ratio == pytest.approx(1.1)
    assert (found.limited_by, found.limited_at) == ("zone", "z")
    assert (found.origin_ratio, found.cross_zone_share) == (1.0, 0.25)


def test_the_slowest_hundredth_by_the_middle() -> None:
    def ratio(*nodes: tuple[str, float | None]) -> float | None:
        return figures(9.0, 1, nodes, []).p99_p50_ratio

    assert ratio(*((f"n{i}", float(i)) for i in range(1, 101))) == pytest.approx(99 / 50)
    assert ratio(("a", 3.0)) is None, "one node is no distribution"
    assert ratio(("a", 0.0), ("b", 0.0)) is None


def test_a_node_took_as_long_as_its_last_source() -> None:
    """A small file beside a large one makes no long tail; and who lacks one of them is not among those that ended."""
    nodes = [("a", 0.1), ("b", 0.1), ("c", 0.1), ("a", 10.0), ("b", 12.0), ("c", None)]
    assert figures(12.0, 1, nodes, []).p99_p50_ratio == pytest.approx(1.2)


def totals(cluster: Cluster, spec_id: str) -> tuple[int, int]:
    measured = msgspec.convert(cluster.view(spec_id)["measured"], Measured)
    return measured.bytes_origin, measured.bytes_peers


def test_a_scheduler_measures_each_distribution_by_itself() -> None:
    """What a host tells only with its outcome counts, and what an earlier distribution moved does not."""
    cluster = Cluster([one_scheduler.host(0), one_scheduler.host(1)])
    for number, spec_id in enumerate(("first.0", "second.0")):
        cluster.submit([0, 1], spec_id)
        cluster.resolved(spec_id)
        cluster.now += 1
        cluster.report(0, bytes_origin=600)
        cluster.report(1, bytes_peers=300, parents=(("h0", 300),))
        for node, told in ((0, {"bytes_origin": 1000}), (1, {"bytes_peers": 300})):
            ended = m.Ended(f"h{node}", spec_id, TASK.id, ok=True, seconds=2.0, **told)  # type: ignore[arg-type]
            cluster.do(cluster.core.ended(ended, cluster.now)[1])
        assert totals(cluster, spec_id) == (1000, 300), number


def test_of_two_distributions_at_once_nobody_knows_whose_bytes_they_were() -> None:
    cluster = Cluster([one_scheduler.host(0), one_scheduler.host(1)])
    for number, spec_id in enumerate(("first.0", "second.0")):
        cluster.submit([number], spec_id)
        cluster.resolved(spec_id)
    cluster.report(0, bytes_origin=1000)
    cluster.end(0, "first.0")
    cluster.end(1, "second.0")
    assert [cluster.view(spec_id)["measured"] for spec_id in ("first.0", "second.0")] == [None, None]
    cluster.submit([0], "third.0")
    cluster.resolved("third.0")
    cluster.end(0, "third.0")
    assert cluster.view("third.0")["measured"] is not None, "one after another"


@pytest.mark.parametrize(
    ("scenario", "limit"),
    [
        (Scenario(peers=30, pieces=128, origin_mbit=100), "origin"),
        (Scenario(peers=30, pieces=128, mbit=100, policy="all"), "node"),
        (Scenario(peers=20, pieces=128, policy="all", mix=((0.95, 1000.0), (0.05, 100.0))), "node"),
        (Scenario(peers=20, pieces=2, policy="all"), "startup"),
    ],
)
def test_in_a_simulation_it_is_what_was_made_slow(scenario: Scenario, limit: str) -> None:
    simulation = Simulation(scenario)
    report = simulation.run()
    view = simulation.scheduler.view()
    measured = msgspec.convert(view["measured"], Measured)
    found = figures(view["seconds"], view["size"], [], [measured])
    assert found.limited_by == limit
    assert found.origin_ratio == pytest.approx(1.0, abs=0.01)
    if limit != "startup":
        assert found.floor == pytest.approx(report.bound, rel=0.15)
