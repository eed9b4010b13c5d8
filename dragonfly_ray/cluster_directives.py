"""What holds for the whole cluster beyond its settings at the start: live settings, nodes cordoned or draining.

The controller gives it out, and everybody who hears it keeps it: a controller that was restarted learns
it from them. The newest of each part counts, whoever says it.
"""

from __future__ import annotations

import heapq
import logging
from typing import Any

import msgspec

from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.live_settings import changed, follow, own

log = logging.getLogger(__name__)


QUIET_MS = 24 * 3600 * 1000
"""Milliseconds for which a mark that says nothing outlives the latest one."""
MAX_MARKS = 4096
"""Marks that are kept; the oldest go first. Node ids are not used again, so most are of nodes that are gone."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Of one node. The later stamp counts; one that says nothing is kept for a day, or an older one would come back."""

    stamp: int
    cordoned: bool = False
    draining: bool = False


class Directives(msgspec.Struct, frozen=True, array_like=True):
    version: int = 0
    """Of the changes; 0: none were made."""
    changes: dict[str, Any] = {}
    """Dotted names -> values."""
    marks: dict[str, Mark] = {}
    """By node id."""
    leaving: tuple[str, ...] = ()
    """Nodes that Ray itself drains, as the controller saw them last."""

    @property
    def stamp(self) -> int:
        """Of the latest mark."""
        return max((mark.stamp for mark in self.marks.values()), default=0)

    @property
    def cordoned(self) -> frozenset[str]:
        """Nodes that are chosen for nothing unless they are named."""
        return self.draining.union(node for node, mark in self.marks.items() if mark.cordoned)

    @property
    def draining(self) -> frozenset[str]:
        """Nodes that shall be nobody's parent."""
        return frozenset(self.leaving).union(node for node, mark in self.marks.items() if mark.draining)

    def merged(self, other: Directives) -> Directives:
        """With whatever is newer in `other`; who leaves, as `other` says."""
        newest = other if other.version > self.version else self
        marks = dict(self.marks)
        for node, mark in other.marks.items():
            if node not in marks or mark.stamp > marks[node].stamp:
                marks[node] = mark
        return Directives(newest.version, newest.changes, _kept(marks), other.leaving)

    def marked(
        self, node: str, now: float, *, cordoned: bool | None = None, draining: bool | None = None
    ) -> Directives:
        """With another mark for a node; None: as it was. `now`: Unix time, so that stamps outlive processes."""
        old = self.marks.get(node, Mark(0))
        new = Mark(
            max(int(now * 1000), self.stamp + 1),
            old.cordoned if cordoned is None else cordoned,
            old.draining if draining is None else draining,
        )
        return msgspec.structs.replace(self, marks=_kept({**self.marks, node: new}))

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> Directives:
        return msgspec.msgpack.decode(data, type=Directives)


def _kept(marks: dict[str, Mark]) -> dict[str, Mark]:
    """Those that still say something, or could be contradicted."""
    latest = max((mark.stamp for mark in marks.values()), default=0)
    kept = {
        node: mark
        for node, mark in marks.items()
        if mark.cordoned or mark.draining or latest - mark.stamp < QUIET_MS
    }
    if len(kept) > MAX_MARKS:
        newest = heapq.nlargest(MAX_MARKS, kept, key=lambda node: kept[node].stamp)
        kept = {node: kept[node] for node in newest}
    return kept


class Follower:
    """A process's own settings, which follow the newest directives that it heard."""

    def __init__(self, base: Settings) -> None:
        self._base = base
        self.settings = own(base)
        self.directives = Directives()

    def check(self, changes: dict[str, Any]) -> None:
        """Raises `InvalidRequestError`."""
        changed(self._base, changes)

    def take(self, heard: Directives) -> bool:
        """Whether settings changed by it."""
        before, self.directives = self.directives, self.directives.merged(heard)
        if self.directives.version == before.version:
            return False
        try:
            follow(self.settings, changed(self._base, self.directives.changes))
        except InvalidRequestError as error:
            # Of another version of this package. What it cannot be told, it cannot do.
            log.warning("settings of version %d do not fit here: %s", self.directives.version, error)
            return False
        log.info("settings of version %d: %s", self.directives.version, self.directives.changes)
        return True
