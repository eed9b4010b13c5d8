"""A scheduler and its peers that run for months do not grow: what is gone is forgotten."""

from __future__ import annotations

import gc
import logging
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import Credentials, Endpoint, Host, Source, Task, digest
from dragonfly_ray.scheduling import decisions
from dragonfly_ray.scheduling.retention import KEEP_HOST
from dragonfly_ray.scheduling.scheduler import KEEP_ENDED, SWEEP
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.one_scheduler import Cluster, host
from tests.waiting import until

PIECES = 4
STEP = 5.0
"""Seconds of the core's clock that each distribution takes."""


class Months:
    """Distributions one after the other, each of its own origin; of three hosts the oldest goes now and then."""

    def __init__(self) -> None:
        self.cluster = Cluster([])
        self.core = self.cluster.core
        self.hosts: list[Host] = []
        self.joined = self.number = 0
        for _ in range(3):
            self.join()

    def join(self) -> None:
        n = self.joined
        new = Host(f"h{n}", f"n{n}", (Endpoint("10.0.0.1", 1000),), f"host{n}", incarnation="1")
        self.joined += 1
        self.hosts.append(new)
        self.core.announce(m.Announce(new, sequence=f"q{n}"), self.cluster.now)

    def leave(self) -> None:
        self.core.node_gone(self.hosts.pop(0).node_id, self.cluster.now)

    def distribute(self) -> None:
        core, now, spec_id = self.core, self.cluster.now, f"s{self.number}.0"
        source = Source(f"http://origin{self.number}.example.org/f")
        task = Task(digest(source.id.encode()).hex(), source.id, source.url, "", b"d" * 32, 1, PIECES, PIECES, 1,
                    False, True)  # fmt: skip
        targets = self.hosts[:2]
        core.submit(
            m.DistributionSpec(spec_id, source, tuple(h.node_id for h in targets), run=spec_id),
            Credentials(),
            now,
        )
        core.resolved(spec_id, m.Resolved(task=task, manifest=b"m"), now)
        every = tuple(range(PIECES))
        for reader, other in (targets, reversed(targets)):
            origin = tuple((p, digest(b"%d" % p)) for p in every)
            core.report(m.Report(reader.id, task.id, got=every, origin=origin, parents=((other.id, 5),)), now)
            core.throttled(m.Throttled(reader.id, task.id, 1.0), now)
        for each in targets:
            core.ended(m.Ended(each.id, spec_id, task.id, ok=True, run=spec_id), now)
        core.cancel(f"unknown{self.number}.0", now)
        for each in targets:
            core.evicted(each.id, task.id, 0.0)
        self.number += 1
        self.cluster.now += STEP
        core.tick(self.cluster.now)

    def go(self, distributions: int, every: int) -> None:
        for _ in range(distributions):
            if self.number % every == 0:
                self.join()
                self.leave()
            self.distribute()

    def sizes(self) -> dict[str, int]:
        known = self.core.cluster
        named = {name: getattr(known, name) for name in known.__slots__}
        return {name: len(value) for name, value in named.items() if hasattr(value, "__len__")}


@pytest.fixture
def months(monkeypatch: pytest.MonkeyPatch) -> Iterator[Months]:
    # The log is bounded, and full after some thousands of decisions; here it is full soon.
    monkeypatch.setattr(decisions, "KEPT", dict.fromkeys(decisions.KEPT, 100))
    logging.disable(logging.CRITICAL)  # pytest keeps every record: what it holds is not the scheduler's
    yield Months()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_distributions_and_hosts_that_are_gone_leave_nothing_behind(months: Months, count: int) -> None:
    warm = int(2 * max(KEEP_ENDED, KEEP_HOST) / STEP)
    tracemalloc.start()
    try:
        months.go(warm, every=10)
        gc.collect()
        before, sizes = tracemalloc.get_traced_memory()[0], months.sizes()
        months.go(count, every=10)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert months.joined > count / 10
    grown = {name: size for name, size in months.sizes().items() if size > sizes[name] + 3}
    assert not grown
    assert after < 1.05 * before, months.sizes()


def test_a_host_that_was_given_up_is_remembered_for_a_while(months: Months) -> None:
    months.leave()
    months.cluster.now += KEEP_HOST - 1
    months.core.tick(months.cluster.now)
    assert months.core.missed() == ["n0"]
    months.cluster.now += SWEEP + 2
    months.core.tick(months.cluster.now)
    assert months.core.missed() == []
    assert "n0" not in months.core.by_node


def test_a_host_that_others_wait_for_is_not_forgotten() -> None:
    cluster = Cluster([host(0), host(1)])
    cluster.submit([0, 1])
    cluster.resolved()
    cluster.do(cluster.core.probed("h0", "died", cluster.now))
    for _ in range(5):
        cluster.now += KEEP_HOST
        cluster.core.beat("s.0", cluster.now)
        cluster.core.hosts["h1"].last_seen = cluster.now
        cluster.do(cluster.core.tick(cluster.now))
    assert "h0" in cluster.core.hosts


def test_a_budget_that_an_origin_has_complained_about_is_kept_until_that_counts_no_more(
    months: Months,
) -> None:
    months.distribute()
    (key,) = months.core.budgets
    budget = months.core.budgets[key]
    budget.complained(100.0, months.cluster.now)
    for _ in range(10):
        months.cluster.now += SWEEP + 1
        months.core.tick(months.cluster.now)
    assert key in months.core.budgets, "it still has fewer connections than a new one"
    months.cluster.now += 1000
    months.core.tick(months.cluster.now)
    assert months.core.budgets == {}


# --- peers ------------------------------------------------------------------------------------------


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 2)
    yield made
    made.close()


def test_a_peer_remembers_so_many_outcomes_and_nothing_else(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragonfly_ray.peer.outcomes.MAX_KEPT", 5)
    content = os.urandom(1000)
    with ScriptedOrigin(Behaviour(content)) as origin:
        for number in range(12):
            swarm.distribute(f"{origin.url}?{number}", f"s{number}.0")
    for peer in swarm.peers.values():
        until(lambda peer=peer: not (peer._runs or peer.outcomes.unheard))  # type: ignore[misc]
        assert len(peer.outcomes) == 5
        assert (peer.queries.looks, peer.queries.looking) == ({}, {})
        assert len(peer._inbox._senders) == 1
    assert len(swarm.scheduler.outbox) == 0
