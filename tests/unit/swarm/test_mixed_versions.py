"""Two neighbouring builds in one cluster, as while its nodes are updated one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from dragonfly_ray.errors import LocalProtocolError
from dragonfly_ray.model import Host
from dragonfly_ray.transport.negotiation import (
    CURRENT,
    LEAST_VERSION,
    VERSION,
    Agreed,
    Capabilities,
    Feature,
)
from dragonfly_ray.transport.parent_connection import ParentConnection
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import SIZE, assert_everywhere, patient

OLDER = Capabilities(VERSION - 1, LEAST_VERSION, 0)
"""A second build: one version and one feature fewer."""


def test_half_of_the_nodes_run_the_build_before(
    swarm: Callable[..., Swarm], origin: Nginx, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: Counter[tuple[bool, bool, Agreed]] = Counter()
    original = ParentConnection.open.__func__  # type: ignore[attr-defined]
    older: set[str] = set()

    def counting(cls: type[ParentConnection], parent: Host, *rest: object) -> ParentConnection:
        made: ParentConnection = original(cls, parent, *rest)
        met[rest[-1] == OLDER, parent.id in older, made.agreed] += 1
        return made

    monkeypatch.setattr(ParentConnection, "open", classmethod(counting))
    built = swarm(0, settings=patient(), capabilities=lambda number: OLDER if number % 2 else CURRENT)
    for number in range(6):
        peer = built.start(f"n{number}")
        if number % 2:
            older.add(peer.host.id)
    view = built.distribute(f"{origin.url}/big")
    assert_everywhere(view, content, 6)
    assert sum(record["bytes_origin"] for record in view["nodes"].values()) == SIZE
    assert not any(task.banned for task in built.scheduler.core.tasks.values())
    agreed = {(child, parent): what for child, parent, what in met}
    assert agreed == {
        (False, False): Agreed(VERSION, Feature.ENCODINGS),
        (False, True): Agreed(VERSION - 1),
        (True, False): Agreed(VERSION - 1),
        (True, True): Agreed(VERSION - 1),
    }


def test_nobody_is_banned_for_what_this_side_does_wrong(
    swarm: Callable[..., Swarm], origin: Nginx, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a fault of ours: the connection ends, and another is made."""
    original, failed = ParentConnection.request, list[int]()

    def request(connection: ParentConnection, first: int, count: int) -> None:
        if len(failed) < 3:
            failed.append(first)
            raise LocalProtocolError("a fault of ours")
        original(connection, first, count)

    monkeypatch.setattr(ParentConnection, "request", request)
    built = swarm(3)
    assert_everywhere(built.distribute(f"{origin.url}/big"), content, 3)
    assert len(failed) == 3
    assert not any(task.banned for task in built.scheduler.core.tasks.values())
