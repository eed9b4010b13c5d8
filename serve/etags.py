"""Versions of what people edit, as HTTP tells them: `ETag` on answers, `If-Match` on changes.

A change without `If-Match` is refused with 428, one that is based on another version with 412.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Response

from dragonfly_ray.serve.problems import Problem


def etag(version: int) -> str:
    return f'"{version}"'


def tag(response: Response, version: int) -> None:
    """Says with the answer which version it shows."""
    response.headers["ETag"] = etag(version)


class Precondition:
    """What `If-Match` said. A route that changes something calls `check` with the row's version, in the
    transaction of the change."""

    def __init__(self, if_match: str) -> None:
        self._wanted = frozenset(part.strip() for part in if_match.split(","))

    def check(self, version: int) -> None:
        """Raises `Problem` 412 unless this is the version that the caller has seen."""
        if "*" not in self._wanted and etag(version) not in self._wanted:
            raise Problem(
                412,
                "precondition-failed",
                "Version conflict",
                f"the current version is {version}; read it again and retry the change",
                headers={"ETag": etag(version)},
            )


def _if_match(
    if_match: Annotated[
        str | None,
        Header(
            max_length=256, description='The `ETag` of what is changed, such as `"3"`; `*`: whatever it is.'
        ),
    ] = None,
) -> Precondition:
    if if_match is None or not if_match.strip():
        raise Problem(
            428,
            "precondition-required",
            "If-Match required",
            "send If-Match with the ETag of the version that you read",
        )
    return Precondition(if_match)


IfMatch = Annotated[Precondition, Depends(_if_match)]
