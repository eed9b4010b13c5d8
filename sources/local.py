"""Files and folders of the node's own file system."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from urllib.parse import unquote

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
    UnsafePathError,
)
from dragonfly_ray.model import Entry, Manifest, Source
from dragonfly_ray.names import from_os, to_os
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources.base import Adapter, Resolution, Room, Share, Stream, chosen, counted, read_all
from dragonfly_ray.sources.local_walk import LocalWalk, local_entry, local_version

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""A pipe that lies there by now is not waited for."""


class LocalAdapter(Adapter):
    """`file://` and plain paths. Under a policy of URLs nothing outside of the folder is read by way of a link in it."""

    def __init__(self, source: Source, settings: OriginSettings, policy: UrlPolicy | None = None) -> None:
        self._source = source
        self._settings = settings
        self._bound = policy is not None
        self._stopped = threading.Event()
        text = to_os(source.url.removeprefix("local://").removeprefix("file://"))
        decoded = unquote(text, errors="surrogateescape")
        # A percent sign may be part of a name, or the URL's escape: what exists decides.
        self._path = Path(text if os.path.exists(text) or not os.path.exists(decoded) else decoded)

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        try:
            found = os.stat(self._path)
            if stat.S_ISDIR(found.st_mode):
                mode = stat.S_IMODE(found.st_mode)
                return Resolution(Manifest(self._entries(), directory=True, mode=mode))
            if not stat.S_ISREG(found.st_mode):
                raise SourceError(f"{self._path}: not a regular file or folder")
            manifest = Manifest((local_entry(from_os(self._path.name), found),), directory=False)
            return Resolution(manifest, self._small(manifest) if found.st_size <= small_limit else None)
        except OSError as error:
            raise _typed(error, self._path) from None

    def _entries(self) -> tuple[Entry, ...]:
        walk = LocalWalk(self._path, self._source, self._go_on, bound=self._bound)
        return chosen(self._source, counted(walk, str(self._path), self._settings.max_entries))

    def _small(self, manifest: Manifest) -> bytes:
        stream = self.stream(manifest, 0, 0, manifest.size)
        try:
            return read_all(stream, manifest.size)
        finally:
            stream.close()

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        entry = manifest.entries[number]
        path = self._path / to_os(entry.path) if manifest.directory else self._path
        try:
            stream = _FileStream(path, entry, offset, length)
        except OSError as error:
            raise _typed(error, path) from None
        if self._bound and manifest.directory and not stream.is_below(os.path.realpath(self._path)):
            stream.close()
            raise SourceChangedError(f"{path}: points outside the folder since it was resolved")
        return stream

    def abort(self) -> None:
        self._stopped.set()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise SourceError(f"{self._path}: read cancelled")


class _FileStream(Stream):
    def __init__(self, path: Path, entry: Entry, offset: int, length: int) -> None:
        self._path, self._entry = path, entry
        self._at, self._end = offset, offset + length
        self._fd = os.open(path, _READ)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if local_version(os.fstat(self._fd)) != self._entry.version:
            raise SourceChangedError(f"{self._path}: has changed since it was resolved")

    def is_below(self, folder: str) -> bool:
        """Whether the open file lies there, whatever links led to it."""
        return os.readlink(f"/proc/self/fd/{self._fd}").startswith(f"{folder.rstrip('/')}/")

    def readinto(self, view: memoryview) -> int:
        try:
            count = os.preadv(self._fd, [view[: self._end - self._at]], self._at)
        except OSError as error:
            raise _typed(error, self._path) from None
        self._at += count
        if self._at == self._end or not count:
            self._check()
        return count

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _typed(error: OSError, path: Path) -> Exception:
    if isinstance(error, (SourceError, UnsafePathError)):
        return error
    kinds: dict[type[OSError], type[SourceError]] = {
        FileNotFoundError: SourceNotFoundError,
        PermissionError: SourceAuthError,
    }
    named = isinstance(error.filename, (str, Path)) and os.path.isabs(error.filename)
    return kinds.get(type(error), SourceError)(
        f"{error.filename if named else path}: {error.strerror or error}"
    )
