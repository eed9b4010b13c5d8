"""`/api/v1/session`: signing in and out, and who one is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from dragonfly_ray.serve.accounts import csrf, passwords, sessions, throttle
from dragonfly_ray.serve.accounts.rights import ADMIN, known
from dragonfly_ray.serve.accounts.setup import forget_first_password
from dragonfly_ray.serve.accounts.throttle import Devices, Throttle, Ticket
from dragonfly_ray.serve.database.tables import Role, User, now
from dragonfly_ray.serve.manager import Here, Manager
from dragonfly_ray.serve.permissions import Access, requires
from dragonfly_ray.serve.principal import Caller, Principal, unauthenticated
from dragonfly_ray.serve.problems import Problem, conflict
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.schemas.accounts import Me, PasswordChange, SignIn

router = APIRouter(prefix="/session", tags=["session"])


@router.post("", status_code=201)
@requires(Access.PUBLIC)
def sign_in(body: SignIn, request: Request, response: Response, manager: Here) -> Me:
    """Signs in by name and password. The session is in a cookie; `csrf` goes into `X-CSRF-Token`."""
    csrf.check_origin(request, manager.settings)
    devices = Devices(manager.vault)
    mark = request.cookies.get(sessions.device_cookie(manager.settings), "")
    device = devices.known(mark, body.name)
    ticket = manager.throttle.enter(throttle.keys(body.name, request.state.address, device))
    with manager.database.read() as session:
        user = session.scalar(select(User).where(User.name == body.name))
    given = body.password.get_secret_value()
    right = passwords.verified(user.password_hash if user else "", given)
    if user is None or not right or user.disabled:
        _failed(manager, request, user)
        raise _wrong()
    me, value = _begin(manager, request, user, given, ticket)
    sessions.give(response, manager.settings, value)
    if not device:
        sessions.give_device(response, manager.settings, devices.mark(user.name))
    response.headers["Location"] = "/api/v1/session"
    return me


@router.get("")
@requires(Access.SELF)
def get_session(caller: Caller, manager: Here) -> Me:
    """Who this is, and what they may do."""
    with manager.database.read() as session:
        token = sessions.csrf_of(session, caller.session_id) if caller.session_id else None
    return _me(caller, token)


@router.delete("", status_code=204)
@requires(Access.SELF)
def sign_out(caller: Caller, request: Request, response: Response, manager: Here) -> None:
    """Signs out. A token is not signed out but revoked."""
    if not caller.session_id:
        raise conflict("authenticated with a token, not a session; revoke the token", "not-a-session")
    with manager.database.write() as session:
        sessions.end(session, sessions.shown(request, manager.settings))
        audit(session, request, "session.end", "user", caller.user_id)
    sessions.take(response, manager.settings)


@router.post("/password", status_code=204)
@requires(Access.SELF)
def change_password(body: PasswordChange, caller: Caller, request: Request, manager: Here) -> None:
    """One's own. All other sessions of this user end."""
    ticket = manager.throttle.enter((f"password {caller.user_id}",))
    with manager.database.read() as session:
        before = session.get_one(User, caller.user_id).password_hash
    if not passwords.verified(before, body.old.get_secret_value()):
        _failed(manager, request, None, "session.password")
        raise Problem(403, "wrong-credentials", "Forbidden", "the old password is wrong")
    hash = passwords.hashed(body.new.get_secret_value())
    with manager.database.write() as session:
        user = session.get(User, caller.user_id, with_for_update=True)
        if user is None or user.password_hash != before:
            raise conflict("the password was changed concurrently; try again")
        user.password_hash, user.updated_at = hash, now()
        user.version += 1
        sessions.end_all(session, user.id, but=caller.session_id)
        Throttle.succeeded(session, ticket)
        audit(session, request, "session.password", "user", user.id)
    if caller.name == ADMIN:
        forget_first_password(manager.settings)


def _begin(manager: Manager, request: Request, user: User, password: str, ticket: Ticket) -> tuple[Me, str]:
    """The session's row. What was verified must still hold when it is written."""
    better = passwords.hashed(password) if passwords.outdated(user.password_hash) else None
    agent = request.headers.get("user-agent", "")
    with manager.database.write() as session:
        row = session.get(User, user.id, with_for_update=True)
        if row is None or row.disabled or row.password_hash != user.password_hash:
            raise _wrong()
        row.password_hash = better or row.password_hash
        row.last_seen_at = now()
        Throttle.succeeded(session, ticket)
        # Whatever this browser had before ends here.
        sessions.end(session, sessions.shown(request, manager.settings))
        value, begun = sessions.begin(session, row, manager.settings, request.state.address, agent)
        role = session.get_one(Role, row.role)
        caller = Principal(
            row.id, row.name, role.name, known(role.permissions), "session", session_id=begun.id
        )
        request.state.principal = caller
        audit(session, request, "session.create", "user", row.id)
        return _me(caller, begun.csrf), value


def _failed(manager: Manager, request: Request, user: User | None, action: str = "session.create") -> None:
    """The name is told only where it is a user's: people type passwords into the wrong field."""
    detail: dict[str, Any] = {"name": user.name} if user else {}
    with manager.database.write() as session:
        audit(
            session,
            request,
            action,
            "user",
            user.id if user else "",
            outcome="refused",
            **detail,
        )


def _wrong() -> Problem:
    problem = unauthenticated("wrong name or password")
    problem.kind = "wrong-credentials"
    return problem


def _me(caller: Principal, token: str | None) -> Me:
    return Me(
        user_id=caller.user_id,
        name=caller.name,
        role=caller.role,
        permissions=sorted(caller.permissions),
        via=caller.via,
        csrf=token,
    )
