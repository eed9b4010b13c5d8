"""Listings of object stores: flat names, in which `set`, `set/` and `set/a.bin` may be three objects.

fsspec's listings hold one thing of each name, so that a folder hides the object of its name. These do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.reference import ReferenceFileSystem

from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.model import Entry
from dragonfly_ray.names import from_os


@dataclass(frozen=True, slots=True)
class Listed:
    """What lies below a prefix. `files`: by name below it. `folders`: those that objects tell of. `found`: anything
    at all, be it an object that only stands for the folder itself."""

    files: Mapping[str, Mapping[str, Any]]
    folders: frozenset[str]
    found: bool


def is_flat(fs: Any) -> bool:
    """Whether a file and a folder of one name may be there at once, and a listing is of names that begin alike."""
    return isinstance(fs, AsyncFileSystem) and not isinstance(fs, (DirFileSystem, ReferenceFileSystem))


async def list_objects(fs: Any, root: str, most: int) -> list[Mapping[str, Any]]:
    """What fsspec's filesystem tells of each object below `root`, and maybe of the object `root` itself; `name`
    as it is stored. Where the store can be asked so, no more than `most` are fetched."""
    root = root.rstrip("/")
    if hasattr(fs, "service_client"):  # adlfs
        return await _azure(fs, root, most)
    bounds: dict[str, Any] = {}
    if hasattr(fs, "_call_s3"):
        bounds["max_items"] = most
    # What is no object store that is known may have true folders, empty ones among them.
    with_folders = not hasattr(fs, "_call_s3")
    if hasattr(fs, "_do_list_objects"):  # gcsfs; the instance is ours alone
        fs._do_list_objects = partial(type(fs)._do_list_objects, fs, max_results=most)
        # A bucket with true folders has no two things of one name.
        with_folders = hasattr(fs, "_is_bucket_hns_enabled") and await fs._is_bucket_hns_enabled(
            root.partition("/")[0]
        )
    found = await fs._find(root, withdirs=with_folders, detail=True, **bounds)
    return list(found.values())


async def _azure(fs: Any, root: str, most: int) -> list[Mapping[str, Any]]:
    container, path, _ = fs.split_path(root)
    found: list[Mapping[str, Any]] = []
    client = fs.service_client.get_container_client(container=container)
    blobs = client.list_blobs(include=["metadata"], name_starts_with=f"{path}/" if path else None)
    async for blob in blobs:
        (info,) = await fs._details([blob])
        found.append({**info, "name": f"{container}/{blob.name}"})
        if len(found) >= most:
            break
    return found


def below(listed: Iterable[Mapping[str, Any]], root: str, name: str) -> Listed:
    """Of a listing: what lies below the folder `root`. `name`: the source, for people.

    An empty object stands for a folder where its name ends with a slash, or where others lie below it. One with
    bytes keeps that slash among the files, for `check_names` to refuse; raises `SourceUnsupportedError` for `root` itself.
    """
    prefix = f"{root.rstrip('/')}/"
    files: dict[str, Mapping[str, Any]] = {}
    folders: set[str] = set()
    found = False
    for info in listed:
        path = str(info["name"])
        if not path.startswith(prefix):
            continue
        found = True
        key = from_os(path[len(prefix) :])
        has_bytes = bool(info.get("size")) and info.get("type") != "directory"
        if not key and has_bytes:
            raise _no_file(name, prefix.rpartition("/")[0].rpartition("/")[2] + "/")
        if not key or (key.endswith("/") and not has_bytes) or info.get("type") == "directory":
            folders.add(key.rstrip("/"))
        else:
            files[key] = info
        folders.update(_parents(key.rstrip("/")))
    for key in [key for key, info in files.items() if key in folders and not info.get("size")]:
        del files[key]
    folders.discard("")
    return Listed(files, frozenset(folders), found)


def _no_file(name: str, key: str) -> SourceUnsupportedError:
    return SourceUnsupportedError(
        f"{name}: the object {key!r} ends with a slash and is not empty, which no file system can store; "
        "exclude it"
    )


def is_plain(path: str) -> bool:
    """Whether a folder may have this path: `a//b` is a key, and `a/` no folder that it tells of."""
    return not {"", ".", ".."}.intersection(path.split("/"))


def _parents(key: str) -> Iterable[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def check_names(entries: Iterable[Entry], name: str) -> None:
    """Raises `SourceUnsupportedError` where an object and a folder of one name are both wanted, or one that is no
    file's name."""
    wanted = list(entries)
    for entry in wanted:
        if entry.path.endswith("/"):
            raise _no_file(name, entry.path)
    folders = {parent for entry in wanted for parent in _parents(entry.path)}
    for entry in wanted:
        if entry.kind == "file" and entry.path in folders:
            raise SourceUnsupportedError(
                f"{name}: holds an object {entry.path!r} and others below {entry.path + '/'!r}; "
                "a file system cannot "
                f"hold both; exclude the latter with exclude={entry.path + '/*'!r}, and distribute them "
                "separately"
            )
