"""Whoever has all of it says so: nobody waits for what a neighbour had before it could be told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, Settings
from dragonfly_ray.peer.neighbours import Neighbours
from dragonfly_ray.peer.parent_link import Parent
from dragonfly_ray.scheduling.download import state
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere
from tests.waiting import until


@pytest.fixture(autouse=True)
def _nobody_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour is asked only once what it has."""
    monkeypatch.setattr(state, "REFRESH_S", 3600.0)


def test_who_has_all_before_its_connections_stand_tells_its_neighbours(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.restart("limit_rate 32m;")
    built = swarm(3, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    seed = built.peers["n0"].host.id
    run = Parent.run

    def late(parent: Parent) -> None:
        if parent._engine.context.host_id == seed:
            until(lambda: parent._engine.picker.done)
        run(parent)

    monkeypatch.setattr(Parent, "run", late)
    assert_everywhere(built.distribute(f"{origin.url}/big"), content, 3)


def test_a_host_that_was_banned_elsewhere_hears_what_its_neighbours_have(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 8m;")
    built = swarm(3)
    barred = built.peers["n2"].host.id
    built.scheduler.core.hosts[barred].banned(time.monotonic())
    built.submit(f"{origin.url}/big")

    def shares() -> list[int]:
        return [built.pieces(f"n{number}") for number in range(3)]

    until(lambda: min(shares()[:2]) > 64)
    until(lambda: shares()[2] > 16)
    view = built.wait()
    assert_everywhere(view, content, 3)
    assert view["nodes"]["n2"]["bytes_origin"] == 0
    fed = {edge["parent"] for edge in built.scheduler.core.edges(next(iter(built.scheduler.core.tasks)))}
    assert barred not in fed, "and feeds nobody"


def test_what_a_barred_host_says_before_it_is_known_is_asked_of_nobody(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "REFRESH_S", 0.1)  # nobody tells it what is new before it is known
    origin.restart("limit_rate 8m;")
    built = swarm(3)
    barred = built.peers["n2"].host.id
    built.scheduler.core.hosts[barred].banned(time.monotonic())
    meet = Neighbours.meet

    def late(neighbours: Neighbours, neighbour: m.Neighbour) -> None:
        if neighbour.host.id != barred:
            meet(neighbours, neighbour)
            return

        def later() -> None:
            picker = neighbours._engine.picker
            until(lambda: picker.holder_bits(barred) or picker.done)
            meet(neighbours, neighbour)

        neighbours._engine.spawn("later", later)

    monkeypatch.setattr(Neighbours, "meet", late)
    assert_everywhere(built.distribute(f"{origin.url}/big"), content, 3)
    fed = {edge["parent"] for edge in built.scheduler.core.edges(next(iter(built.scheduler.core.tasks)))}
    assert barred not in fed
