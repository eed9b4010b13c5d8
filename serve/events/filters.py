"""Filters of events: by type, resource type and resource id; in memory and as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.distinct import beginning_with
from dragonfly_ray.serve.database.tables import Event

ANY = ".*"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """`types`: exact ones, or `job.*` for all that begin with `job.`; none: all."""

    types: tuple[str, ...] = ()
    resource_type: str = ""
    resource_id: str = ""

    def matches(self, type: str, resource_type: str, resource_id: str) -> bool:
        return (
            is_of(type, self.types)
            and self.resource_type in ("", resource_type)
            and self.resource_id in ("", resource_id)
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same for the database."""
        types = [or_(*(_of(t) for t in self.types))] if self.types else []
        return types + self.resource()

    def resource(self) -> list[ColumnElement[bool]]:
        """Without the types."""
        found: list[ColumnElement[bool]] = []
        if self.resource_type:
            found.append(Event.resource_type == self.resource_type)
        if self.resource_id:
            found.append(Event.resource_id == self.resource_id)
        return found


def existing(session: Session, types: Sequence[str]) -> list[str]:
    """The exact types that events have and these mean."""
    found = {t for t in types if not t.endswith(ANY)}
    for pattern in (t for t in types if t.endswith(ANY)):
        found.update(beginning_with(session, Event.type, pattern.removesuffix("*")))
    return sorted(found)


def is_of(type: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(
        type.startswith(p.removesuffix("*")) if p.endswith(ANY) else type == p for p in patterns
    )


def _of(pattern: str) -> ColumnElement[bool]:
    if pattern.endswith(ANY):
        return Event.type.startswith(pattern.removesuffix("*"), autoescape=True)
    return Event.type == pattern
