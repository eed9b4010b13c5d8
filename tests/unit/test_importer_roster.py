"""Which hosts import for a zone, as the scheduler's core tells the peers: those that fetch it, whatever happens."""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.config import SchedulerSettings, Settings
from dragonfly_ray.model import Endpoint, Host, digest
from dragonfly_ray.scheduling.scheduler import SchedulerCore, Send
from tests.unit.one_scheduler import PIECES, TASK, Cluster

ZONES = "ab"
EVERYTHING = tuple(range(PIECES))
RECORD = tuple((i, digest(b"%d" % i)) for i in EVERYTHING)


def host(number: int, *, seed: bool = False) -> Host:
    return Host(f"h{number}", f"n{number}", (Endpoint("10.0.0.1", 1000 + number),), f"host{number}", seed,
                idc=ZONES[number % 2], incarnation="1")  # fmt: skip


def begun(count: int = 12, importers: int = 2, *, seeds: int = 0) -> Cluster:
    """Even hosts are in zone a, odd ones in b."""
    cluster = Cluster([])
    settings = Settings(scheduler=SchedulerSettings(importers=importers))
    cluster.core = SchedulerCore(settings, lambda task, host: b"grant")
    for number in range(count):
        cluster.do(cluster.core.announce(m.Announce(host(number, seed=number < seeds)), cluster.now))
    return cluster


def started(count: int = 12, importers: int = 2, *, seeds: int = 0) -> Cluster:
    cluster = begun(count, importers, seeds=seeds)
    cluster.submit(range(count))
    cluster.resolved()
    return cluster


class Views:
    """What each host was told of the importers of its own zone."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._seen = 0
        self.of: dict[str, dict[str, bool]] = {}

    def importers(self, number: int) -> set[str]:
        """As the peer would have it: who left, is silent or only gives is none."""
        for action in self.cluster.said[self._seen :]:
            if not isinstance(action, Send):
                continue
            view, message = self.of.setdefault(action.host, {}), action.message
            if isinstance(message, m.Deliver):
                view[action.host] = message.importer
                self._meet(action.host, message.neighbours)
            elif isinstance(message, m.TaskUpdate):
                for gone in (*message.left, *message.banned):
                    view.pop(gone, None)
                self._meet(action.host, message.joined)
        self._seen = len(self.cluster.said)
        return {name for name, does in self.of[f"h{number}"].items() if does}

    def _meet(self, who: str, neighbours: tuple[m.Neighbour, ...]) -> None:
        for each in neighbours:
            if int(each.host.id[1:]) % 2 == int(who[1:]) % 2:
                self.of[who][each.host.id] = each.importer and not each.complete and not each.silent


def agreed(cluster: Cluster, views: Views, zone: list[int]) -> set[str]:
    """The importers that all of these hosts know, which must be the same for all."""
    cluster.now += 0.3
    cluster.do(cluster.core.tick(cluster.now))
    found = {frozenset(views.importers(number)) for number in zone}
    assert len(found) == 1, found
    return set(found.pop())


def taken(cluster: Cluster, views: Views) -> tuple[int, set[str]]:
    """One of the two importers of zone a, and both."""
    before = agreed(cluster, views, [0, 2, 4, 6, 8, 10])
    assert len(before) == 2
    return int(min(before)[1:]), before


def left(gone: int) -> list[int]:
    return [number for number in (0, 2, 4, 6, 8, 10) if number != gone]


def test_a_draining_importer_is_succeeded() -> None:
    cluster = started()
    views = Views(cluster)
    cluster.report(1, got=EVERYTHING[:10], origin=RECORD[:10])
    one, before = taken(cluster, views)
    cluster.do(cluster.core.mark([f"n{one}"], [f"n{one}"], cluster.now))
    after = agreed(cluster, views, left(one))
    assert len(after) == 2
    assert f"h{one}" not in after
    assert before - {f"h{one}"} < after


def test_an_importer_whose_distribution_was_cancelled_is_succeeded() -> None:
    cluster = begun()
    cluster.submit([0, 2, 1, 3])
    cluster.resolved()
    cluster.submit([4, 6, 8, 10, 5, 7], "t.0")
    cluster.resolved("t.0")
    views = Views(cluster)
    assert agreed(cluster, views, [4, 6, 8, 10]) == {"h0", "h2"}
    cluster.do(cluster.core.cancel("s.0", cluster.now))
    after = agreed(cluster, views, [4, 6, 8, 10])
    assert len(after) == 2
    assert not after & {"h0", "h2"}


def test_an_importer_that_has_failed_is_succeeded() -> None:
    cluster = started()
    views = Views(cluster)
    one, before = taken(cluster, views)
    cluster.end(one, ok=False)
    after = agreed(cluster, views, left(one))
    assert len(after) == 2
    assert f"h{one}" not in after
    assert before - {f"h{one}"} < after


def test_a_banned_importer_is_succeeded() -> None:
    cluster = started()
    views = Views(cluster)
    one, _ = taken(cluster, views)
    for number in [*left(one), 1, 3, 5, 7, 9, 11]:
        cluster.report(number, bad=(f"h{one}",) * 4)
    assert f"h{one}" in cluster.core.tasks[TASK.id].banned
    after = agreed(cluster, views, left(one))
    assert len(after) == 2
    assert f"h{one}" not in after


def test_one_that_drops_the_task_parts_from_its_neighbours() -> None:
    """It has had all of it for long, and takes no part in the distribution that runs."""
    cluster = begun()
    cluster.submit([0])
    cluster.resolved()
    cluster.report(0, got=EVERYTHING, origin=RECORD)
    cluster.end(0)
    cluster.submit(range(1, 12), "t.0")
    cluster.resolved("t.0")
    assert "h0" in cluster.core.tasks[TASK.id].graph.neighbours("h4")
    cluster.said.clear()
    cluster.do(cluster.core.evicted("h0", TASK.id, cluster.now))
    assert not cluster.core.tasks[TASK.id].graph.neighbours("h0")
    assert [n.left for n in cluster.sent(m.TaskUpdate, 4)] == [("h0",)]


def test_those_who_have_it_all_take_no_place_from_those_who_come_later() -> None:
    cluster = begun()
    cluster.submit([0, 1, 2, 3])
    cluster.resolved()
    for number in range(4):
        cluster.report(number, got=EVERYTHING, origin=RECORD if number == 0 else ())
        cluster.end(number)
    cluster.said.clear()
    cluster.submit(range(4, 12), "t.0")
    cluster.resolved("t.0")
    views = Views(cluster)
    assert len(agreed(cluster, views, [4, 6, 8, 10])) == 2


def test_those_who_have_it_all_keep_their_places_to_the_end_of_a_distribution() -> None:
    """So that its last moments are not full of news."""
    cluster = started()
    views = Views(cluster)
    one, before = taken(cluster, views)
    cluster.report(one, got=EVERYTHING, origin=RECORD)
    cluster.end(one)
    cluster.said.clear()
    views._seen = 0
    assert agreed(cluster, views, left(one)) == before


def test_seeds_take_no_place() -> None:
    cluster = started(seeds=4)
    views = Views(cluster)
    found = agreed(cluster, views, [4, 6, 8, 10])
    assert len(found) == 2
    assert not found & {"h0", "h2"}


def test_a_zone_without_anybody_fit_gets_importers_once_there_are_some() -> None:
    cluster = begun()
    cluster.core.mark(["n1", "n3"], ["n1", "n3"], cluster.now)
    cluster.submit([0, 1, 2, 3])
    cluster.resolved()
    views = Views(cluster)
    assert agreed(cluster, views, [1, 3]) == set()
    cluster.do(cluster.core.mark([], [], cluster.now))
    assert agreed(cluster, views, [1, 3]) == {"h1", "h3"}
