"""A folder of the node's own file system, name by name."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dragonfly_ray.errors import SourceError, SourceNotFoundError, UnsafePathError
from dragonfly_ray.model import Entry, Source
from dragonfly_ray.names import from_os, shown
from dragonfly_ray.sources.base import matches

log = logging.getLogger(__name__)


class _Folder(NamedTuple):
    """`path`: as the system knows it; `name`: in the listing. `above`: the folder on the way to it, by whatever links."""

    path: str
    name: str
    number: tuple[int, int]
    """Device and inode."""
    above: _Folder | None


class LocalWalk:
    """The entries of a folder, in no order. What is excluded is not looked at; pipes, sockets and devices are left out.

    `bound`: links are followed only to what lies below the folder. Raises `SourceError`, `UnsafePathError`, `OSError`.
    """

    def __init__(self, root: Path, source: Source, go_on: Callable[[], None], *, bound: bool) -> None:
        self._root = str(root)
        self._source = source
        self._go_on = go_on
        self._bound = bound
        self._skipped = 0

    def __iter__(self) -> Iterator[Entry]:
        found = os.stat(self._root)
        todo = [_Folder(self._root, "", (found.st_dev, found.st_ino), None)]
        while todo:
            folder = todo.pop()
            with os.scandir(folder.path) as entries:
                for each in entries:
                    self._go_on()
                    name = from_os(each.name)
                    path = f"{folder.name}/{name}" if folder.name else name
                    if self._source.exclude and matches(path, self._source.exclude):
                        continue
                    entry = self._entry(each, path, folder)
                    if entry is None:
                        continue
                    if entry.kind == "dir":
                        found = each.stat()
                        number = found.st_dev, found.st_ino
                        todo.append(_Folder(each.path, path, number, folder))
                    yield entry
        if self._skipped:
            log.info("%s: skipped %d pipes, sockets or devices", self._root, self._skipped)

    def _entry(self, each: os.DirEntry[str], path: str, folder: _Folder) -> Entry | None:
        """None for what is left out."""
        if each.is_symlink():
            target = os.readlink(each.path)
            if self._source.links != "follow":
                text = from_os(target)
                return Entry(path, kind="symlink", target=text, version=text)
            if not self._follows(each, path, target, folder):
                return None
        found = each.stat()
        if stat.S_ISDIR(found.st_mode):
            return Entry(path, kind="dir", mode=stat.S_IMODE(found.st_mode))
        if stat.S_ISREG(found.st_mode):
            return local_entry(path, found)
        self._skipped += 1
        return None

    def _follows(self, each: os.DirEntry[str], path: str, target: str, folder: _Folder) -> bool:
        """Whether the link leads to something. Raises where it leads to nothing, round, or where it may not."""
        where = f"{self._root}/{path}: a symlink to {shown(target)!r}"
        try:
            found = os.stat(each.path)
        except OSError as error:
            if self._source.include and not matches(path, self._source.include):
                return False
            hint = "links='keep' delivers the symlink itself; or exclude it"
            kind = SourceNotFoundError if isinstance(error, FileNotFoundError) else SourceError
            raise kind(f"{where}, which cannot be followed ({error.strerror}); {hint}") from None
        if self._bound and not _is_below(os.path.realpath(each.path), os.path.realpath(self._root)):
            raise UnsafePathError(
                f"{where} points outside the folder; the URL policy forbids following it; exclude it"
            )
        if stat.S_ISDIR(found.st_mode):
            above: _Folder | None = folder
            while above is not None:
                if above.number == (found.st_dev, found.st_ino):
                    raise SourceError(
                        f"{where} is part of a loop; links='keep' delivers the symlink itself; or exclude it"
                    )
                above = above.above
        return True


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def local_version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"


def local_entry(path: str, found: os.stat_result) -> Entry:
    return Entry(
        path,
        found.st_size,
        local_version(found),
        mode=stat.S_IMODE(found.st_mode),
        mtime_ns=found.st_mtime_ns,
    )
