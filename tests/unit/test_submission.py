"""What a submission's future says of its end."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from dragonfly_ray import messages as m
from dragonfly_ray.actors import handles
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import (
    CancelledByUserError,
    ClusterError,
    DeadlineError,
    DragonflyError,
    StorageError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.submission import Submission
from tests.origins import Behaviour, ScriptedOrigin
from tests.swarm import Swarm


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path / "swarm", 2)
    yield made
    made.close()


def wrapped(cause: Exception) -> Any:
    """As Ray brings it."""
    made: Any = RayTaskError
    return made("method", "trace", cause)


def submission_of(swarm: Swarm, spec_id: str = "s.0") -> Submission:
    """One that has seen what the scheduler says now."""
    state = swarm.scheduler.core.specs[spec_id]
    found = Submission("s", [state.spec], Credentials(), Settings(), {node: node for node in swarm.peers})
    view = swarm.scheduler.core.view(spec_id)
    assert view is not None
    found._take({spec_id: view})
    return found


@pytest.mark.parametrize(
    ("kind", "raised"), [("cancelled", CancelledByUserError), ("deadline", DeadlineError)]
)
def test_what_was_cancelled_raises(swarm: Swarm, kind: str, raised: type[DragonflyError]) -> None:
    with ScriptedOrigin(Behaviour(b"x" * 10_000_000, pace=1000.0)) as origin:
        swarm.submit(origin.url)
        with swarm.scheduler.changed:
            swarm.scheduler.act(swarm.scheduler.core.cancel("s.0", 1e9, kind, "somebody said so"))
        swarm.wait()
        submission = submission_of(swarm)

        async def wait() -> Any:
            return await submission

        waits: list[Callable[[], Any]] = [lambda: submission.result(1), lambda: asyncio.run(wait())]
        for result in waits:
            with pytest.raises(raised, match="somebody said so") as caught:
                result()
            found = caught.value.details["distribution"]
            assert {o.error.kind for o in found.outcomes} == {kind}
            again = pickle.loads(pickle.dumps(caught.value))
            assert (type(again), str(again)) == (raised, str(caught.value))
            assert json.dumps(caught.value.to_dict(), default=str)


def test_what_failed_by_itself_is_returned(swarm: Swarm) -> None:
    with ScriptedOrigin(Behaviour(b"x" * 1000, status=404)) as origin:
        swarm.distribute(origin.url)
        assert not submission_of(swarm).result(1).ok


def test_what_ended_before_the_cancel_stays_well(swarm: Swarm) -> None:
    with ScriptedOrigin(Behaviour(b"x" * 1000)) as origin:
        swarm.distribute(origin.url)
        with swarm.scheduler.changed:
            swarm.scheduler.act(swarm.scheduler.core.cancel("s.0", 1e9))
        assert submission_of(swarm).result(1).ok


@pytest.mark.parametrize(
    ("cause", "raised", "says"),
    [
        (StorageError("f: was evicted"), StorageError, "f: was evicted"),
        (
            FileNotFoundError("secret"),
            ClusterError,
            "this node's peer failed: FileNotFoundError; see its log",
        ),
    ],
)
def test_no_error_of_an_actor_comes_wrapped(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, raised: type[Exception], says: str
) -> None:
    def get(*args: Any, **named: Any) -> Any:
        raise wrapped(cause).as_instanceof_cause()

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(raised) as caught:
        handles.get(None, 1.0, "this node's peer")
    assert type(caught.value) is raised
    assert str(caught.value) == says


def test_what_a_scheduler_refuses_ends_the_submission_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = DragonflyError("refused")
    found = Submission(
        "s", [m.DistributionSpec("s.0", Source("http://h/f"), ("n",))], Credentials(), Settings(), {}
    )
    monkeypatch.setattr(ray, "is_initialized", lambda: True)

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            raise wrapped(refused)

    monkeypatch.setattr(found, "_scheduler", lambda shard: Refusing())
    found.start()
    with pytest.raises(DragonflyError, match="refused"):
        found.result(30)


class Scheduler:
    """Its handle: `calls` are the methods that were called, and each answer is the next of `answers`."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.calls: list[str] = []
        self._answers = iter(answers)

    def __getattr__(self, name: str) -> Any:
        class Method:
            @staticmethod
            def remote(*args: Any) -> Any:
                self.calls.append(name)
                return next(self._answers)

        return Method


def test_what_is_over_soon_takes_one_call(monkeypatch: pytest.MonkeyPatch, swarm: Swarm) -> None:
    with ScriptedOrigin(Behaviour(b"x" * 1000)) as origin:
        swarm.distribute(origin.url)
        ended = swarm.scheduler.core.view("s.0")
        spec = swarm.scheduler.core.specs["s.0"].spec
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get", lambda found, timeout: found)
    scheduler = Scheduler({"s.0": None}, {"s.0": {**(ended or {}), "phase": "running"}}, {"s.0": ended})
    found = Submission("s", [spec], Credentials(), Settings(), {})
    monkeypatch.setattr(found, "_scheduler", lambda shard: scheduler)
    found.start()
    assert found.result(30).ok
    assert scheduler.calls == ["submit_and_watch", "submit_and_watch", "watch"], "forgotten once"
