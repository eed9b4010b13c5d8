"""The different values of a column, without reading all its rows."""

from __future__ import annotations

from sqlalchemy import func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

LAST = "\U0010ffff"
"""Sorts behind whatever a text may go on with."""


def beginning_with(session: Session, column: InstrumentedAttribute[str], start: str) -> list[str]:
    """In order. `column`: in the order of its bytes, with an index, and with few different values."""
    end = start + LAST
    first = select(func.min(column).label("value")).where(column >= start, column < end)
    steps = first.cte("steps", recursive=True)
    # From one to the next: the database jumps in the index, as often as there are values.
    following = (
        select(func.min(column)).where(column > steps.c.value, column < literal(end)).scalar_subquery()
    )
    steps = steps.union_all(select(following).where(steps.c.value.is_not(None)))
    return list(session.scalars(select(steps.c.value).where(steps.c.value.is_not(None))))
