"""Calls to named actors that die, come back, are silent and refuse; without Ray's processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from dragonfly_ray.actors import handles
from dragonfly_ray.actors.connect import Actors
from dragonfly_ray.errors import ClusterError, DragonflyError, InvalidRequestError, NotRunningError

Answer = Callable[[], Any]


class Reference:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def future(self) -> Future[Any]:
        made: Future[Any] = Future()
        try:
            found = self.answer()
        except RayError as error:
            made.set_exception(error)
            return made
        if found is not NEVER:
            made.set_result(found)
        return made


NEVER = object()


class Handle:
    """Every method answers the same."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __getattr__(self, name: str) -> Any:
        method = type("Method", (), {})()
        method.remote = lambda *args: Reference(self.answer)
        return method


def fails(error: Exception) -> Answer:
    def raise_it() -> Any:
        raise error

    return raise_it


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Answer | None]]:
    """What is found under each name, look by look; the last one for ever."""
    known: dict[str, list[Answer | None]] = {}

    def find(name: str, namespace: str) -> Any:
        turn = known.get(name, [None])
        found = turn.pop(0) if len(turn) > 1 else turn[0]
        return None if found is None else Handle(found)

    monkeypatch.setattr(handles, "find", find)
    return known


DIED = fails(ActorDiedError())


def test_a_handle_is_kept_and_a_successor_is_found(looked_up: dict[str, list[Answer | None]]) -> None:
    alive = [True]
    looked_up["a"] = [lambda: 1 if alive[0] else DIED(), lambda: 2]
    actors = Actors("x")
    assert [actors.call("a", "m", timeout=1.0) for _ in range(3)] == [1, 1, 1]
    alive[0] = False
    assert actors.call("a", "m", timeout=1.0) == 2


def test_without_patience_it_is_said_at_once(looked_up: dict[str, list[Answer | None]]) -> None:
    actors = Actors("x")
    with pytest.raises(NotRunningError, match=r"a is not running in namespace 'x'"):
        actors.call("a", "m", timeout=1.0)
    looked_up["a"] = [lambda: NEVER]
    with pytest.raises(NotRunningError, match="did not respond: TimeoutError"):
        actors.call("a", "m", timeout=0.01)


def test_with_patience_an_actor_that_restarts_is_waited_for(
    looked_up: dict[str, list[Answer | None]],
) -> None:
    away = fails(ActorUnavailableError("away", None))
    looked_up["a"] = [None, away, DIED, lambda: 5]
    assert Actors("x").call("a", "m", timeout=1.0, patience=60.0) == 5


def as_ray_raises(error: Exception) -> Exception:
    """What a call raises whose actor has raised `error`."""
    task_error: Any = RayTaskError
    found: Exception = task_error("m", "trace", error).as_instanceof_cause()
    return found


def test_a_refusal_comes_through_and_is_not_tried_again(looked_up: dict[str, list[Answer | None]]) -> None:
    asked: list[int] = []

    def refuse() -> Any:
        asked.append(1)
        raise as_ray_raises(InvalidRequestError("no"))

    looked_up["a"] = [refuse]
    with pytest.raises(InvalidRequestError, match=r"^no$"):
        Actors("x").call("a", "m", timeout=1.0, patience=60.0)
    assert asked == [1]


def test_a_mistake_in_an_actor_is_not_tried_again(looked_up: dict[str, list[Answer | None]]) -> None:
    looked_up["a"] = [fails(as_ray_raises(KeyError("x")))]
    with pytest.raises(ClusterError, match="a failed: KeyError"):
        Actors("x").call("a", "m", timeout=1.0, patience=60.0)


def test_of_many_those_that_answer_in_time_are_gathered(looked_up: dict[str, list[Answer | None]]) -> None:
    looked_up |= {
        "good": [lambda: 7],
        "silent": [lambda: NEVER],
        "dead": [DIED],
        "refuses": [fails(as_ray_raises(InvalidRequestError("no")))],
    }
    failed: dict[str, DragonflyError] = {}
    calls = {name: (name, "m", 1) for name in (*looked_up, "missing")}
    found = Actors("x").gather(calls, 0.05, failed.__setitem__)
    assert found == {"good": 7}
    assert {name: type(error) for name, error in failed.items()} == {
        "silent": NotRunningError, "dead": NotRunningError, "missing": NotRunningError, "refuses": InvalidRequestError,
    }  # fmt: skip


def test_ray_records_no_events_of_our_calls() -> None:
    made = [handles.as_actor(Actors), handles.as_actor(Actors, health=1)]
    assert [each._default_options["enable_task_events"] for each in made] == [False, False]
