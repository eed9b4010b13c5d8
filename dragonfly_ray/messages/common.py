"""What messages of every direction share: versions, the base struct, samples, and the answer to an unknown message."""

from __future__ import annotations

import msgspec

VERSION = 2
LEAST_VERSION = 1
MAX_NAME = 64
"""Characters of the name of a message that is not known."""


class TaggedStruct(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A message, or part of one: the class's name is its tag, so a class that is renamed keeps `tag="OldName"`."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A few bytes of one entry as the origin gives them."""

    entry: int
    piece: int
    offset: int
    """In the piece."""
    length: int
    digest: bytes


class Unsupported(TaggedStruct, frozen=True):
    """The answer to a message that is not known to whoever got it, or not meant for it."""

    name: str
    version: int = 0
    """Of that message."""
    least: int = LEAST_VERSION
    most: int = VERSION
    """The versions that are read."""
