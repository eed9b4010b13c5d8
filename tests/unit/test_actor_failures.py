"""What Ray's errors tell of the actor that was called."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Awaitable
from typing import Any

import pytest
from ray import exceptions
from ray.exceptions import RayError, RayTaskError

from dragonfly_ray.actors.failures import CallFailure, answered, failure
from dragonfly_ray.errors import (
    BY_KIND,
    ClusterError,
    DragonflyError,
    InvalidRequestError,
    NotRunningError,
    StorageError,
)
from tests.waiting import HANG

DIED = {"ActorDiedError", "ActorHandleNotFoundError", "ActorUnschedulableError"}
EVERY = {
    name: each
    for name, each in vars(exceptions).items()
    if inspect.isclass(each) and issubclass(each, RayError) and each is not RayTaskError
}


def blank(cls: type[RayError]) -> RayError:
    """Their constructors want much."""
    return cls.__new__(cls)


def raised(error: BaseException) -> Any:
    """What a call raises whose actor has raised `error`."""
    task_error: Any = RayTaskError
    return task_error("method", "Traceback\n  secret", error).as_instanceof_cause()


def test_the_installed_ray_has_the_errors_that_tell_of_a_death() -> None:
    assert set(EVERY) >= DIED | {"ActorUnavailableError", "GetTimeoutError", "NodeDiedError"}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_only_what_cannot_pass_is_a_death(name: str) -> None:
    found = failure(blank(EVERY[name]), "peer:1")
    assert found.verdict == ("died" if name in DIED else "silent")
    assert type(found.error) is NotRunningError
    assert str(found.error) == str(found) == f"peer:1 did not respond: {name}"


def test_a_time_out_is_silence() -> None:
    assert failure(TimeoutError(), "peer:1").verdict == "silent"


def test_an_absent_actor_has_died() -> None:
    absent = NotRunningError("peer:1 is not running")
    found = failure(absent, "peer:1")
    assert (found.verdict, found.error) == ("died", absent)


@pytest.mark.parametrize("kind", sorted(BY_KIND))
def test_errors_of_this_package_come_as_they_were_raised(kind: str) -> None:
    refused = BY_KIND[kind]("f: no", where="there")
    found = failure(raised(refused), "peer:1")
    assert found.verdict == "alive"
    again = pickle.loads(pickle.dumps(found.error))
    assert (type(found.error), type(again)) == (type(refused), type(refused))
    assert (str(again), again.details) == ("f: no", {"where": "there"})


def test_what_passes_through_several_actors_is_unwrapped() -> None:
    found = failure(raised(raised(raised(StorageError("full")))), "peer:1")
    assert type(found.error) is StorageError
    assert str(found.error) == "full"


@pytest.mark.parametrize(
    "cause",
    [
        KeyError("secret"),
        TimeoutError("secret"),
        ExceptionGroup("secret", [KeyError("secret")]),
        blank(EVERY["ActorDiedError"]),
        blank(EVERY["ActorUnavailableError"]),
        blank(EVERY["GetTimeoutError"]),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_what_an_actor_met_itself_is_no_word_on_whether_it_lives(cause: BaseException) -> None:
    """Ray's error for it is of the class of the cause, too."""
    found = failure(raised(cause), "peer:1")
    assert found.verdict == "alive"
    assert type(found.error) is ClusterError
    assert str(found.error) == f"peer:1 failed: {type(cause).__name__}; see its log"


async def _answer(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        raise answer
    return answer


async def _never() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("call", "verdict", "error"),
    [
        (lambda: _answer(blank(EVERY["ActorDiedError"])), "died", NotRunningError),
        (_never, "silent", NotRunningError),
        (lambda: _answer(raised(InvalidRequestError("no"))), "alive", InvalidRequestError),
    ],
)
def test_a_call_that_is_awaited(call: Any, verdict: str, error: type[DragonflyError]) -> None:
    async def ask(reference: Awaitable[Any], timeout: float) -> Any:
        return await answered(reference, timeout, "peer:1")

    with pytest.raises(CallFailure) as caught:
        asyncio.run(ask(call(), 0.01 if verdict == "silent" else HANG))
    assert (caught.value.verdict, type(caught.value.error)) == (verdict, error)
    assert asyncio.run(ask(_answer(7), HANG)) == 7
    with pytest.raises(KeyError):  # a fault of ours
        asyncio.run(ask(_answer(KeyError("x")), HANG))
