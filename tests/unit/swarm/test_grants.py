"""Runs that outlive their grants, and hosts that are banned while they are fed."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest

from dragonfly_ray import grants
from dragonfly_ray import messages as m
from dragonfly_ray.config import OriginSettings, SchedulerSettings, Settings
from dragonfly_ray.peer.download import TaskDownload
from tests.nginx import Nginx
from tests.swarm import Swarm
from tests.unit.swarm.conftest import assert_everywhere, kinds
from tests.waiting import until

TTL = 1.0


def running(built: Swarm, node: str) -> TaskDownload:
    found: list[TaskDownload] = []

    def fetches() -> bool:
        found[:] = [r for r in built.peers[node]._runs.values() if r.opened and r.neighbours.parents]
        return bool(found)

    until(fetches)
    return found[0]


def expiry(grant: bytes) -> float:
    claims = msgspec.msgpack.decode(grant[grants.SIGNATURE_SIZE :], type=grants._Claims)
    return claims.expires


def test_a_run_that_outlives_its_grant_connects_anew(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "SKEW", 0.0)
    origin.restart("limit_rate 4m;")
    known = Settings(origin=OriginSettings(policy="seeds"), scheduler=SchedulerSettings(grant_ttl=TTL))
    built = swarm(3, seeds=1, settings=known)
    built.submit(f"{origin.url}/big")
    runs = [running(built, node) for node in ("n1", "n2")]
    ends = max(expiry(run.grant) for run in runs)
    until(lambda: time.time() > ends and all(expiry(run.grant) > ends for run in runs))
    for run in runs:
        assert not run.engine.picker.done
        for parent in run.neighbours.parents.values():
            if parent._connection:
                parent._connection.close()
    assert_everywhere(built.wait(), content, 3)


def test_a_host_that_is_banned_while_it_is_fed_gets_no_more(
    origin: Nginx, swarm: Callable[..., Swarm], content: bytes
) -> None:
    origin.restart("limit_rate 2m;")
    built = swarm(4, seeds=1, settings=Settings(origin=OriginSettings(policy="seeds")))
    built.submit(f"{origin.url}/big")
    run = running(built, "n1")
    until(lambda: run.engine.state.bytes.peers > 0)
    banned = built.peers["n1"].host.id
    others = [built.peers[node] for node in ("n0", "n2", "n3")]
    for peer in others:
        built.scheduler.call(m.Report(peer.host.id, run.task.id, bad=(banned, banned)))
    view = built.wait()
    assert kinds(view) == {"n0": "", "n1": "integrity", "n2": "", "n3": ""}
    assert "n1 was banned" in view["nodes"]["n1"]["message"]
    for peer in others:
        until(lambda peer=peer: (run.task.id, banned) not in peer.server._known)  # type: ignore[misc]
    assert built.pieces("n1") < built.pieces("n2")
