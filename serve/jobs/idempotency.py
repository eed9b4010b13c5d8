"""The same request twice is one job: keys that callers choose, kept for a week."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Header
from sqlalchemy import delete
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import IdempotencyKey, now
from dragonfly_ray.serve.problems import conflict

KEPT = timedelta(days=7)
REUSED = "idempotency-key-reused"
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body returns the same job, for seven days.",
    ),
]


@dataclass(frozen=True, slots=True)
class Key:
    """One caller's key for one operation."""

    user_id: str
    key: str
    operation: str
    fingerprint: str

    @classmethod
    def of(cls, user_id: str, key: str | None, operation: str, body: Mapping[str, Any]) -> Key | None:
        if key is None:
            return None
        text = json.dumps([operation, body], sort_keys=True)
        return cls(user_id, key, operation, hashlib.sha256(text.encode()).hexdigest())


def held(session: Session, key: Key | None, at: datetime | None = None) -> str | None:
    """The id of what this key made already. Raises `Problem` if it was for something else."""
    if key is None:
        return None
    row = session.get(IdempotencyKey, (key.user_id, key.key))
    if row is None or row.created_at < (at or now()) - KEPT:
        return None
    if row.fingerprint != key.fingerprint:
        raise conflict("this Idempotency-Key was already used with another request", REUSED)
    return row.resource_id


def claim(session: Session, key: Key | None, resource_id: str) -> str | None:
    """In the transaction that makes the resource: the id of the one that is there already, or None.

    Of several at once, on any replica, one finds None; the others wait for its commit.
    """
    if key is None:
        return None
    serialise(session, f"idempotency-{key.user_id}-{key.key}")
    found = held(session, key)
    if found is None:
        session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.user_id == key.user_id, IdempotencyKey.key == key.key)
        )
        session.add(
            IdempotencyKey(
                user_id=key.user_id,
                key=key.key,
                operation=key.operation,
                fingerprint=key.fingerprint,
                resource_id=resource_id,
            )
        )
    return found


def forget_old(session: Session, at: datetime) -> None:
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < at - KEPT))
