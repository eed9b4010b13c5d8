"""Audit and events are written in the transaction of what they tell: both happen, or neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.signals import tell
from dragonfly_ray.serve.database.tables import Audit, Event
from dragonfly_ray.serve.principal import Principal

EVENTS = "events"


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """What an event tells."""

    type: str
    resource_type: str
    resource_id: str
    data: Mapping[str, Any] = field(default_factory=dict)


def emit(
    session: Session, type: str, resource_type: str, resource_id: str, data: Mapping[str, Any] | None = None
) -> None:
    """News for streams and webhooks; in the order of their commits."""
    emit_all(session, [TaskUpdate(type, resource_type, resource_id, data or {})])


def emit_all(session: Session, news: Iterable[TaskUpdate]) -> None:
    """Several at once. Write it last in a transaction: from here on others wait for its commit."""
    # Numbers are given before the commit: without this a reader that has seen 7 would miss a late 6.
    serialise(session, EVENTS)
    tell(session, EVENTS)
    for n in news:
        session.add(
            Event(type=n.type, resource_type=n.resource_type, resource_id=n.resource_id, data=dict(n.data))
        )


def audit(
    session: Session,
    connection: HTTPConnection | None,
    action: str,
    resource_type: str = "",
    resource_id: str = "",
    *,
    outcome: str = "ok",
    principal: Principal | None = None,
    **detail: Any,
) -> None:
    """`connection`: the request; None: the manager did it by itself, as `principal` if one is given.

    `detail` holds no secret.
    """
    asking = principal or (getattr(connection.state, "principal", None) if connection else None)
    known = asking if isinstance(asking, Principal) else None
    session.add(
        Audit(
            actor_id=known.user_id if known else "",
            actor=known.name if known else "" if connection else "system",
            via=known.via if known else "" if connection else "system",
            token_id=known.token_id if known else "",
            address=getattr(connection.state, "address", "") if connection else "",
            request_id=getattr(connection.state, "request_id", "") if connection else "",
            action=action,
            resource_type=resource_type,
            resource_id=resource_id,
            outcome=outcome,
            detail=detail,
        )
    )
