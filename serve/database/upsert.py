"""`INSERT … ON CONFLICT`, which both databases know and SQLAlchemy spells for each."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.tables import Base


def insert(session: Session, table: type[Base]) -> Any:
    """With `on_conflict_do_update` and `excluded`."""
    known = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return known(table)
