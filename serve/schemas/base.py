"""What all schemas share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints


class In(BaseModel):
    """A request's body: unknown members are refused."""

    model_config = ConfigDict(extra="forbid")


class Out(BaseModel):
    """An answer's body, also from a row of the database."""

    model_config = ConfigDict(from_attributes=True)


Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\w.@ +:-]+$")]
Slug = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Time = AwareDatetime
"""ISO 8601, with a zone."""
Text = Annotated[str, StringConstraints(max_length=2000)]


class Provenance(Out):
    """Bytes by where they came from."""

    origin: int = 0
    peers: int = 0
    cache: int = 0
    object_store: int = 0


class Failure(Out):
    kind: str = Field(description="Stable, such as `source-not-found` or `node-lost`.")
    message: str


class By(Out):
    """A user, as of when it happened."""

    id: str
    name: str
