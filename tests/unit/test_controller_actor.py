"""The controller's actor without Ray: what the answers to its health checks lead to."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from dragonfly_ray.actors.controller import ControllerActor
from dragonfly_ray.config import Settings, StorageSettings
from dragonfly_ray.scheduling.reconciler import STRIKES

task_error: Any = RayTaskError


class Peer:
    """Every method answers the same."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0
        self.brief = self.trust = self

    def remote(self, *args: Any) -> asyncio.Future[Any]:
        self.asked += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(self.answer, Exception):
            answer.set_exception(self.answer)
        else:
            answer.set_result(self.answer)
        return answer


@pytest.mark.parametrize(
    ("answer", "checks"),
    [
        (ActorDiedError(), 1),
        (ActorUnavailableError("away", None), STRIKES),
        (TimeoutError(), STRIKES),
        (task_error("brief", "trace", KeyError("x")).as_instanceof_cause(), STRIKES),
        (task_error("brief", "trace", ActorDiedError()).as_instanceof_cause(), STRIKES),
        (b"no status", STRIKES),
    ],
    ids=["died", "unavailable", "late", "fails", "met a death", "is no status"],
)
def test_a_peer_whose_checks_fail_is_replaced(
    answer: Any, checks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", lambda peer, no_restart: killed.append(peer))

    async def check() -> tuple[int, str]:
        made = ControllerActor(Settings(storage=StorageSettings(root=tmp_path)))
        peer, known = Peer(answer), made._reconciler
        known.tick(["n1"], 0.0)
        known.ready("n1", 0.0)
        made._peers["n1"] = peer
        for turn in range(1, 2 * STRIKES):
            for action in known.tick(["n1"], time.monotonic() + 1000.0 * turn):
                made._act(action)
            while made._jobs:
                await asyncio.sleep(0)
            if known.peers["n1"].state == "failed":
                break
        assert killed == [peer] or checks == 1
        return peer.asked, known.peers["n1"].state

    assert asyncio.run(check()) == (checks, "failed")
