"""The exceptions that mean that the database is unavailable, and their first line for logs."""

from __future__ import annotations

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

DB_UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeoutError)


def first_line(error: Exception) -> str:
    """Of the driver's own message: without the statement, and what was to be stored."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
