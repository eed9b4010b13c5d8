"""What every kind of source can do."""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dragonfly_ray.errors import SourceNotFoundError
from dragonfly_ray.model import Entry, Manifest, Source
from dragonfly_ray.urls import redacted

Take = Callable[[int], memoryview]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a look at the origin found.

    `content`: all of it, where it is small. `spooled`: a temporary file with all of it, where the
    origin did not say how long it is.
    """

    manifest: Manifest
    content: bytes | None = None
    spooled: Path | None = None


class Stream(ABC):
    """Bytes of one entry, in order. Raises `SourceError`."""

    @abstractmethod
    def readinto(self, view: memoryview) -> int:
        """At least one byte, unless it is the end."""

    def close(self) -> None:  # noqa: B027, most have nothing to close
        """At any time; what was not read is not fetched."""


class Adapter(ABC):
    """One source. Its methods are called from several threads at once."""

    @abstractmethod
    def resolve(self, small_limit: int, spool: Path | None) -> Resolution: ...

    @abstractmethod
    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        """`length` bytes of entry `number` from `offset` on, of the version in the manifest."""

    def close(self) -> None:  # noqa: B027, most have nothing to close
        """Lets go of connections."""


def chosen(source: Source, entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries that the source's patterns let through, in order of their names.

    Patterns are matched against the relative path; `*` crosses folders. Folders are kept where no
    `include` is given.
    """
    found = [
        e
        for e in entries
        if (not source.include or (e.kind != "dir" and _matches(e.path, source.include)))
        and not (source.exclude and _matches(e.path, source.exclude))
    ]
    if not found and (source.include or source.exclude):
        raise SourceNotFoundError(f"{redacted(source.url)}: nothing is left after include and exclude")
    return tuple(sorted(found, key=lambda e: e.path))


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, f"{p.rstrip('/')}/*") for p in patterns
    )
