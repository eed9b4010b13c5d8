"""`/api/v1/tokens`: personal access tokens. One's own need no permission, those of others do."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.accounts import rights, tokens
from dragonfly_ray.serve.database.tables import Role, Token, User, now
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Access, Permission, requires
from dragonfly_ray.serve.principal import Caller, Principal
from dragonfly_ray.serve.problems import forbidden, invalid, not_found
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas import accounts as wire
from dragonfly_ray.serve.settings import Tokens

router = APIRouter(prefix="/tokens", tags=["tokens"])
SORTED = {"created_at": Token.created_at, "name": Token.name}
ANYBODY = "all"
UserId = Annotated[
    str | None,
    Query(max_length=64, description="Id of the owner; default: the caller. Others need a permission."),
]


@router.get("")
@requires(Access.SELF)
def list_tokens(
    caller: Caller,
    manager: Here,
    paging: Paged,
    user_id: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Id of the owner, or `all`; default: the caller. Others need `users:read`.",
        ),
    ] = None,
    active: Annotated[bool | None, Query(description="Neither revoked nor expired.")] = None,
) -> Page[wire.Token]:
    whose = user_id or caller.user_id
    if whose != caller.user_id:
        _demand(caller, Permission.USERS_READ)
    query = select(Token)
    if whose != ANYBODY:
        query = query.where(Token.user_id == whose)
    if active is not None:
        ended = or_(Token.revoked_at.is_not(None), Token.expires_at <= now())
        # Without an end the second comparison is NULL, which `not` would keep as it is.
        alive = Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > now())
        query = query.where(alive if active else ended)
    with manager.database.read() as session:
        return page(
            session, query, paging, SORTED, Token.id, lambda row: _shown(session, row), default="-created_at"
        )


@router.post("", status_code=201)
@requires(Access.SELF)
def create_token(
    body: wire.TokenCreate,
    caller: Caller,
    request: Request,
    response: Response,
    manager: Here,
    user_id: UserId = None,
) -> wire.TokenCreated:
    """The answer has the token itself, this once. It never has more rights than its owner then has."""
    token = tokens.make()
    with manager.database.write() as session:
        rights.alone(session)
        owner = _owner(session, caller, user_id or caller.user_id)
        granted = rights.known(session.get_one(Role, owner.role).permissions)
        wanted = frozenset(body.permissions) if body.permissions is not None else granted
        if owner.id == caller.user_id and body.permissions is None:
            wanted &= caller.permissions
        rights.within(caller, wanted, "this token")
        if beyond := sorted(wanted - granted):
            raise invalid(f"permissions: {owner.name!r} lacks {', '.join(beyond)}", "beyond-owners-rights")
        row = Token(
            user_id=owner.id,
            name=body.name,
            prefix=token[: tokens.SHOWN],
            hash=tokens.hashed(token),
            permissions=sorted(wanted),
            expires_at=_end(
                session, caller, _lifetime(manager.settings.tokens, body.expires_in), body.expires_in
            ),
        )
        session.add(row)
        session.flush()
        audit(
            session, request, "token.create", "token", row.id,
            name=row.name, user=owner.name, permissions=row.permissions,
        )  # fmt: skip
        response.headers["Location"] = f"/api/v1/tokens/{row.id}"
        return wire.TokenCreated(**_shown(session, row).model_dump(), token=token)


@router.get("/{token_id}")
@requires(Access.SELF)
def get_token(token_id: str, caller: Caller, manager: Here) -> wire.Token:
    with manager.database.read() as session:
        return _shown(session, _found(session, caller, token_id, Permission.USERS_READ))


@router.delete("/{token_id}", status_code=204)
@requires(Access.SELF)
def revoke_token(token_id: str, caller: Caller, request: Request, manager: Here) -> None:
    """It stays in the list, and opens nothing any more."""
    with manager.database.write() as session:
        row = _found(session, caller, token_id, Permission.USERS_WRITE)
        if row.user_id != caller.user_id:
            _owner(session, caller, row.user_id)
        if row.revoked_at is None:
            row.revoked_at = now()
            audit(session, request, "token.revoke", "token", row.id, name=row.name)


def _demand(caller: Principal, permission: Permission) -> None:
    if not caller.may(permission):
        raise forbidden(f"{caller.name} lacks permission {permission}", needed=permission)


def _owner(session: Session, caller: Principal, user_id: str) -> User:
    """Whose token it is; of others only users with no more rights than the caller's."""
    if user_id != caller.user_id:
        _demand(caller, Permission.USERS_WRITE)
    user = session.get(User, user_id)
    if user is None:
        raise not_found("user", user_id)
    if user_id != caller.user_id:
        rights.within(caller, session.get_one(Role, user.role).permissions, f"user {user.name!r}")
    return user


def _found(session: Session, caller: Principal, token_id: str, permission: Permission) -> Token:
    """Others' tokens are not there for whoever may not see them."""
    row = session.get(Token, token_id)
    if row is None or (row.user_id != caller.user_id and not caller.may(Permission.USERS_READ)):
        raise not_found("token", token_id)
    if row.user_id != caller.user_id:
        _demand(caller, permission)
    return row


def _lifetime(limits: Tokens, asked: float | None) -> timedelta:
    """Every token ends. Raises `Problem` 422 for a longer life than the manager allows."""
    longest = timedelta(days=limits.longest)
    if asked is None:
        return timedelta(days=limits.default)
    if asked > longest.total_seconds():
        raise invalid(
            f"expires_in: a token is valid for at most {limits.longest:g} days", "token-lives-too-long"
        )
    return timedelta(seconds=asked)


def _end(session: Session, caller: Principal, lifetime: timedelta, asked: float | None) -> datetime:
    """A token that was made with another one does not outlive it."""
    end = now() + lifetime
    latest = session.get_one(Token, caller.token_id).expires_at if caller.token_id else None
    if latest is None or end <= latest:
        return end
    if asked is not None:
        raise forbidden("a token created with a token cannot outlive it", "beyond-own-rights")
    return latest


def _shown(session: Session, row: Token) -> wire.Token:
    return wire.Token(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        user_id=row.user_id,
        user=session.get_one(User, row.user_id).name,
        permissions=sorted(rights.known(row.permissions)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        last_used_from=row.last_used_from,
    )
