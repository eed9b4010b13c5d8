"""The key that signs grants is handed to schedulers by a call: creations of actors are kept in Ray's control store."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from dragonfly_ray import messages as m
from dragonfly_ray.actors import controller, handles, nodes, scheduler
from dragonfly_ray.config import Settings, StorageSettings
from dragonfly_ray.grants import GrantVerifier, SigningKey
from tests.unit.one_scheduler import host
from tests.waiting import HANG


class Creations:
    """In place of `as_actor`: what every creation would tell Ray."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def __call__(self, cls: type, **groups: int) -> Creations:
        return self

    def options(self, **options: Any) -> Creations:
        self.told.append(pickle.dumps(options))
        return self

    def remote(self, *args: Any) -> None:
        self.told.append(pickle.dumps(args))
        raise ValueError("taken")  # as if somebody else had been faster


class Controller:
    """As schedulers see it: away at first, then it answers."""

    def __init__(self, key: SigningKey, failures: int) -> None:
        self._key, self._failures = key, failures
        self.asked = 0
        self.signing_key = self.directives = self

    def remote(self) -> asyncio.Future[bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.asked += 1
        if self.asked <= self._failures:
            answer.set_exception(ActorUnavailableError("restarting", None))
        else:
            answer.set_result(self._key.private_bytes())
        return answer


def test_no_creation_of_an_actor_holds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    creations = Creations()
    monkeypatch.setattr(controller, "as_actor", creations)
    monkeypatch.setattr(controller, "find", lambda name, namespace: None)
    row = {"NodeID": "n1", "NodeManagerAddress": "10.0.0.1", "Alive": True}

    async def create() -> bytes:
        made = controller.ControllerActor(Settings(storage=StorageSettings(root=tmp_path)))
        made._rows = {"n1": row}
        made._reconciler.tick(made._rows, 0.0)
        made._ensure_scheduler(0)
        made._ensure_scheduler(1)
        await made._bring_up("n1")
        return await made.signing_key()

    key = asyncio.run(create())
    assert len(creations.told) == 6, "two schedulers and one peer, each with options and arguments"
    assert not [told for told in creations.told if key in told]


@pytest.mark.parametrize("failures", [0, 2])
def test_a_scheduler_asks_for_its_key_before_it_looks_at_messages(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first start and, since Ray restarts it with the arguments of its creation, at every other one."""
    key = SigningKey.generate()
    there = Controller(key, failures)
    monkeypatch.setattr(handles, "find", lambda name, namespace: there if name == "controller" else None)
    monkeypatch.setattr(nodes, "table", list)
    monkeypatch.setattr(scheduler, "KEY_RETRY", 0.01)
    monkeypatch.setattr(scheduler.SchedulerActor, "_learn", _nothing)
    monkeypatch.setattr(scheduler.SchedulerActor, "_telemetry_loop", _nothing)

    async def announce() -> scheduler.SchedulerActor:
        made = scheduler.SchedulerActor(0, Settings())
        await asyncio.wait_for(made.call(m.encode(m.Announce(host(1)))), HANG)
        return made

    made = asyncio.run(announce())
    assert there.asked == failures + 1
    assert "h1" in made._core.hosts
    assert made._issuer is not None
    grant = made._issuer.issue("task", "h1", bytes(32), "", 60.0)
    assert GrantVerifier([key.public_bytes()]).verify(grant, "task", "h1") == bytes(32)


async def _nothing(self: scheduler.SchedulerActor) -> None:
    pass
