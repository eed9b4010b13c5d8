"""Modes of outputs: never wider than the source's, nor than the umask in force lets through.

A source without modes (HTTP, object stores) counts as 0666 for files and 0777 for folders, as for any program
that makes them. The owner may always read, and write what is not shared with the store: content could neither be
compared nor merged into otherwise. The bits for setuid, setgid and sticky are never taken over.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

from dragonfly_ray.model import Entry, Manifest

_SHARED = 0o555
"""What a hard link to the store may have: nobody writes to it."""
_READ = stat.S_IRGRP | stat.S_IROTH
_SEARCH = stat.S_IXGRP | stat.S_IXOTH


class Modes:
    """Of the outputs of one manifest under one umask."""

    def __init__(self, manifest: Manifest, umask: int) -> None:
        self.umask = umask
        folders = {entry.path: entry.mode for entry in manifest.entries if entry.kind == "dir"}
        self._folders = {
            path: mode for path, mode in {**folders, "": manifest.mode}.items() if mode is not None
        }
        self.closed_folders = any(mode & _SEARCH != _SEARCH for mode in self._folders.values())
        """Whether some folder of the source keeps somebody out."""

    def file(self, entry: Entry, found: int | None = None, keep_out: int = 0) -> int:
        """Of a copy. `found`: the mode of a file that it replaces; `keep_out`: bits that it must not have.

        What a file is replaced by is not open to more users than it was, where the source has no say.
        """
        mode = 0o666 if entry.mode is None else entry.mode & 0o777
        if entry.mode is None and found is not None:
            mode &= found | stat.S_IRWXU
        return mode & ~self.umask & ~keep_out | stat.S_IRUSR | stat.S_IWUSR

    def fits(self, entry: Entry, found: int, keep_out: int = 0) -> bool:
        """Whether a file that is there with the right content may stay as it is."""
        wanted = self.file(entry, keep_out=keep_out)
        if entry.mode is None:
            return not found & _READ & ~wanted
        return (found ^ wanted) & _SHARED == 0

    def folder(self, path: str) -> int:
        """Of a folder that is made."""
        mode = self._folders.get(path, 0o777)
        return mode & 0o777 & ~self.umask | stat.S_IRWXU

    def says(self, path: str) -> bool:
        """Whether the source tells the mode of a folder."""
        return path in self._folders

    def kept_out(self, folders: Iterable[tuple[str, int]]) -> int:
        """Bits that files below must not have, lest somebody reads them here who could not at the source.

        `folders`: those on the way, the output's own first, each with the mode that it has here.
        """
        there = here = _SEARCH
        for path, mode in folders:
            there &= self._folders.get(path, 0o777)
            here &= mode
        opened = here & ~there
        return (stat.S_IRWXG if opened & stat.S_IXGRP else 0) | (stat.S_IRWXO if opened & stat.S_IXOTH else 0)


def shared(mode: int) -> int:
    """Of a hard link to the store, where a copy had `mode`."""
    return mode & _SHARED
