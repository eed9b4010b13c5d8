"""What every kind of source can do."""

from __future__ import annotations

import fnmatch
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from dragonfly_ray.errors import (
    SourceError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnsupportedError,
    StorageFullError,
)
from dragonfly_ray.model import UNTOLD, Entry, Manifest, Segment, Source
from dragonfly_ray.sources.origin_concurrency import Slots
from dragonfly_ray.sources.stat_retry import Retry
from dragonfly_ray.urls import redacted
from dragonfly_ray.validators import LISTED

_WILD = re.compile(r"[*?\[]")
W = TypeVar("W")
R = TypeVar("R")
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


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at one file of a folder found. `ranges`: it can be read from the middle."""

    size: int
    version: str
    ranges: bool
    checksum: str = ""
    """As `Entry` has it."""


Stat = Callable[[Sequence[str]], list[Seen]]
"""Looks at files of a folder, several at once: one answer each, in order. Raises `SourceError`."""
Share = Callable[[Stat, Sequence[str]], list[Seen]]
"""Has these paths looked at, by the `Stat` here or by that of others."""


def alone(look: Stat, paths: Sequence[str]) -> list[Seen]:
    """The `Share` of a resolver without help."""
    return look(paths)


MAX_CONTENT = 1 << 60
"""Bytes beyond which a size is taken for a mistake."""


def check_size(size: object, name: str) -> int:
    """What an origin says of a size; raises `SourceUnsupportedError` for what cannot be one."""
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_CONTENT:
        raise SourceUnsupportedError(f"{name}: invalid size {str(size)[:30]!r}")
    return size


def parse_size(text: str | None, name: str) -> int | None:
    """A size in decimal digits; None for anything else. Raises `SourceUnsupportedError` as `check_size` does."""
    if not text or not text.isascii() or not text.isdigit():
        return None
    if len(text) > len(str(MAX_CONTENT)):
        raise SourceUnsupportedError(f"{name}: invalid size {text[:30]}…")
    return check_size(int(text), name)


class Room(Protocol):
    """What the store of the peer that resolves can take."""

    def capacity(self) -> int:
        """Bytes that it could hold at most, if all that is there went."""

    def spool_more(self, count: int) -> None:
        """Before `count` more bytes are written to the spool. Raises `StorageFullError`."""


class Boundless:
    """A `Room` for whoever writes nothing."""

    def capacity(self) -> int:
        return MAX_CONTENT

    def spool_more(self, count: int) -> None:
        pass


def check_bounds(manifest: Manifest, name: str, max_entries: int, room: Room) -> None:
    """Before anything is built for it. Raises `SourceUnsupportedError`, `StorageFullError`."""
    if len(manifest.entries) > max_entries:
        raise SourceUnsupportedError(
            f"{name}: has {len(manifest.entries):,} entries, more than {max_entries:,} (origin.max_entries)"
        )
    size = sum(check_size(entry.size, f"{name} ({entry.path})") for entry in manifest.entries)
    if size > (most := room.capacity()):
        raise StorageFullError(
            f"{name}: {size:,} bytes do not fit into a store of {most:,} "
            "(storage.quota, or what the file system has less storage.keep_free)"
        )


def counted(entries: Iterable[Entry], name: str, max_entries: int) -> Iterator[Entry]:
    """`entries`, until they are too many: then raises `SourceUnsupportedError`."""
    for number, entry in enumerate(entries):
        if number >= max_entries:
            raise SourceUnsupportedError(
                f"{name}: has more than {max_entries:,} entries (origin.max_entries)"
            )
        yield entry


class Stream(ABC):
    """Bytes of one entry, in order. Raises `SourceError`.

    `asks`: whether the next read waits for an answer of the origin to begin.
    """

    asks: bool = False

    @abstractmethod
    def readinto(self, view: memoryview) -> int:
        """At least one byte, unless it is the end."""

    def close(self) -> None:  # noqa: B027, most have nothing to close
        """At any time; what was not read is not fetched."""


class Adapter(ABC):
    """One source. Its methods are called from several threads at once.

    `patience`: with an origin that fails in the middle of a look; None: failures are raised at once.
    """

    patience: Retry | None = None

    @abstractmethod
    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution: ...

    def look(self, paths: Sequence[str]) -> list[Seen]:
        """At files of the folder, whose listing does not tell enough."""
        raise SourceUnsupportedError("per-file stat is supported for HTTP folders only")

    @abstractmethod
    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        """`length` bytes of entry `number` from `offset` on, of the version in the manifest."""

    def many(
        self, manifest: Manifest, wanted: Sequence[tuple[int, memoryview]], slots: Slots, progress: Progress
    ) -> list[int]:
        """Fills the buffers of whole small entries, several at once, where there is a quick way to it.

        Returns the entries that are left to `stream`. Raises `SourceError`, and what `progress` raises.
        """
        return [number for number, _ in wanted]

    def ranges(self, manifest: Manifest, spans: Sequence[Segment], connections: int) -> list[bytes]:
        """A few bytes of each of several entries, of the versions in the manifest: in order of `spans`.

        The first refusal ends it, and its error names the entry. Raises `SourceError`.
        """
        return together(connections, spans, lambda span: self.range_of(manifest, span))

    def range_of(self, manifest: Manifest, span: Segment) -> bytes:
        """One of `ranges`."""
        try:
            stream = self.stream(manifest, span.entry, span.offset, span.length)
            try:
                return read_all(stream, span.length)
            finally:
                stream.close()
        except SourceError as error:
            if manifest.directory:
                raise type(error)(f"{error} ({manifest.entries[span.entry].path})", **error.details) from None
            raise

    def abort(self) -> None:  # noqa: B027, what only reads local files ends by itself
        """From any thread: what is under way ends with an error as soon as can be, and nothing more is asked."""

    def rest(self) -> None:  # noqa: B027, most have nothing to close
        """Closes connections that nobody uses now."""

    def close(self) -> None:  # noqa: B027, most have nothing to close
        """Lets go of connections."""


def read_all(stream: Stream, size: int) -> bytes:
    """The next `size` bytes. Raises `SourceTruncatedError`."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = stream.readinto(view[at:])
        if not count:
            raise SourceTruncatedError("truncated: the origin sent fewer bytes than announced")
        at += count
    return bytes(data)


def together(connections: int, work: Sequence[W], do: Callable[[W], R]) -> list[R]:
    """`do` for all of `work` in up to `connections` threads: the results in order, or the first error."""
    if len(work) == 1:
        return [do(work[0])]
    refused = threading.Event()

    def one(each: W) -> R:
        if refused.is_set():
            raise SourceError("request skipped: another request was refused")
        try:
            return do(each)
        except BaseException:
            refused.set()
            raise

    pool = ThreadPoolExecutor(max(1, min(connections, len(work))), thread_name_prefix="look")
    parts = [pool.submit(one, each) for each in work]
    try:
        wait(parts, return_when=FIRST_EXCEPTION)
    finally:
        pool.shutdown(cancel_futures=True)
    failed = [e for part in parts if not part.cancelled() and (e := part.exception())]
    # The refusal itself, not what was left out for its sake.
    for error in sorted(failed, key=lambda e: type(e) is SourceError):
        raise error
    return [part.result() for part in parts]


class Stop:
    """Ends the work of adapters from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._adapters: set[Adapter] = set()
        self._stopped = threading.Event()

    @contextmanager
    def over(self, adapter: Adapter) -> Iterator[None]:
        """While `adapter` is at work."""
        with self._lock:
            self._adapters.add(adapter)
            stopped = self._stopped.is_set()
        if stopped:
            adapter.abort()
        try:
            yield
        finally:
            with self._lock:
                self._adapters.discard(adapter)

    def stop(self) -> None:
        with self._lock:
            self._stopped.set()
            adapters = list(self._adapters)
        for adapter in adapters:
            adapter.abort()

    def go_on(self) -> None:
        """Raises `SourceError` once it was stopped: for long work that is no adapter's."""
        if self._stopped.is_set():
            raise SourceError("read cancelled")

    def wait(self, seconds: float) -> bool:
        """Whether it was stopped within so many seconds."""
        return self._stopped.wait(seconds)


def comparable(entry: Entry) -> str:
    """The version that the file's own answers are compared with; empty where they cannot be."""
    return "" if entry.version.startswith((LISTED, UNTOLD)) else entry.version


def chosen(source: Source, entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries that the source's patterns let through, in order of their names.

    Patterns are matched against the relative path; `*` crosses folders. Where an `include` is given,
    folders are kept only for their mode, on the way to what is.
    """
    found: list[Entry] = []
    folders: dict[str, Entry] = {}
    for entry in entries:
        if source.exclude and matches(entry.path, source.exclude):
            continue
        if not source.include or (entry.kind != "dir" and is_chosen(source, entry.path)):
            found.append(entry)
        elif entry.kind == "dir" and entry.mode is not None:
            folders[entry.path] = entry
    if folders:
        found += _on_the_way(found, folders)
    if not found and (source.include or source.exclude):
        raise SourceNotFoundError(f"{redacted(source.url)}: no entry matches include and exclude")
    return tuple(sorted(found, key=lambda e: e.path))


def _on_the_way(entries: Iterable[Entry], folders: Mapping[str, Entry]) -> list[Entry]:
    """Those of `folders` that something lies in."""
    needed: set[str] = set()
    for entry in entries:
        path = entry.path.rpartition("/")[0]
        while path and path not in needed:
            needed.add(path)
            path = path.rpartition("/")[0]
    return [folders[path] for path in needed if path in folders]


def is_chosen(source: Source, path: str) -> bool:
    """Whether the source's patterns let a file of this name through."""
    included = not source.include or matches(path, source.include)
    return included and not (source.exclude and matches(path, source.exclude))


def may_hold(source: Source, folder: str) -> bool:
    """Whether the source's patterns may let something through that lies in this folder."""
    inside = f"{folder}/"
    for pattern in source.exclude:
        if matches(folder, (pattern,)) or (pattern.endswith("*") and fnmatch.fnmatchcase(inside, pattern)):
            return False
    fixed = [_WILD.split(pattern, maxsplit=1)[0] for pattern in source.include]
    return not fixed or any(inside.startswith(start) or start.startswith(inside) for start in fixed)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns of `chosen` is about this path, or a folder above it."""
    return any(
        fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, f"{p.rstrip('/')}/*") for p in patterns
    )
