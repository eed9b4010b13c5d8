"""Names of a listing that must not leave its folder."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import unquote

from dragonfly_ray.errors import UnsafePathError
from dragonfly_ray.model import Entry, Manifest

LONGEST_NAME = 255
LONGEST_PATH = 4000
MOST_HOPS = 41
"""Symlinks that the kernel follows on one way (40), and the first."""
_UNWANTED = re.compile(r"[\x00-\x1f\x7f\\]")
"""Control characters and backslashes."""


def check_manifest(manifest: Manifest) -> None:
    """Raises `UnsafePathError` naming the first entry that cannot be written safely."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    seen = {""}
    """Folders, as they were written."""
    for entry in manifest.entries:
        path = entry.path
        _check(path)
        if entry.size < 0 or (entry.size and entry.kind != "file"):
            _refuse(path, f"is {entry.size} bytes long")
        key = _key(path)
        folder = entry.kind == "dir"
        if key in files or (not folder and key in folders):
            _refuse(path, f"clashes with {files.get(key) or folders[key]!r}")
        if not folder:
            files[key] = path
        parent = path if folder else path.rpartition("/")[0]
        while parent not in seen:
            above = _key(parent)
            if above in files:
                _refuse(path, f"lies below the file {files[above]!r}")
            known = folders.setdefault(above, parent)
            if known != parent:
                _refuse(path, f"clashes with the folder {known!r}")
            seen.add(parent)
            parent = parent.rpartition("/")[0]
        if entry.kind == "symlink":
            _check_target(path, entry.target)
    links = {_key(e.path): e for e in manifest.entries if e.kind == "symlink"}
    for link in links.values():
        if _key(link.path) in folders:
            _refuse(link.path, "is a symlink with entries below it")
        if _leads_out(link, links):
            _refuse(link.path, f"points outside its folder by way of other links, to {link.target!r}")


def _key(path: str) -> str:
    """Equal for names that some file systems cannot tell apart."""
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _check(path: str) -> None:
    if not path or path.startswith("/"):
        _refuse(path, "is not relative")
    if _length(path) > LONGEST_PATH:
        _refuse(path[:80], "is too long")
    for form in (path, unquote(path)) if "%" in path else (path,):
        if _UNWANTED.search(form):
            _refuse(path, "holds a backslash or a control character")
        for name in form.split("/"):
            if name in ("", ".", ".."):
                _refuse(path, f"holds {name or 'an empty name'!r}")
            if _length(name) > LONGEST_NAME:
                _refuse(path[:80], "holds a name longer than 255 bytes")


def _length(name: str) -> int:
    """In bytes."""
    return len(name) if name.isascii() else len(name.encode(errors="surrogateescape"))


def _check_target(path: str, target: str) -> None:
    if not target or target.startswith("/") or "\0" in target or "\\" in target:
        _refuse(path, f"points to {target!r}")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if found == ".." or found.startswith("../"):
        _refuse(path, f"points outside its folder, to {target!r}")


def _leads_out(link: Entry, links: Mapping[str, Entry]) -> bool:
    """Whether the kernel would leave the folder on the way through it and the links that it meets.

    `a/..` is the folder above what `a` points to, which the text alone does not tell.
    """
    at = link.path.split("/")[:-1]
    ahead = link.target.split("/")[::-1]
    for _ in range(MOST_HOPS):
        while ahead:
            name = ahead.pop()
            if name == "..":
                if not at:
                    return True
                at.pop()
            elif name not in ("", "."):
                at.append(name)
                found = links.get(_key("/".join(at)))
                if found is not None:
                    at.pop()
                    ahead += found.target.split("/")[::-1]
                    break
        else:
            return False
    return False  # the kernel follows no more, either


def _refuse(path: str, why: str) -> None:
    raise UnsafePathError(f"the listing's entry {path!r} {why}; nothing was written")
