"""What a new database begins with: the roles, and one admin."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from pathlib import Path

from sqlalchemy import select

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.accounts.rights import ADMIN
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Role, User, now
from dragonfly_ray.serve.permissions import BUILTIN_ROLES
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.settings import ManagerSettings

log = logging.getLogger(__name__)
SETUP = "setup"
FIRST_PASSWORD = "first-password"
"""In `state_dir`: the password of the first user, where nobody gave one."""


def builtin_roles(database: Database) -> None:
    """The roles that come with this version of the manager, with the permissions that they have in it."""
    with database.write() as session:
        serialise(session, SETUP)
        for name, (description, permissions) in BUILTIN_ROLES.items():
            row = session.get(Role, name)
            if row is None:
                row = Role(name=name)
                session.add(row)
            wanted = sorted(permissions)
            if (row.description, row.permissions, row.builtin) != (description, wanted, True):
                row.description, row.permissions, row.builtin = description, wanted, True
                row.updated_at = now()


def first_admin(database: Database, settings: ManagerSettings) -> None:
    """Unless there are users: an admin. Of several replicas that start at once, one makes it.

    A password that nobody gave is written to a file that its owner alone may read: what a process says is kept
    with its logs, and sent elsewhere.
    """
    with database.read() as session:
        if session.scalar(select(User.id).limit(1)) is not None:
            return
    given = _given(settings)
    password = given or passwords.random_password()
    known = settings.admin_password_hash if not given else None
    hash = known.get_secret_value() if known else passwords.hashed(password)
    with database.write() as session:
        serialise(session, SETUP)
        if session.scalar(select(User.id).limit(1)) is not None:
            return
        user = User(name=ADMIN, role=ADMIN, password_hash=hash)
        session.add(user)
        session.flush()
        audit(session, None, "user.create", "user", user.id, name=ADMIN, role=ADMIN)
        if not given and not known:
            path = _write(settings, password)
            log.warning("created the first user, %s; the password is in %s on %s: sign in, and change it",
                        ADMIN, path, socket.gethostname())  # fmt: skip


def forget_first_password(settings: ManagerSettings) -> None:
    """The first user has another one."""
    with contextlib.suppress(OSError):
        (settings.state_dir / FIRST_PASSWORD).unlink(missing_ok=True)


def _write(settings: ManagerSettings, password: str) -> Path:
    """Raises `InvalidRequestError`."""
    path = settings.state_dir / FIRST_PASSWORD
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(password + "\n")
        os.replace(draft, path)
    except OSError as error:
        raise InvalidRequestError(
            f"{path}: cannot write the first user's password ({error.strerror}); set one "
            "(DRAGONFLY_MANAGER_ADMIN_PASSWORD_FILE)"
        ) from None
    return path


def _given(settings: ManagerSettings) -> str:
    if settings.admin_password is not None:
        origin, password = "DRAGONFLY_ADMIN_PASSWORD", settings.admin_password.get_secret_value()
    elif settings.admin_password_file is not None:
        origin = str(settings.admin_password_file)
        try:
            password = settings.admin_password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise InvalidRequestError(f"{origin}: cannot read the first user's password") from None
    else:
        return ""
    if len(password) < passwords.SHORTEST:
        raise InvalidRequestError(f"{origin}: a password needs at least {passwords.SHORTEST} characters")
    return password
