"""Authenticates and authorizes each request: who the caller is, and whether the route's permission is granted.

Nothing is remembered between requests: what another replica has committed holds from the next one on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from dragonfly_ray.serve.accounts import csrf, rights, sessions, tokens
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.db_errors import DB_UNAVAILABLE, first_line
from dragonfly_ray.serve.database.tables import Role, SignIn, Token, User, now
from dragonfly_ray.serve.permissions import Access, Permission, demanded
from dragonfly_ray.serve.principal import Principal, unauthenticated
from dragonfly_ray.serve.problems import forbidden
from dragonfly_ray.serve.settings import ManagerSettings

log = logging.getLogger(__name__)
NOTED = timedelta(minutes=1)
"""How exact the time of a last use is: not every request is written down."""


@dataclass(frozen=True, slots=True)
class _Credential:
    """What was shown, and whom it stands for."""

    principal: Principal
    last_used_at: datetime | None
    csrf: str = ""


def authorize(connection: HTTPConnection) -> None:
    """Refuses what no route has declared, whoever is nobody, and whoever may not."""
    demand = demanded(connection.scope.get("endpoint"))
    if demand is None:
        raise forbidden("this route declares no permission", "undeclared-permission")
    if demand is Access.PUBLIC:
        return
    settings: ManagerSettings = connection.app.state.manager.settings
    database: Database = connection.app.state.manager.database
    found = _authenticated(connection, database, settings)
    principal = connection.state.principal = found.principal
    if principal.session_id:
        csrf.check(connection, settings, found.csrf)
    if isinstance(demand, Permission) and not principal.may(demand):
        raise forbidden(f"{principal.name} lacks permission {demand}", needed=demand)
    if found.last_used_at is None or found.last_used_at <= now() - NOTED:
        _note(database, principal, connection.state.address)


def _authenticated(connection: HTTPConnection, database: Database, settings: ManagerSettings) -> _Credential:
    header = connection.headers.get("authorization", "")
    with database.read() as session:
        if header:
            return _by_token(session, header)
        return _by_session(session, sessions.shown(connection, settings), settings)


def _by_token(session: Session, header: str) -> _Credential:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthenticated()
    row = session.execute(
        select(Token, User, Role)
        .join(User, User.id == Token.user_id)
        .join(Role, Role.name == User.role)
        .where(Token.hash == tokens.hashed(token.strip()))
    ).one_or_none()
    if row is None:
        raise unauthenticated("token unknown, revoked or expired")
    found, user, role = row
    if found.revoked_at or (found.expires_at and found.expires_at <= now()):
        raise unauthenticated("token unknown, revoked or expired")
    if user.disabled:
        raise unauthenticated("user is disabled")
    granted = rights.known(role.permissions) & rights.known(found.permissions)
    principal = Principal(user.id, user.name, role.name, granted, "token", token_id=found.id)
    return _Credential(principal, found.last_used_at)


def _by_session(session: Session, hash: str, settings: ManagerSettings) -> _Credential:
    if not hash:
        raise unauthenticated()
    row = session.execute(
        select(SignIn, User, Role)
        .join(User, User.id == SignIn.user_id)
        .join(Role, Role.name == User.role)
        .where(SignIn.hash == hash)
    ).one_or_none()
    if row is None:
        raise unauthenticated("session expired; sign in again")
    found, user, role = row
    if user.disabled or not sessions.alive(found, settings, now()):
        raise unauthenticated("session expired; sign in again")
    granted = rights.known(role.permissions)
    principal = Principal(user.id, user.name, role.name, granted, "session", session_id=found.id)
    return _Credential(principal, found.last_seen_at, found.csrf)


def _note(database: Database, principal: Principal, address: str) -> None:
    """When and from where this credential was used; of several replicas one writes it."""
    at = now()
    try:
        with database.write() as session:
            if principal.token_id:
                unused = or_(Token.last_used_at.is_(None), Token.last_used_at <= at - NOTED)
                session.execute(
                    update(Token)
                    .where(Token.id == principal.token_id, unused)
                    .values(last_used_at=at, last_used_from=address)
                )
            else:
                session.execute(
                    update(SignIn).where(SignIn.id == principal.session_id).values(last_seen_at=at)
                )
            session.execute(update(User).where(User.id == principal.user_id).values(last_seen_at=at))
    except DB_UNAVAILABLE as error:
        # It is for people to look at; no request fails for it.
        log.warning("last use of a credential not recorded: %s", first_line(error))
