"""Whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.problems import Problem


@dataclass(frozen=True, slots=True)
class Principal:
    """A user as of this request. `permissions`: of the role, less what a token leaves out."""

    user_id: str
    name: str
    role: str
    permissions: frozenset[Permission]
    via: str
    """session, token or schedule."""
    token_id: str = ""
    session_id: str = ""

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions


def unauthenticated(detail: str = "sign in, or send a bearer token") -> Problem:
    return Problem(
        401,
        "unauthenticated",
        "Authentication required",
        detail,
        headers={"WWW-Authenticate": 'Bearer realm="dragonfly"'},
    )


def principal_of(connection: HTTPConnection) -> Principal:
    """Whoever the gate let in. Raises `Problem` on routes that are open to everybody."""
    found = getattr(connection.state, "principal", None)
    if not isinstance(found, Principal):
        raise unauthenticated()
    return found


Caller = Annotated[Principal, Depends(principal_of)]
