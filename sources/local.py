"""Files and folders of the node's own file system."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
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
from dragonfly_ray.sources.base import Adapter, Resolution, Room, Share, Stream, chosen, counted


class LocalAdapter(Adapter):
    """`file://` and plain paths."""

    def __init__(self, source: Source, settings: OriginSettings) -> None:
        self._source = source
        self._settings = settings
        text = source.url.removeprefix("local://").removeprefix("file://")
        path = Path(text)
        # A percent sign may be part of a name, or the URL's escape: what exists decides.
        self._path = path if path.exists() or not Path(unquote(text)).exists() else Path(unquote(text))

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        try:
            found = os.stat(self._path)
            if stat.S_ISDIR(found.st_mode):
                entries = counted(self._walk(""), str(self._path), self._settings.max_entries)
                mode = stat.S_IMODE(found.st_mode)
                return Resolution(Manifest(chosen(self._source, entries), directory=True, mode=mode))
            if not stat.S_ISREG(found.st_mode):
                raise SourceError(f"{self._path}: is neither a file nor a folder")
            manifest = Manifest((_entry(self._path.name, found),), directory=False)
            content = self._path.read_bytes() if found.st_size <= small_limit else None
            if content is not None and len(content) != found.st_size:
                raise SourceChangedError(f"{self._path}: changes while it is read")
            return Resolution(manifest, content)
        except OSError as error:
            raise _typed(error, self._path) from None

    def _walk(self, folder: str) -> Iterator[Entry]:
        with os.scandir(self._path / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    yield _link(path, os.readlink(entry.path), self._path)
                elif entry.is_dir(follow_symlinks=False):
                    yield Entry(path, kind="dir", mode=stat.S_IMODE(entry.stat().st_mode))
                    yield from self._walk(path)
                elif entry.is_file(follow_symlinks=False):
                    yield _entry(path, entry.stat(follow_symlinks=False))

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        entry = manifest.entries[number]
        path = self._path / entry.path if manifest.directory else self._path
        try:
            return _FileStream(path, entry, offset, length)
        except OSError as error:
            raise _typed(error, path) from None


class _FileStream(Stream):
    def __init__(self, path: Path, entry: Entry, offset: int, length: int) -> None:
        self._path, self._entry = path, entry
        self._at, self._end = offset, offset + length
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._check()

    def _check(self) -> None:
        if _version(os.fstat(self._fd)) != self._entry.version:
            raise SourceChangedError(f"{self._path}: has changed since it was looked at")

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


def _version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"


def _entry(path: str, found: os.stat_result) -> Entry:
    return Entry(
        path, found.st_size, _version(found), mode=stat.S_IMODE(found.st_mode), mtime_ns=found.st_mtime_ns
    )


def _link(path: str, target: str, root: Path) -> Entry:
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or inside == ".." or inside.startswith("../"):
        raise UnsafePathError(f"{root / path}: a symlink that leads out of the folder, to {target!r}")
    return Entry(path, kind="symlink", target=target, version=target)


def _typed(error: OSError, path: Path) -> Exception:
    if isinstance(error, SourceError):
        return error
    kinds: dict[type[OSError], type[SourceError]] = {
        FileNotFoundError: SourceNotFoundError,
        PermissionError: SourceAuthError,
    }
    return kinds.get(type(error), SourceError)(f"{path}: {error.strerror or error}")
