"""What a real actor that is suspended, killed or refuses comes to, for those who call it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
import ray

from dragonfly_ray.actors.connect import Actors
from dragonfly_ray.actors.failures import CallFailure
from dragonfly_ray.actors.handles import as_actor
from dragonfly_ray.errors import InvalidRequestError, NotRunningError
from tests.cluster.conftest import LocalCluster, until

pytestmark = pytest.mark.cluster
HANG = 60.0


def verdict(actors: Actors, method: str = "pid", timeout: float = HANG) -> str:
    """Of one call to it, awaited."""
    try:
        asyncio.run(actors.ask("victim", method, timeout=timeout))
    except CallFailure as failure:
        return failure.verdict
    return "answered"


def test_what_is_known_of_an_actor_that_is_suspended_and_killed(cluster: LocalCluster) -> None:
    class Victim:
        async def pid(self) -> int:
            return os.getpid()

        async def refuse(self) -> None:
            raise InvalidRequestError("no")

    def start() -> Any:
        made = as_actor(Victim).options(name="victim", namespace="calls", num_cpus=0, max_restarts=0).remote()
        return made, ray.get(made.pid.remote(), timeout=HANG)

    actors = Actors("calls")
    assert verdict(actors) == "died", "there is none"
    with pytest.raises(NotRunningError, match="victim is not running"):
        actors.call("victim", "pid", timeout=HANG)
    kept, pid = start()
    assert verdict(actors) == "answered"
    assert verdict(actors, "refuse") == "alive"
    with pytest.raises(InvalidRequestError, match=r"^no$") as refused:
        actors.call("victim", "refuse", timeout=HANG)
    assert type(refused.value) is InvalidRequestError
    os.kill(pid, signal.SIGSTOP)
    try:
        assert verdict(actors, timeout=1.0) == "silent"
        with pytest.raises(NotRunningError, match="victim did not respond: TimeoutError"):
            actors.call("victim", "pid", timeout=1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert verdict(actors) == "answered"
    os.kill(pid, signal.SIGKILL)
    until(lambda: verdict(actors) == "died")
    del kept
    until(_absent)
    kept, again = start()
    assert actors.call("victim", "pid", timeout=HANG) == again != pid, "a successor is found"
    ray.kill(kept)


def _absent() -> bool:
    try:
        ray.get_actor("victim", namespace="calls")
    except ValueError:
        return True
    return False
