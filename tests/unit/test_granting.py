"""When a scheduler makes and renews grants: message by message."""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.model import Host, Task
from dragonfly_ray.scheduling.scheduler import SchedulerCore
from tests.unit.one_scheduler import TASK, Cluster, host, started

TTL = Settings().scheduler.grant_ttl


def test_a_grant_is_renewed_with_a_report_in_good_time() -> None:
    cluster = started(2)
    assert cluster.sent(m.Deliver, 0)[0].grant
    cluster.now += TTL / 3 - 1.0
    assert not cluster.report(0).grant, "it is good for long still"
    cluster.now += 1.0
    assert cluster.report(0).grant
    assert not cluster.report(0).grant, "once"
    cluster.now += TTL / 3
    assert cluster.report(0).grant


def tick(cluster: Cluster) -> None:
    """With everybody alive: they are heard of otherwise than by reports of the task."""
    cluster.core.beat("s.0", cluster.now)
    for each in cluster.core.hosts.values():
        each.last_seen = cluster.now
    cluster.do(cluster.core.tick(cluster.now))


def test_who_has_not_reported_gets_a_new_grant_all_the_same() -> None:
    cluster = started(2)
    cluster.now += TTL / 2 - 1.0
    tick(cluster)
    assert not [n for n in cluster.sent(m.TaskUpdate) if n.grant]
    cluster.report(0)
    cluster.now += TTL / 10 + 1.0
    tick(cluster)
    assert [len([n for n in cluster.sent(m.TaskUpdate, number) if n.grant]) for number in (0, 1)] == [0, 1]


def test_a_grant_that_a_parent_refused_is_replaced_at_once() -> None:
    cluster = started(2)
    assert cluster.report(0, grant_refused=True).grant


def test_a_scheduler_that_knows_of_no_grant_makes_one() -> None:
    """After its restart: what its predecessor signed may end at any time."""
    before = started(2)
    deliver = before.sent(m.Deliver, 0)[0]
    after = Cluster([host(0), host(1)])
    after.do(after.core.announce(m.Announce(host(0), deliveries=(deliver,)), after.now))
    assert after.report(0).grant
    assert not after.report(0).grant


def test_a_new_process_of_a_host_gets_a_grant_for_its_own_key() -> None:
    made: list[bytes] = []

    def sign(task: Task, to: Host) -> bytes:
        made.append(to.key)
        return b"grant"

    cluster = Cluster(())
    cluster.core = SchedulerCore(Settings(), sign)
    first = Host("h0", "n0", incarnation="1", key=b"1" * 32)
    again = Host("h0", "n0", incarnation="2", key=b"2" * 32)
    cluster.do(cluster.core.announce(m.Announce(first), cluster.now))
    cluster.submit([0])
    cluster.resolved()
    deliver = cluster.sent(m.Deliver, 0)[0]
    cluster.do(cluster.core.announce(m.Announce(again), cluster.now))
    assert made[0] == first.key
    assert made[-1] == again.key
    assert len(cluster.sent(m.Deliver, 0)) == 2
    assert deliver.task.id == TASK.id
