"""Archives as filesystems: what fsspec does not tell of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fsspec.core import OpenFile
from fsspec.implementations.tar import TarFileSystem

from dragonfly_ray.sources.chained_filesystems import inside

LOOSE_LINK = "loose link"
"""The type of a member that points to nothing in its archive; `linkname` tells to what."""


def plain_names(tar: TarFileSystem) -> None:
    """`./a/b`, as `tar -cf x.tar .` names it, becomes `a/b`: the way in which it is asked for.

    What is neither file nor folder is left out; fsspec takes it for an empty file. So it does with a symlink
    that points to nothing in the archive, which is a link.
    """
    members = {member.name.rstrip("/"): member for member in tar.tar.getmembers()}
    found: dict[str, Any] = {}
    for name, (info, offset, original) in tar.index.items():
        plain, member = name.removeprefix("./"), members[original]
        if plain in ("", ".") or member.isfifo() or member.isdev():
            continue
        known = {**info, "name": plain}
        if member.issym() and not known["size"] and not _resolves(tar, original):
            known["type"] = LOOSE_LINK
        found[plain] = (known, offset, original)
    tar.index, tar.dir_cache = found, None


def _resolves(tar: TarFileSystem, name: str) -> bool:
    try:
        return tar.tar.extractfile(name) is not None
    except KeyError:
        return False


def archive_version(fs: Any, version: Callable[[Mapping[str, Any]], str]) -> str | None:
    """Of the archive that a filesystem has all its files from; None if it has not. What a member tells of itself
    may stay the same in another archive. Empty where the archive's own is not told.

    `version`: that of a file, by what its filesystem tells of it.
    """
    found = []
    for each in inside(fs):
        held = object.__getattribute__(each, "__dict__").get("of")
        if isinstance(held, OpenFile):
            found.append(version(held.fs.info(held.path)))
    if not found:
        return None
    return "::".join(found) if all(found) else ""
