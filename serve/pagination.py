"""Pages by cursor: stable while rows come and go, and as fast at the end as at the start."""

from __future__ import annotations

import base64
import binascii
import heapq
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session

from dragonfly_ray.serve.problems import invalid

T = TypeVar("T")
Row = TypeVar("Row")
Item = TypeVar("Item")
MOST = 500
_STRANGE = "cursor: not one that this list gave out"


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
    limit: Annotated[int, Query(ge=1, le=MOST, description="Rows of one page.")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
    sort: Annotated[
        str | None, Query(max_length=64, description="A field; with `-` in front the greatest come first.")
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
) -> Page[T]:
    """Rows after the cursor. `fields`: what may be sorted by (never null); `key` breaks ties."""
    sort, name, descending = _sorted_by(paging, fields, default)
    column = fields[name]
    if paging.cursor:
        at, last = _decode(paging.cursor, sort)
        value = datetime.fromisoformat(at["t"]) if isinstance(at, dict) else at
        beyond = column < value if descending else column > value
        ties = key < last if descending else key > last
        query = query.where(or_(beyond, and_(column == value, ties)))
    order = (column.desc(), key.desc()) if descending else (column.asc(), key.asc())
    rows = list(session.scalars(query.order_by(*order).limit(paging.limit + 1)))
    more = len(rows) > paging.limit
    rows = rows[: paging.limit]
    cursor = _encode(sort, getattr(rows[-1], column.key), getattr(rows[-1], key.key)) if more else None
    return Page(items=[shown(row) for row in rows], next_cursor=cursor)


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
        if isinstance(value, dict) or not isinstance(last, str):
            raise invalid(_STRANGE)
        try:
            rows = [r for r in rows if (at(r) < (value, last) if descending else at(r) > (value, last))]
        except TypeError:
            raise invalid(_STRANGE) from None
    choose = heapq.nlargest if descending else heapq.nsmallest
    found = choose(paging.limit + 1, rows, key=at)
    more = len(found) > paging.limit
    found = found[: paging.limit]
    cursor = _encode(sort, *at(found[-1])) if more else None
    return Page(items=[shown(row) for row in found], next_cursor=cursor)


def _sorted_by(paging: Paging, fields: Mapping[str, Any], default: str) -> tuple[str, str, bool]:
    """As it was asked for, the field's name, and whether the greatest come first."""
    sort = paging.sort or default
    name = sort.removeprefix("-")
    if name not in fields:
        raise invalid(f"sort {sort!r}: there are {', '.join(fields)}")
    return sort, name, sort.startswith("-")


def _encode(sort: str, value: Any, key: Any) -> str:
    at = {"t": value.isoformat()} if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([sort, at, key]).encode()).decode().rstrip("=")


def _decode(cursor: str, sort: str) -> tuple[Any, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        of, at, key = found
        if of != sort:
            raise invalid(f"cursor: it belongs to sort={of}, not to sort={sort}")
        if isinstance(at, dict):
            datetime.fromisoformat(at["t"])
        elif not isinstance(at, (str, int, float)):
            raise TypeError
        if not isinstance(key, (str, int)):
            raise TypeError
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise invalid(_STRANGE) from None
    return at, key
