"""Sessions of the console: a random value in a cookie, its hash in the database, read at every request."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection
from starlette.responses import Response

from dragonfly_ray.serve.database.tables import SignIn, User, now
from dragonfly_ray.serve.settings import ManagerSettings

DEVICE_PATH = "/api/v1/session"
DEVICE_DAYS = 400
"""The longest that browsers keep a cookie."""


def cookie(settings: ManagerSettings) -> str:
    """With a prefix that makes browsers insist on HTTPS, on this host and on no other path."""
    return "__Host-dragonfly_session" if settings.cookie_secure else "dragonfly_session"


def device_cookie(settings: ManagerSettings) -> str:
    return "__Secure-dragonfly_device" if settings.cookie_secure else "dragonfly_device"


def hashed(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def shown(connection: HTTPConnection, settings: ManagerSettings) -> str:
    """The hash of the session that the request's cookie names; empty: none."""
    value = connection.cookies.get(cookie(settings), "")
    return hashed(value) if value else ""


def begin(
    session: Session, user: User, settings: ManagerSettings, address: str, agent: str
) -> tuple[str, SignIn]:
    """A new one, and what its cookie holds. Always a new value: one that was planted before is worth nothing."""
    value, at = secrets.token_urlsafe(32), now()
    row = SignIn(
        hash=hashed(value),
        user_id=user.id,
        csrf=secrets.token_urlsafe(32),
        created_at=at,
        last_seen_at=at,
        expires_at=at + timedelta(hours=settings.session_hours),
        address=address,
        agent=agent[:256],
    )
    session.add(row)
    idle = at - timedelta(hours=settings.session_idle_hours)
    session.execute(delete(SignIn).where(or_(SignIn.expires_at <= at, SignIn.last_seen_at <= idle)))
    session.flush()
    return value, row


def alive(row: SignIn, settings: ManagerSettings, at: datetime) -> bool:
    return at < row.expires_at and at < row.last_seen_at + timedelta(hours=settings.session_idle_hours)


def end(session: Session, hash: str) -> None:
    session.execute(delete(SignIn).where(SignIn.hash == hash))


def end_all(session: Session, user_id: str, *, but: str = "") -> None:
    """Of a user, except the one with this id."""
    session.execute(delete(SignIn).where(SignIn.user_id == user_id, SignIn.id != but))


def csrf_of(session: Session, session_id: str) -> str | None:
    return session.scalar(select(SignIn.csrf).where(SignIn.id == session_id))


def give(response: Response, settings: ManagerSettings, value: str) -> None:
    response.set_cookie(
        cookie(settings),
        value,
        max_age=int(settings.session_hours * 3600),
        path="/",
        secure=settings.cookie_secure,
        httponly=True,
        samesite="strict",
    )


def take(response: Response, settings: ManagerSettings) -> None:
    response.delete_cookie(
        cookie(settings), path="/", secure=settings.cookie_secure, httponly=True, samesite="strict"
    )


def give_device(response: Response, settings: ManagerSettings, mark: str) -> None:
    response.set_cookie(
        device_cookie(settings),
        mark,
        max_age=DEVICE_DAYS * 86400,
        path=DEVICE_PATH,
        secure=settings.cookie_secure,
        httponly=True,
        samesite="strict",
    )
