"""The one dependency of the whole application: who asks, and whether they may."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from dragonfly_ray.serve.accounts import tokens
from dragonfly_ray.serve.accounts.permissions import Access, Permission, demanded
from dragonfly_ray.serve.accounts.principal import Principal, unauthenticated
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Role, Token, User, now
from dragonfly_ray.serve.problems import forbidden


def gate(connection: HTTPConnection) -> None:
    """Refuses what no route has declared, whoever is nobody, and whoever may not."""
    demand = demanded(connection.scope.get("endpoint"))
    if demand is None:
        raise forbidden("this route declares no permission", "undeclared-permission")
    if demand is Access.PUBLIC:
        return
    principal = _authenticate(connection)
    connection.state.principal = principal
    if isinstance(demand, Permission) and not principal.may(demand):
        raise forbidden(f"{principal.name} may not: {demand} is needed", needed=demand)


def _authenticate(connection: HTTPConnection) -> Principal:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthenticated()
    database: Database = connection.app.state.manager.database
    with database.read() as session:
        row = session.query(Token).filter_by(hash=tokens.hashed(token.strip())).one_or_none()
        if row is None or row.revoked_at or (row.expires_at and row.expires_at <= now()):
            raise unauthenticated("this token is unknown, revoked or has expired")
        user = session.get_one(User, row.user_id)
        role = session.get_one(Role, user.role)
        if user.disabled:
            raise unauthenticated("this user is disabled")
        granted = frozenset(Permission(p) for p in role.permissions) & frozenset(
            Permission(p) for p in row.permissions
        )
        return Principal(user.id, user.name, role.name, granted, "token", token_id=row.id)
