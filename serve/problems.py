"""Errors as RFC 9457 problem documents, each with a stable `type`.

A route raises `Problem`, or lets an error of this package through: `of` turns it into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dragonfly_ray import errors

MEDIA_TYPE = "application/problem+json"
PREFIX = "urn:dragonfly:problem:"


class Problem(Exception):
    """`kind`: what comes behind the prefix of `type`; `more`: further members of the document."""

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def document(self, instance: str = "") -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = {"type": PREFIX + self.kind, "title": self.title, "status": self.status}
        if self.detail:
            found["detail"] = self.detail
        if instance:
            found["instance"] = instance
        return found | self.more


class ProblemDocument(BaseModel):
    """What every error answers with."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description=f"Stable; begins with `{PREFIX}`.", examples=[PREFIX + "not-found"])
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    """The id of the request, as in the logs."""


def not_found(what: str, name: object) -> Problem:
    return Problem(404, "not-found", "Not found", f"{what} {str(name)!r} not found")


def conflict(detail: str, kind: str = "conflict", **more: Any) -> Problem:
    return Problem(409, kind, "Conflict", detail, **more)


def forbidden(detail: str, kind: str = "forbidden", **more: Any) -> Problem:
    return Problem(403, kind, "Forbidden", detail, **more)


def invalid(detail: str, kind: str = "invalid-request", **more: Any) -> Problem:
    return Problem(422, kind, "Refused", detail, **more)


def of(error: errors.DragonflyError) -> Problem:
    """The problem that an error of this package is, for whoever asked."""
    match error:
        case errors.InvalidRequestError():
            return invalid(str(error), error.kind)
        case errors.ClusterError():
            return Problem(503, error.kind, "Cluster unavailable", str(error), headers={"Retry-After": "2"})
        case errors.VaultError():
            return Problem(503, error.kind, "The manager's key cannot decrypt its secrets", str(error))
        case _:
            return Problem(502, error.kind, "Cluster error", str(error))
