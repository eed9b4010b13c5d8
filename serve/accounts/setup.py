"""What a new database begins with: the roles, and one admin."""

from __future__ import annotations

import sys

from sqlalchemy import select

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.serve.accounts import passwords
from dragonfly_ray.serve.accounts.permissions import BUILTIN_ROLES
from dragonfly_ray.serve.accounts.rights import ADMIN
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Role, User, now
from dragonfly_ray.serve.records import audit
from dragonfly_ray.serve.settings import ManagerSettings

SETUP = "setup"
_BANNER = """\

  +----------------------------------------------------------------------+
  | dragonfly: the first user was made. This password is shown this once. |
  +----------------------------------------------------------------------+
      user      {name}
      password  {password}

"""


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

    A password that nobody gave is shown once, on the standard error of the process that made it, and
    not in its log, which is kept and sent elsewhere.
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
        sys.stderr.write(_BANNER.format(name=ADMIN, password=password))
        sys.stderr.flush()


def _given(settings: ManagerSettings) -> str:
    if settings.admin_password is not None:
        origin, password = "DRAGONFLY_ADMIN_PASSWORD", settings.admin_password.get_secret_value()
    elif settings.admin_password_file is not None:
        origin = str(settings.admin_password_file)
        try:
            password = settings.admin_password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise InvalidRequestError(f"{origin}: the first user's password cannot be read from it") from None
    else:
        return ""
    if len(password) < passwords.SHORTEST:
        raise InvalidRequestError(f"{origin}: a password has at least {passwords.SHORTEST} characters")
    return password
