"""Each byte leaves the origin once: leases, the request budget, neighbours."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly_ray import bitset as bits
from dragonfly_ray.scheduling.budget import OriginBudget, RequestBudget
from dragonfly_ray.scheduling.graph import Graph
from dragonfly_ray.scheduling.leases import Late, LeaseTable


def table(count: int, **options: object) -> LeaseTable:
    return LeaseTable(count, free=bits.full(count), timeout=2.0, **options)  # type: ignore[arg-type]


def test_leases_are_runs_in_order_and_never_overlap() -> None:
    leases = table(100)
    assert leases.claim("a", 4, 2, 0.0) == [0, 1, 2, 3]
    assert leases.claim("b", 4, 2, 0.0) == [4, 5, 6, 7]


def test_urgent_pieces_come_first() -> None:
    assert table(100).claim("a", 2, 2, 0.0, urgent=[50]) == [50, 51]


def test_at_the_end_pieces_are_leased_one_by_one() -> None:
    leases = table(100)
    while leases.left > 10:
        leases.claim("a", 8, 2, 0.0)
    assert len(leases.claim("b", 8, 2, 0.0)) == 1


def test_a_stretch_without_ranges_is_leased_whole_and_to_one_holder() -> None:
    leases = table(10, units=(0, 6))
    assert leases.claim("a", 1, 4, 0.0) == [0, 1, 2, 3, 4, 5]
    assert leases.claim("b", 1, 4, 0.0) == [6, 7, 8, 9]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["claim", "done", "drop", "late"]),
                          st.integers(1, 9)), max_size=60))  # fmt: skip
def test_no_piece_has_two_holders_and_none_is_lost(steps: list[tuple[str, str, int]]) -> None:
    leases, done, now = table(40), 0, 0.0
    held: dict[str, set[int]] = {name: set() for name in "abc"}
    for name, what, amount in steps:
        now += 0.1
        if what == "claim":
            got = set(leases.claim(name, amount, 3, now))
            assert not any(got & other for other in held.values())
            held[name] |= got
        elif what == "done" and held[name]:
            piece = held[name].pop()
            leases.done(1 << piece)
            done |= 1 << piece
        elif what == "drop":
            leases.drop(name)
            held[name].clear()
        elif what == "late":
            now += 3.0
            for late in leases.expire(now):
                held[late].clear()
    out = bits.of(piece for pieces in held.values() for piece in pieces)
    assert leases.free | out | done == bits.full(40)
    assert not leases.free & (out | done)


def test_the_budget_halves_at_a_complaint_and_recovers() -> None:
    budget = OriginBudget(16, recovery=1.0)
    budget.complained(3.0, 10.0)
    assert budget.wait(10.0) == 3.0
    assert budget.wait(13.5) == 0.0
    assert budget.allowed(13.0) == 8
    assert budget.allowed(18.0) == 13
    assert budget.allowed(99.0) == 16


def test_connections_are_shared_and_nobody_is_left_without_but_the_last() -> None:
    budget = OriginBudget(64)
    assert budget.share(1, 16, 0, 0.0) == 16
    assert budget.share(8, 16, 0, 0.0) == 8
    assert budget.share(100, 16, 63, 0.0) == 1
    assert budget.share(100, 16, 64, 0.0) == 0
    assert budget.share(2, 16, 60, 0.0) == 4, "what others hold still is not given away"
    budget.complained(1.0, 0.0)
    assert budget.share(8, 16, 0, 0.0) == 4


def test_requests_a_second_are_kept_whatever_a_piece_costs() -> None:
    budget = RequestBudget(10.0)
    asked = 0
    for tick in range(1000):
        asked += sum([7, 1, 30][: budget.take([7, 1, 30], tick * 0.1)])
        assert asked <= 10 + 10 * tick * 0.1 + 30
    assert asked >= 950
    assert RequestBudget(None).take([5] * 100, 0.0) == 100


def test_a_stretch_that_is_one_stream_is_paid_whole_or_not_at_all() -> None:
    budget = RequestBudget(1.0)
    assert budget.take([3, 1, 1], 0.0, whole=True) == 3
    assert budget.take([1, 1], 1.0, whole=True) == 0
    assert budget.take([1, 1], 5.5, whole=True) == 2


def test_a_lease_is_cut_to_what_can_be_paid() -> None:
    leases = table(100)
    assert leases.claim("a", 4, 2, 0.0, afford=lambda pieces, whole: 2) == [0, 1]
    assert leases.claim("b", 4, 2, 0.0, afford=lambda pieces, whole: 0) == []
    assert leases.left == 98
    assert leases.granted == 2


def test_few_hosts_all_know_each_other() -> None:
    graph = Graph(everybody=8, degree=4, seed=1)
    for i in range(8):
        graph.join(f"h{i}")
    assert all(len(graph.neighbours(f"h{i}")) == 7 for i in range(8))


def test_many_hosts_are_one_connected_balanced_graph_that_survives_losses() -> None:
    graph = Graph(everybody=10, degree=10, seed=1)
    hosts = [f"h{i}" for i in range(400)]
    for number, host in enumerate(hosts):
        graph.join(host, f"zone{number % 3}")
    for host in hosts[:100]:
        graph.leave(host)
    alive = set(hosts[100:])
    assert all(graph.neighbours(h) <= alive for h in alive)
    reached, todo = {hosts[100]}, [hosts[100]]
    while todo:
        for other in graph.neighbours(todo.pop()) - reached:
            reached.add(other)
            todo.append(other)
    assert reached == alive
    degrees = [len(graph.neighbours(h)) for h in alive]
    assert min(degrees) >= 4
    assert max(degrees) <= 40


def test_what_is_late_is_found_and_nobody_is_late_for_a_pause_of_the_origin() -> None:
    leases = table(4)
    assert leases.claim("slow", 1, 4, 0.0, read=100) == [0]
    assert leases.claim("quick", 1, 4, 5.0) == [1]
    assert leases.late("idle", 2.0, 1.0) == []
    assert leases.late("idle", 2.0, 5.0) == [Late(0, "slow", 0.0, 100)]
    assert leases.late("slow", 2.0, 5.0) == [], "its own"
    assert leases.late("quick", 2.0, 8.0) == [], "it is late itself"
    leases.postpone(6.0)
    assert leases.late("idle", 2.0, 8.0) == []
    assert leases.late("idle", 2.0, 8.1) == [Late(0, "slow", 6.0, 100), Late(1, "quick", 6.0, 0)]
    assert leases.claim("slow", 1, 4, 8.0, read=150) == [2]
    assert leases.newest("slow") == Late(2, "slow", 8.0, 150)
    leases.done(0b1)
    assert leases.late("idle", 2.0, 8.1) == [Late(1, "quick", 6.0, 0)]


def test_a_stretch_without_ranges_is_never_late() -> None:
    leases = table(10, units=(0, 6))
    leases.claim("a", 1, 4, 0.0)
    assert leases.late("b", 2.0, 100.0) == []


def test_small_content_is_shared_out_at_once() -> None:
    leases = table(8)
    assert [leases.claim(host, 4, 4, 0.0, least=2) for host in "abcd"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    leases = table(100)
    assert len(leases.claim("a", 8, 60, 0.0, least=2)) == 2, "an even share is as much"
    leases = table(100)
    assert len(leases.claim("a", 8, 100, 0.0, least=2)) == 1, "an even share is less"
