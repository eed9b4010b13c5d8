"""Whose secrets are whose: the owner and admins keep them, whoever was granted their use may name them in jobs."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, delete, or_, select, true
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.tables import Role, Secret, SecretGrant, User
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import forbidden, invalid


def may_keep(row: Secret, principal: Principal) -> bool:
    """Whether they may replace, grant and delete it."""
    return principal.may(Permission.SECRETS_ADMIN) or bool(row.owner_id and row.owner_id == principal.user_id)


def kept_by(row: Secret, principal: Principal) -> None:
    """Raises `Problem` 403 unless `may_keep`."""
    if not may_keep(row, principal):
        raise forbidden(
            f"{principal.name} may not change secret {row.name!r}: it belongs to another user; its owner or permission "
            f"{Permission.SECRETS_ADMIN} is needed",
            "secret-of-another",
        )


def usable(principal: Principal) -> ColumnElement[bool]:
    """The secrets that they may name in a job, as a condition on `Secret`."""
    if principal.may(Permission.SECRETS_ADMIN):
        return true()
    granted = select(SecretGrant.secret).where(
        or_(SecretGrant.user_id == principal.user_id, SecretGrant.role == principal.role)
    )
    return or_(Secret.owner_id == principal.user_id, Secret.name.in_(granted))


def may_use(session: Session, name: str, principal: Principal) -> bool:
    """Whether they may name it in a job now; False, too, where there is none."""
    found = session.scalar(select(Secret.name).where(Secret.name == name, usable(principal)))
    return found is not None


def granted(session: Session, name: str) -> tuple[list[str], list[str]]:
    """The names of the users and of the roles that may use it."""
    users = select(User.name).join(SecretGrant, SecretGrant.user_id == User.id)
    roles = select(SecretGrant.role).where(SecretGrant.secret == name, SecretGrant.role.is_not(None))
    return (
        sorted(session.scalars(users.where(SecretGrant.secret == name))),
        sorted(role for role in session.scalars(roles) if role is not None),
    )


def grant(session: Session, name: str, users: Iterable[str], roles: Iterable[str]) -> None:
    """To these and to nobody else. Raises `Problem` 422 for who is not there."""
    users, roles = set(users), set(roles)
    found = session.execute(select(User.name, User.id).where(User.name.in_(users)))
    ids = {row.name: row.id for row in found}
    known = set(session.scalars(select(Role.name).where(Role.name.in_(roles))))
    if strange := sorted(users - ids.keys()):
        raise invalid(f"users: unknown user {strange[0]!r}", "unknown-user")
    if strange := sorted(roles - known):
        raise invalid(f"roles: unknown role {strange[0]!r}", "unknown-role")
    session.execute(delete(SecretGrant).where(SecretGrant.secret == name))
    session.add_all(SecretGrant(secret=name, user_id=ids[user]) for user in sorted(users))
    session.add_all(SecretGrant(secret=name, role=role) for role in sorted(roles))
    session.flush()
