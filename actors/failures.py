"""What a call to an actor that went wrong tells of the actor: Ray's errors as verdicts and errors of this package."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal

from ray.exceptions import (
    ActorDiedError,
    ActorHandleNotFoundError,
    ActorUnschedulableError,
    RayError,
    RayTaskError,
)

from dragonfly_ray.errors import ClusterError, DragonflyError, NotRunningError

GONE = (ActorDiedError, ActorHandleNotFoundError, ActorUnschedulableError, NotRunningError)
"""There is no such actor, any more or at all; whatever else Ray says may pass."""
UNANSWERED = (RayError, TimeoutError, NotRunningError)
"""All that a call raises for want of an answer, or that its answer is."""


class CallFailure(Exception):
    """Of a call to an actor.

    `verdict`: `died`: the actor has, or there is none; `silent`: it gave no answer, and may live; `alive`: its answer is an
    error. `error`: what to raise of it; picklable. `cause`: what Ray raised.
    """

    def __init__(
        self, verdict: Literal["alive", "died", "silent"], error: DragonflyError, cause: BaseException
    ) -> None:
        super().__init__(str(error))
        self.verdict = verdict
        self.error = error
        self.cause = cause


def failure(cause: BaseException, what: str) -> CallFailure:
    """`what`: the actor, for people. The errors of this package that it raised come as they are."""
    if isinstance(cause, RayTaskError):  # first: Ray mixes the class of what the actor raised into it
        raised: BaseException = cause
        while isinstance(raised, RayTaskError) and isinstance(raised.cause, BaseException):
            raised = raised.cause
        if isinstance(raised, DragonflyError):
            return CallFailure("alive", raised, cause)
        return CallFailure(
            "alive", ClusterError(f"{what} failed: {type(raised).__name__}; see its log"), cause
        )
    verdict: Literal["died", "silent"] = "died" if isinstance(cause, GONE) else "silent"
    if isinstance(cause, NotRunningError):
        return CallFailure(verdict, cause, cause)
    return CallFailure(verdict, NotRunningError(f"{what} did not respond: {type(cause).__name__}"), cause)


async def answered(reference: Awaitable[Any], timeout: float | None, what: str) -> Any:
    """The answer within `timeout` seconds. Raises `CallFailure`."""
    try:
        return await asyncio.wait_for(_result(reference), timeout)
    except UNANSWERED as error:
        raise failure(error, what) from None


async def _result(reference: Awaitable[Any]) -> Any:
    return await reference
