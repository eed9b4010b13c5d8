"""`/api/v1/audit`: who did what, when, from where."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy import select

from dragonfly_ray.serve.database.distinct import beginning_with
from dragonfly_ray.serve.database.tables import Audit
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.schemas.accounts import AuditEntry
from dragonfly_ray.serve.schemas.base import Time

router = APIRouter(prefix="/audit", tags=["audit"])
ID = re.compile("[0-9a-f]{32}")
"""What a user's id looks like."""
Short = Annotated[str | None, Query(max_length=256)]


@router.get("")
@requires(Permission.AUDIT_READ)
def list_audit(
    manager: Here,
    paging: Paged,
    actor: Annotated[str | None, Query(max_length=128, description="A user's name or id.")] = None,
    action: Annotated[
        str | None, Query(max_length=64, description="Such as `user.create`; `user.*` matches by prefix.")
    ] = None,
    resource_type: Short = None,
    resource_id: Short = None,
    outcome: Literal["ok", "refused"] | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[AuditEntry]:
    query = select(Audit)
    if actor is not None:
        column = Audit.actor_id if ID.fullmatch(actor) else Audit.actor
        query = query.where(column == actor)
    start, begins, _ = (action or "").partition("*")
    if action is not None and not begins:
        query = query.where(Audit.action == action)
    for column, wanted in (
        (Audit.resource_type, resource_type),
        (Audit.resource_id, resource_id),
        (Audit.outcome, outcome),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if since is not None:
        query = query.where(Audit.at >= since)
    if until is not None:
        query = query.where(Audit.at < until)
    with manager.database.read() as session:
        return page(
            session,
            query,
            paging,
            {"at": Audit.at},
            Audit.id,
            AuditEntry.model_validate,
            default="-at",
            any_of=(Audit.action, beginning_with(session, Audit.action, start)) if begins else None,
        )
