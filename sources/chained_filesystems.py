"""What a filesystem of fsspec is made of: chained filesystems hold others, and count by what is inside them.

fsspec's asyncio filesystems, Arrow's (HDFS) and the local one take calls from any number of threads. Whatever else
there is counts as not thread-safe: an archive has one position in one file, FTP one conversation at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.data import DataFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

_THREAD_SAFE = (AsyncFileSystem, ArrowFSWrapper, LocalFileSystem, DataFileSystem)
_INNER = ("fs", "sync_fs", "fss", "of", "fo")
"""Attributes in which filesystems hold those that they are made of, or files of those."""


def inside(fs: Any) -> Iterator[Any]:
    """The filesystem, and all that it is made of, from the outside in."""
    yield fs
    known = object.__getattribute__(fs, "__dict__")  # one that caches answers for the one inside it
    for name in _INNER:
        value = known.get(name)
        for each in value.values() if isinstance(value, dict) else (value,):
            found = each if isinstance(each, fsspec.AbstractFileSystem) else getattr(each, "fs", None)
            if isinstance(found, fsspec.AbstractFileSystem):
                yield from inside(found)


def thread_safe(fs: Any) -> bool:
    """Whether any number of threads may call it at once."""
    parts = list(inside(fs))
    if isinstance(fs, MemoryFileSystem):
        return True
    return all(
        isinstance(each, _THREAD_SAFE) and not isinstance(each, (AsyncFileSystemWrapper, MemoryFileSystem))
        for each in parts
    )


def on_asyncio(fs: Any) -> bool:
    """Whether its coroutines can be called: a wrapper has some although what it wraps has none."""
    wrapped = object.__getattribute__(fs, "__dict__").get("fs")
    if isinstance(wrapped, fsspec.AbstractFileSystem) and not wrapped.async_impl:
        return False
    return isinstance(fs, AsyncFileSystem)
