"""What a new database begins with."""

from __future__ import annotations

from dragonfly_ray.serve.accounts.permissions import BUILTIN_ROLES
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import Role, now

SETUP = "setup"


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
