"""Nobody gives, takes or takes over rights that they do not have; and somebody is always left in charge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Role, User
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import conflict, forbidden

ADMIN = "admin"
LOCK = "accounts"
_KNOWN = frozenset(Permission)


def known(permissions: Iterable[Any]) -> frozenset[Permission]:
    """Those that this version of the manager has."""
    return frozenset(Permission(p) for p in permissions if p in _KNOWN)


def alone(session: Session) -> None:
    """Until the end of the transaction no other changes users, roles or tokens: what is checked stays so."""
    serialise(session, LOCK)


def within(principal: Principal, permissions: Iterable[Any], what: str) -> None:
    """Raises `Problem` 403 unless all of these are the caller's own."""
    beyond = sorted(known(permissions) - principal.permissions)
    if beyond:
        raise forbidden(
            f"{what} has permissions that {principal.name} lacks",
            "beyond-own-rights",
            beyond=beyond,
        )


def of_user(session: Session, user_id: str, via: str) -> Principal | None:
    """What a user may do now, for what the manager does on their behalf. None: gone, or disabled."""
    row = session.execute(
        select(User, Role).join(Role, Role.name == User.role).where(User.id == user_id)
    ).one_or_none()
    if row is None:
        return None
    user, role = row
    return None if user.disabled else Principal(user.id, user.name, role.name, known(role.permissions), via)


def not_the_last_admin(session: Session, user: User) -> None:
    """Raises `Problem` 409 if without this user nobody could administer."""
    if user.role != ADMIN or user.disabled:
        return
    others = select(func.count()).where(User.role == ADMIN, User.disabled.is_(False), User.id != user.id)
    if not session.scalar(others):
        raise conflict("this is the last admin; create another one first", "last-admin")
