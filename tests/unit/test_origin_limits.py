"""What an origin bears, and what it says: message by message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.scheduling.scheduler import Ask, SchedulerCore
from tests.unit.one_scheduler import PIECES, SOURCE, TASK, Cluster, host, started


def test_one_busy_answer_slows_everybody() -> None:
    cluster = started(3)
    cluster.do(cluster.core.throttled(m.Throttled("h0", TASK.id, 3.0), cluster.now))
    assert all(any(n.not_before == 3.0 for n in cluster.sent(m.TaskUpdate, to)) for to in range(3))
    for number in range(3):
        reply = cluster.report(number, claim=4)
        assert reply.lease == ()
        assert reply.not_before == pytest.approx(3.0)
    cluster.now += 3.1
    assert cluster.report(1, claim=4, bytes_origin=1).lease


def test_a_final_error_of_the_origin_ends_the_distribution_everywhere() -> None:
    cluster = started(3)
    failed = m.OriginFailed("h0", TASK.id, "source-auth", "403", (0,), final=True)
    cluster.do(cluster.core.origin_failed(failed, cluster.now))
    assert cluster.view()["phase"] == "ended"
    assert len(cluster.sent(m.Cancel)) == 3


def test_an_origin_may_fail_for_a_while() -> None:
    cluster = started(2)
    failed = m.OriginFailed("h0", TASK.id, "source-unreachable", "refused", (0,), final=False)
    cluster.do(cluster.core.origin_failed(failed, cluster.now))
    assert cluster.view()["phase"] == "running"
    cluster.now += 31.0
    cluster.do(cluster.core.origin_failed(failed, cluster.now))
    assert cluster.view()["phase"] == "ended"


FOLDER = msgspec.structs.replace(TASK, directory=True, entries=1000)


def in_a_folder(count: int, **origin: Any) -> Cluster:
    """A folder of small files, ten to a piece, on its way to `count` hosts."""
    cluster = Cluster(host(i) for i in range(count))
    cluster.core = SchedulerCore(Settings(origin=OriginSettings(**origin)), lambda task, host: b"grant")
    for number in range(count):
        cluster.do(cluster.core.announce(m.Announce(host(number)), cluster.now))
    cluster.submit(range(count))
    answer = m.Resolved(task=FOLDER, manifest=b"m", requests=(10,) * PIECES)
    cluster.do(cluster.core.resolved("s.0", answer, cluster.now))
    return cluster


@pytest.mark.parametrize(("count", "most"), [(3, 64), (10, 64), (50, 20)])
def test_all_connections_together_stay_within_the_budget(count: int, most: int) -> None:
    cluster = in_a_folder(count, max_connections=most)
    told = {n: d.connections for n in range(count) for d in cluster.sent(m.Deliver, n) if d.lease}
    for tick in range(300):
        number = tick % count
        cluster.now += 0.01
        reply = cluster.report(number, claim=2, bytes_origin=tick)
        if reply.lease or number in told:
            told[number] = reply.connections
        assert sum(told.values()) <= most
        assert all(1 <= n <= OriginSettings().small_connections for n in told.values())
    assert len(told) == min(count, most)


def test_a_busy_answer_halves_what_each_may_open_at_once() -> None:
    cluster = in_a_folder(4, max_connections=64)
    assert {d.connections for d in cluster.sent(m.Deliver)} == {16}
    cluster.do(cluster.core.throttled(m.Throttled("h0", TASK.id, 3.0), cluster.now))
    assert [n.connections for n in cluster.sent(m.TaskUpdate) if n.not_before] == [8] * 4
    cluster.now += 3.0
    assert cluster.report(1, claim=2, bytes_origin=1).connections == 8


def test_two_folders_of_one_origin_share_its_connections() -> None:
    cluster = in_a_folder(2, max_connections=16)
    other = msgspec.structs.replace(FOLDER, id="other")
    cluster.submit([0, 1], "b.0")
    cluster.do(cluster.core.resolved("b.0", m.Resolved(task=other, manifest=b"m"), cluster.now))
    for number in (0, 1):
        assert cluster.report(number, claim=2).connections <= 4
    for number in (0, 1):
        reply, _ = cluster.core.report(m.Report(f"h{number}", "other", claim=2), cluster.now)
        assert reply.connections == 4


def test_content_that_has_changed_takes_no_share_of_its_origin_any_more() -> None:
    cluster = in_a_folder(4, max_connections=32)
    assert {d.connections for d in cluster.sent(m.Deliver)} == {8}
    changed = m.OriginFailed("h0", FOLDER.id, "source-changed", "has changed", (0,), final=True)
    cluster.do(cluster.core.origin_failed(changed, cluster.now))
    other = msgspec.structs.replace(FOLDER, id="other")
    cluster.do(cluster.core.resolved("s.0", m.Resolved(task=other, manifest=b"m"), cluster.now))
    for number in range(4):
        reply, _ = cluster.core.report(m.Report(f"h{number}", "other", claim=2), cluster.now)
        assert reply.connections == 8


def test_a_complaint_counts_once_however_many_tasks_its_origin_has() -> None:
    cluster = in_a_folder(2, max_connections=64)
    for number in range(3):
        other = msgspec.structs.replace(FOLDER, id=f"other{number}")
        cluster.submit([0, 1], f"b{number}.0")
        answer = m.Resolved(task=other, manifest=b"m")
        cluster.do(cluster.core.resolved(f"b{number}.0", answer, cluster.now))
    (key,) = cluster.core.budgets
    cluster.do(cluster.core.patience(key, 0.0, cluster.now))
    assert cluster.core.budgets[key].allowed(cluster.now) == 32


def test_leases_cost_what_they_ask_of_the_origin() -> None:
    cluster = in_a_folder(4, max_requests=20.0)
    leased = [p for d in cluster.sent(m.Deliver) for p in d.lease]
    started = cluster.now
    for tick in range(2000):
        cluster.now += 0.01
        leased += cluster.report(tick % 4, claim=4, bytes_origin=tick).lease
        assert 10 * len(leased) <= 20 + 20 * (cluster.now - started) + 10
    assert 10 * len(leased) >= 390


def test_helpers_that_look_share_what_the_origin_allows() -> None:
    cluster = in_a_folder(4, max_connections=12, max_requests=8.0)
    asked = [a.message for a in cluster.said if isinstance(a, Ask)]
    (ask,) = [each for each in asked if isinstance(each, m.Resolve)]
    assert (len(ask.helpers), ask.connections, ask.rate) == (3, 3, 2.0)
    look = m.Stat(ask.helpers[0], SOURCE)
    assert not cluster.core.may_look(look), "it is resolved"
