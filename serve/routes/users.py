"""`/api/v1/users`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.serve.accounts import passwords, rights, sessions
from dragonfly_ray.serve.database.tables import Role, User, now
from dragonfly_ray.serve.etags import IfMatch, tag
from dragonfly_ray.serve.manager import Here
from dragonfly_ray.serve.pagination import Page, Paged, page
from dragonfly_ray.serve.permissions import Permission, requires
from dragonfly_ray.serve.principal import Caller, Principal
from dragonfly_ray.serve.problems import conflict, invalid, not_found
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas import accounts as wire

router = APIRouter(prefix="/users", tags=["users"])
SORTED = {"created_at": User.created_at, "name": User.name, "role": User.role, "updated_at": User.updated_at}


@router.get("")
@requires(Permission.USERS_READ)
def list_users(
    manager: Here,
    paging: Paged,
    name: Annotated[str | None, Query(max_length=128, description="Prefix of the name.")] = None,
    role: Annotated[str | None, Query(max_length=64)] = None,
    disabled: bool | None = None,
) -> Page[wire.User]:
    query = select(User)
    if name is not None:
        query = query.where(User.name.startswith(name, autoescape=True))
    if role is not None:
        query = query.where(User.role == role)
    if disabled is not None:
        query = query.where(User.disabled.is_(disabled))
    with manager.database.read() as session:
        return page(session, query, paging, SORTED, User.id, wire.User.model_validate, default="name")


@router.post("", status_code=201)
@requires(Permission.USERS_WRITE)
def create_user(
    body: wire.UserCreate, caller: Caller, request: Request, response: Response, manager: Here
) -> wire.User:
    hash = passwords.hashed(body.password.get_secret_value()) if body.password else ""
    with manager.database.write() as session:
        rights.alone(session)
        _may_have(session, caller, body.role)
        if session.scalar(select(User.id).where(User.name == body.name)) is not None:
            raise conflict(f"user {body.name!r} already exists", "exists")
        user = User(name=body.name, role=body.role, password_hash=hash)
        session.add(user)
        session.flush()
        audit(session, request, "user.create", "user", user.id, name=user.name, role=user.role)
        response.headers["Location"] = f"/api/v1/users/{user.id}"
        return _shown(user, response)


@router.get("/{user_id}")
@requires(Permission.USERS_READ)
def get_user(user_id: str, response: Response, manager: Here) -> wire.User:
    with manager.database.read() as session:
        return _shown(_found(session, user_id), response)


@router.patch("/{user_id}")
@requires(Permission.USERS_WRITE)
def change_user(
    user_id: str,
    body: wire.UserChange,
    caller: Caller,
    request: Request,
    response: Response,
    manager: Here,
    if_match: IfMatch,
) -> wire.User:
    """A new password, or being disabled, ends the user's sessions."""
    hash = passwords.hashed(body.password.get_secret_value()) if body.password else ""
    with manager.database.write() as session:
        user = _mine_to_change(session, caller, user_id)
        if_match.check(user.version)
        changed = body.model_dump(exclude_none=True, exclude={"password"})
        if body.role is not None and body.role != user.role:
            _may_have(session, caller, body.role)
            rights.not_the_last_admin(session, user)
            user.role = body.role
        if body.disabled is not None and body.disabled != user.disabled:
            rights.not_the_last_admin(session, user)
            user.disabled = body.disabled
        if hash:
            user.password_hash = hash
            changed["password"] = "changed"
        if hash or user.disabled:
            sessions.end_all(session, user.id, but=caller.session_id)
        user.version += 1
        user.updated_at = now()
        audit(session, request, "user.change", "user", user.id, name=user.name, changed=changed)
        return _shown(user, response)


@router.delete("/{user_id}", status_code=204)
@requires(Permission.USERS_WRITE)
def delete_user(user_id: str, caller: Caller, request: Request, manager: Here) -> None:
    """With their tokens and sessions. What they did stays in the audit."""
    with manager.database.write() as session:
        user = _mine_to_change(session, caller, user_id)
        rights.not_the_last_admin(session, user)
        audit(session, request, "user.delete", "user", user.id, name=user.name)
        session.delete(user)


def _found(session: Session, user_id: str, *, for_update: bool = False) -> User:
    user = session.get(User, user_id, with_for_update=for_update or None)
    if user is None:
        raise not_found("user", user_id)
    return user


def _mine_to_change(session: Session, caller: Principal, user_id: str) -> User:
    """Whoever has more rights is not the caller's to change: a new password would be a way in."""
    rights.alone(session)
    user = _found(session, user_id, for_update=True)
    rights.within(caller, session.get_one(Role, user.role).permissions, f"user {user.name!r}")
    return user


def _may_have(session: Session, caller: Principal, role: str) -> None:
    row = session.get(Role, role)
    if row is None:
        raise invalid(f"role: unknown role {role!r}", "unknown-role")
    rights.within(caller, row.permissions, f"role {role!r}")


def _shown(user: User, response: Response) -> wire.User:
    tag(response, user.version)
    return wire.User.model_validate(user)
