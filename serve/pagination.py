"""Pages by cursor: stable while rows come and go, and as fast at the end as at the start."""

from __future__ import annotations

import base64
import binascii
import heapq
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar, cast

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, TypeDecorator, false, literal, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from dragonfly_ray.serve.problems import invalid

T = TypeVar("T")
Row = TypeVar("Row")
Item = TypeVar("Item")
MOST = 500
_STRANGE = "cursor: invalid, not issued by this list"


class Page(BaseModel, Generic[T]):
    items: list[T]
    next_cursor: str | None = None
    """For `cursor`, to get the next page; null: this is the last."""


class Paging:
    """What a caller asks of a list."""

    def __init__(self, limit: int, cursor: str | None, sort: str | None) -> None:
        self.limit = limit
        self.cursor = cursor
        self.sort = sort


def _paging(
    limit: Annotated[int, Query(ge=1, le=MOST, description="Maximum number of rows per page.")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the previous page.")
    ] = None,
    sort: Annotated[
        str | None, Query(max_length=64, description="Sort field; prefix `-` for descending order.")
    ] = None,
) -> Paging:
    return Paging(limit, cursor, sort)


Paged = Annotated[Paging, Depends(_paging)]


def page(
    session: Session,
    query: Select[Row],
    paging: Paging,
    fields: Mapping[str, InstrumentedAttribute[Any]],
    key: InstrumentedAttribute[Any],
    shown: Callable[[Row], T],
    *,
    default: str,
    any_of: tuple[InstrumentedAttribute[str], Sequence[str]] | None = None,
) -> Page[T]:
    """Rows after the cursor. `fields`: what may be sorted by (never null); `key` breaks ties.

    `any_of`: rows with one of these values in a column that has an index together with what is sorted by. The
    first rows of each are merged: neither are all of them sorted, nor are others read on the way.
    """
    sort, name, descending = _sorted_by(paging, fields, default)
    column = fields[name]
    if paging.cursor:
        value, last = _decode(paging.cursor, sort)
        _of_type(value, column)
        _of_type(last, key)
        # As rows, not as two comparisons with `or` between them: so the index leads straight there.
        here, there = tuple_(column, key), tuple_(literal(value, column.type), literal(last, key.type))
        query = query.where(here < there if descending else here > there)
    order = (column.desc(), key.desc()) if descending else (column.asc(), key.asc())
    if any_of is not None:
        query = _merged(query, key, any_of, order, paging.limit + 1)
    rows = list(session.scalars(query.order_by(*order).limit(paging.limit + 1)))
    more = len(rows) > paging.limit
    rows = rows[: paging.limit]
    cursor = cursor_at(sort, getattr(rows[-1], column.key), getattr(rows[-1], key.key)) if more else None
    return Page(items=[shown(row) for row in rows], next_cursor=cursor)


def _merged(
    query: Select[Row],
    key: InstrumentedAttribute[Any],
    any_of: tuple[InstrumentedAttribute[str], Sequence[str]],
    order: tuple[ColumnElement[Any], ...],
    limit: int,
) -> Select[Row]:
    column, values = any_of
    if len(values) < 2:
        return query.where(column == values[0] if values else false())
    firsts = (
        query.with_only_columns(key).where(column == value).order_by(*order).limit(limit).subquery()
        for value in values
    )
    found = union_all(*(select(first.c[key.key]) for first in firsts))
    entity = query.column_descriptions[0]["entity"]
    return cast("Select[Row]", select(entity).where(key.in_(found)))


def page_of(
    rows: Iterable[Item],
    paging: Paging,
    fields: Mapping[str, Callable[[Item], Any]],
    key: Callable[[Item], str],
    shown: Callable[[Item], T],
    *,
    default: str,
) -> Page[T]:
    """`page` over what is in memory."""
    sort, name, descending = _sorted_by(paging, fields, default)
    at: Callable[[Item], tuple[Any, str]] = lambda row: (fields[name](row), key(row))
    if paging.cursor:
        value, last = _decode(paging.cursor, sort)
        if not isinstance(last, str):
            raise invalid(_STRANGE)
        try:
            rows = [r for r in rows if (at(r) < (value, last) if descending else at(r) > (value, last))]
        except TypeError:
            raise invalid(_STRANGE) from None
    choose = heapq.nlargest if descending else heapq.nsmallest
    found = choose(paging.limit + 1, rows, key=at)
    more = len(found) > paging.limit
    found = found[: paging.limit]
    cursor = cursor_at(sort, *at(found[-1])) if more else None
    return Page(items=[shown(row) for row in found], next_cursor=cursor)


def _sorted_by(paging: Paging, fields: Mapping[str, Any], default: str) -> tuple[str, str, bool]:
    """As it was asked for, the field's name, and whether the greatest come first."""
    sort = paging.sort or default
    name = sort.removeprefix("-")
    if name not in fields:
        raise invalid(f"sort {sort!r}: must be one of {', '.join(fields)}")
    return sort, name, sort.startswith("-")


def cursor_at(sort: str, value: Any, key: Any) -> str:
    """The cursor behind the row with this `value` of what is sorted by, and this `key`."""
    at = {"t": value.isoformat()} if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([sort, at, key]).encode()).decode().rstrip("=")


def _decode(cursor: str, sort: str) -> tuple[Any, Any]:
    """What was sorted by, and the key, of the last row that was seen."""
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        of, at, key = found
        if of != sort:
            raise invalid(f"cursor: was issued for sort={of}, not for sort={sort}")
        if isinstance(at, dict):
            at = datetime.fromisoformat(at["t"])
        return at, key
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        raise invalid(_STRANGE) from None


def _of_type(value: Any, column: InstrumentedAttribute[Any]) -> None:
    """Cursors come from outside: what the database would choke on is refused here."""
    # A decorated type, such as that of times, does not tell by itself.
    plain = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    wanted: Any = plain.python_type
    match value:
        case bool():
            fits = wanted is bool
        case int():
            fits = wanted in (int, float) and abs(value) < 1 << 63
        case str():
            fits = wanted is str and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
        case datetime():
            fits = wanted is datetime and value.tzinfo is not None
        case _:
            fits = isinstance(value, wanted)
    if not fits:
        raise invalid(_STRANGE)
