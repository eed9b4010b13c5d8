"""Bytes by where they came from, as numbers that can be added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from dragonfly_ray.serve.cluster import NodeView
from dragonfly_ray.serve.schemas.base import Provenance


@dataclass(frozen=True, slots=True)
class Counts:
    """Names as in the tables."""

    bytes_origin: int = 0
    bytes_peers: int = 0
    bytes_cache: int = 0
    bytes_object_store: int = 0
    bytes_sent: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def __bool__(self) -> bool:
        return any(self._values())

    def since(self, before: Counts) -> Counts:
        """What has come; never less than nothing."""
        return Counts(*(max(0, a - b) for a, b in zip(self._values(), before._values(), strict=True)))

    def highest(self, other: Counts) -> Counts:
        return Counts(*(max(a, b) for a, b in zip(self._values(), other._values(), strict=True)))

    @property
    def saved(self) -> int:
        """Received, but not from the origin."""
        return self.bytes_peers + self.bytes_cache + self.bytes_object_store

    @property
    def provenance(self) -> Provenance:
        return Provenance(
            origin=self.bytes_origin,
            peers=self.bytes_peers,
            cache=self.bytes_cache,
            object_store=self.bytes_object_store,
        )

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def _values(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in NAMES)

    @classmethod
    def of(cls, view: NodeView) -> Counts:
        return cls(*(getattr(view, name) for name in NAMES))

    @classmethod
    def stored(cls, values: Mapping[str, int]) -> Counts:
        return cls(*(int(values.get(name, 0)) for name in NAMES))


NAMES = tuple(f.name for f in fields(Counts))
