"""What one build of the package speaks, and what two of them agree on.

From version 3 on, two neighbouring versions work together in one cluster, so that nodes can be updated one by one. Each
end says the versions that it speaks and bits of what it understands beyond them; both sign what both have said. A
connection runs the highest version that both speak, with the features that both have.

| version | adds |
|---|---|
| 3 | the ranges and bits themselves |
| 4 | a frame of an unknown type is answered with `Unsupported`, and skipped |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

VERSION = 4
LEAST_VERSION = 3
ANSWERS_UNKNOWN = 4
"""The version from which on a frame of an unknown type is answered."""


class Feature(IntFlag):
    NONE = 0
    ENCODINGS = 1
    """The head of a piece says how it is encoded."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a connection runs."""

    version: int = LEAST_VERSION
    features: Feature = Feature.NONE


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one end speaks: the versions from `least` to `version`, and the bits of `features`, known here or not."""

    version: int = VERSION
    least: int = LEAST_VERSION
    features: int = int(Feature.ENCODINGS)

    @property
    def known(self) -> bool:
        """Whether this build can read more of this end's first word than these fields."""
        return self.least <= VERSION and self.version >= LEAST_VERSION and self.least <= self.version

    def agree(self, other: Capabilities) -> Agreed | None:
        """None: they have no version in common."""
        version = min(self.version, other.version)
        if version < max(self.least, other.least):
            return None
        return Agreed(version, Feature(self.features & other.features))

    @property
    def signed(self) -> tuple[int, int, int]:
        """As a `Handshake` has it."""
        return self.version, self.least, self.features

    def __str__(self) -> str:
        return f"{self.version}" if self.least == self.version else f"{self.least}-{self.version}"


CURRENT = Capabilities()
"""This build."""
