"""Names of a listing: what no file system could hold, or what would lead elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from dragonfly_ray.errors import UnsafePathError
from dragonfly_ray.model import Entry, Manifest
from dragonfly_ray.names import is_canonical, shown, to_bytes

LONGEST_PATH = 4000
LONGEST_TARGET = 4095
"""Bytes; the kernel takes no longer symlinks."""
LOOK = 1024
"""Entries that are looked at until somebody may end it."""


def check_manifest(manifest: Manifest, go_on: Callable[[], None] = lambda: None) -> None:
    """Raises `UnsafePathError` naming the first entry that cannot be written safely anywhere.

    Names that only some file systems cannot hold are left to the destination, and links that lead elsewhere to
    `links`. `go_on` may raise to end it.
    """
    files: set[str] = set()
    folders: set[str] = {""}
    for number, entry in enumerate(manifest.entries):
        if number % LOOK == 0:
            go_on()
        path = entry.path
        _check(path)
        if entry.size < 0 or (entry.size and entry.kind != "file"):
            _refuse(path, f"is {entry.size} bytes long")
        parent = path
        if entry.kind != "dir":
            if path in files:
                _refuse(path, "is listed twice")
            if path in folders:
                _refuse(path, "is a file, and a folder with entries below it")
            files.add(path)
            parent = path.rpartition("/")[0]
        while parent not in folders:
            if parent in files:
                _refuse(path, f"lies below the file '{shown(parent)}'")
            folders.add(parent)
            parent = parent.rpartition("/")[0]
        if entry.kind == "symlink":
            _check_target(entry)


def folded(path: str) -> str:
    """Equal for names that some file systems cannot tell apart."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _check(path: str) -> None:
    if not path or path.startswith("/"):
        _refuse(path, "is not a relative path")
    if "\0" in path or not is_canonical(path):
        _refuse(path, "is not a file name")
    if _length(path) > LONGEST_PATH:
        _refuse(f"{path[:80]}…", f"is longer than {LONGEST_PATH:,} bytes")
    for name in path.split("/"):
        if name in ("", ".", ".."):
            _refuse(path, f"contains {name or 'an empty name'!r}, which is not a valid name")


def _length(name: str) -> int:
    """In bytes."""
    return len(name) if name.isascii() else len(to_bytes(name))


def _check_target(link: Entry) -> None:
    if not link.target or "\0" in link.target or not is_canonical(link.target):
        _refuse(link.path, f"is a symlink to '{shown(link.target)}'")
    if _length(link.target) > LONGEST_TARGET:
        _refuse(link.path, f"is a symlink whose target is longer than {LONGEST_TARGET:,} bytes")


def _refuse(path: str, why: str) -> None:
    raise UnsafePathError(f"listing entry '{shown(path)}' {why}; nothing was written; exclude it")
