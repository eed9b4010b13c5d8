"""A cancel stops the work, and only its own. Whoever may not read the origin gets nothing that is cached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.model import Credentials
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm
from tests.unit.one_scheduler import Cluster, host, started
from tests.waiting import until

MIB = 1 << 20
CONTENT = os.urandom(24 * MIB)
KEY = {"X-Key": "right"}


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 3)
    yield made
    made.close()


def cancel(swarm: Swarm, spec_id: str) -> None:
    with swarm.scheduler.changed:
        swarm.scheduler.act(swarm.scheduler.core.cancel(spec_id, 1e9))


def received(swarm: Swarm) -> int:
    return sum(peer.telemetry.received for peer in swarm.peers.values())


def done_of(swarm: Swarm, spec_id: str) -> int:
    view = swarm.scheduler.core.view(spec_id)
    assert view is not None
    return sum(n["bytes_origin"] + n["bytes_peers"] for n in view["nodes"].values())


def at_rest(swarm: Swarm) -> bool:
    return not any(peer._runs or peer.queries.looks for peer in swarm.peers.values())


@pytest.mark.parametrize("pace", [2000.0, 300_000.0])
def test_reads_of_a_slow_origin_end(
    swarm: Swarm, origin: ScriptedOrigin, tmp_path: Path, pace: float
) -> None:
    origin.behaviour.pace = pace
    swarm.submit(origin.url)
    until(lambda: origin.sent > 3000)
    cancel(swarm, "s.0")
    assert {n["kind"] for n in swarm.wait()["nodes"].values()} == {"cancelled"}
    until(lambda: at_rest(swarm) and not origin.active, 20.0)
    before = origin.sent, len(origin.requests), received(swarm)
    (tmp_path / "f").write_bytes(b"x")  # while something else is done, nothing happens there
    assert swarm.distribute(f"file://{tmp_path}/f", "t.0", node="n0")["phase"] == "ended"
    assert (origin.sent, len(origin.requests)) == before[:2]
    assert received(swarm) - before[2] <= 3


def test_a_look_at_a_slow_origin_ends(swarm: Swarm, origin: ScriptedOrigin) -> None:
    """Of unknown length, so that all of it must be streamed once."""
    origin.behaviour.ranges = origin.behaviour.length = False
    origin.behaviour.pace = 3000.0
    swarm.submit(origin.url)
    until(lambda: origin.sent > 1000)
    cancel(swarm, "s.0")
    assert swarm.wait()["phase"] == "ended"
    until(lambda: at_rest(swarm) and not origin.active, 20.0)
    assert len(origin.requests) == 1
    for peer in swarm.peers.values():
        assert not list((peer.store.path / "spool").iterdir())


def test_another_distribution_of_the_same_task_goes_on(swarm: Swarm, origin: ScriptedOrigin) -> None:
    origin.behaviour.pace = 2 * MIB
    swarm.submit(origin.url, "a.0", credentials=Credentials({}, {"X-Who": "a"}))
    swarm.submit(origin.url, "b.0", credentials=Credentials({}, {"X-Who": "b"}))
    until(lambda: all(done_of(swarm, s) > MIB for s in ("a.0", "b.0")))
    cancel(swarm, "a.0")
    told = len(origin.headers)
    view = swarm.wait("b.0")
    assert {n["state"] for n in view["nodes"].values()} == {"done"}, view
    assert {n["kind"] for n in swarm.wait("a.0")["nodes"].values()} == {"cancelled"}
    assert "b" in {h.get("x-who") for h in origin.headers[told:]}, (
        "it reads with what opens the origin for it"
    )


# --- who may read -------------------------------------------------------------------------------


def test_what_is_cached_everywhere_is_refused_to_whoever_may_not_read_the_origin(
    swarm: Swarm, origin: ScriptedOrigin
) -> None:
    origin.behaviour.demand = KEY
    view = swarm.distribute(origin.url, "a.0", credentials=Credentials({}, KEY))
    assert {n["state"] for n in view["nodes"].values()} == {"done"}
    sent = origin.sent
    for spec_id, headers in (("b.0", {}), ("c.0", {"X-Key": "wrong"})):
        view = swarm.distribute(origin.url, spec_id, credentials=Credentials({}, headers))
        assert {(n["state"], n["kind"], n["path"]) for n in view["nodes"].values()} == {
            ("failed", "source-auth", "")
        }
    again = swarm.distribute(origin.url, "d.0", credentials=Credentials({}, KEY))
    assert {n["state"] for n in again["nodes"].values()} == {"done"}
    assert origin.sent - sent <= 1, "but for whoever may, it comes from the cache"


def test_whoever_joins_a_running_task_must_be_let_in_too(swarm: Swarm, origin: ScriptedOrigin) -> None:
    origin.behaviour.demand, origin.behaviour.pace = KEY, 2 * MIB
    swarm.submit(origin.url, "a.0", credentials=Credentials({}, KEY))
    until(lambda: done_of(swarm, "a.0") > MIB)
    view = swarm.distribute(origin.url, "b.0")
    assert {n["kind"] for n in view["nodes"].values()} == {"source-auth"}
    origin.behaviour.pace = None
    assert {n["state"] for n in swarm.wait("a.0")["nodes"].values()} == {"done"}


def test_content_without_a_version_is_not_shared_between_those_who_open_it_differently(
    swarm: Swarm, origin: ScriptedOrigin
) -> None:
    """It may be another for each of them, and just as long."""
    origin.behaviour.etag = ""
    found = []
    for number, who in enumerate(("a", "b", "a")):
        view = swarm.distribute(origin.url, f"{number}.0", credentials=Credentials({}, {"X-Who": who}))
        found.append(view["task_id"])
    assert found[0] == found[2] != found[1]


# --- a scheduler that has forgotten -------------------------------------------------------------


def delivery_of(cluster: Cluster, number: int) -> m.Deliver:
    return cluster.sent(m.Deliver, number)[0]


def test_what_was_cancelled_while_nobody_knew_it_is_stopped_when_it_comes() -> None:
    before = started(2)
    hosts = [host(0), host(1)]
    after = Cluster(())
    after.do(after.core.cancel("s.0", after.now))
    for number, each in enumerate(hosts):
        after.do(after.core.announce(m.Announce(each, (), (delivery_of(before, number),)), after.now))
        assert [c.spec_id for c in after.sent(m.Cancel, number)] == ["s.0"]
    assert after.core.view("s.0") is None
    after.submit(range(2))
    view: dict[str, Any] = after.view()
    assert view["phase"] == "ended"
    assert {n["kind"] for n in view["nodes"].values()} == {"cancelled"}
    after.now += 700.0
    after.do(after.core.tick(after.now))
    after.do(after.core.tick(after.now))
    assert after.core.cluster.cancelled == {}


def test_a_resolver_hears_that_nobody_waits_any_more() -> None:
    cluster = Cluster(host(i) for i in range(3))
    cluster.submit(range(3))
    cluster.do(cluster.core.cancel("s.0", cluster.now))
    assert {c.spec_id for c in cluster.sent(m.Cancel)} == {"s.0"}
