"""Filesystem instances, so many that no two threads are in one that cannot bear it."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.cached import CachingFileSystem
from fsspec.implementations.ftp import FTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.tar import TarFileSystem

from dragonfly_ray.errors import SourceError
from dragonfly_ray.sources import ftp
from dragonfly_ray.sources.archives import plain_names
from dragonfly_ray.sources.chained_filesystems import inside, thread_safe
from dragonfly_ray.sources.content_encoding import SESSION, SESSION_OPTIONS
from dragonfly_ray.urls import chain_parts, scheme

log = logging.getLogger(__name__)

MOST_INSTANCES = 8
"""Instances that are not thread-safe: each may be a connection, of which servers grant few, and the index of an
archive."""
_HELD = ("tar", "zip", "arc", "fo", "_fo_ref", "of", "ftp", "client", "session", "_session")
"""Attributes that hold what has to be closed."""
_NO_CACHE_OPTION = frozenset(("sftp", "ssh"))
"""Those that pass every option on to a library that does not know this one."""
_OF_FILES = frozenset(
    ("compression", "encoding", "errors", "expand", "mode", "name_function", "newline", "num")
)
"""Options of `fsspec.open`, which are none of a filesystem's."""
_memory = threading.RLock()
"""Whoever opens a file of `memory://` gets the file itself, with the position of everybody else."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An instance of our own, and the path that the URL names in it."""

    fs: Any
    path: str


def open_filesystem(url: str, options: Mapping[str, Any], timeout: float) -> Opened:
    """As `fsspec.core.url_to_fs`; but no instance in it, at whatever depth, is anybody else's.

    fsspec gives the option for that to the outermost only, and keeps the others by thread ids, which come again.
    `timeout`: seconds, where the filesystem has one to set. Raises what the filesystem raises.
    """
    options = {name: value for name, value in options.items() if name not in _OF_FILES}
    chain = _chain(url, options)
    inner: dict[str, Any] = {}
    for path, protocol, found in reversed(chain[1:]):
        own = {**_own(protocol, found, timeout), **inner}
        inner = {"target_options": own, "target_protocol": protocol, "fo": path}
    path, protocol, found = chain[0]
    fs = fsspec.filesystem(protocol, **{**_own(protocol, found, timeout), **inner})
    for each in inside(fs):
        if isinstance(each, TarFileSystem):
            plain_names(each)
        elif isinstance(each, FTPFileSystem):
            ftp.improve(each)
    return Opened(fs, path)


def _chain(url: str, options: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Path, protocol and options of each link, as fsspec finds them; but `::` may be part of a name."""
    if len(chain_parts(url)) > 1:
        found: list[tuple[str, str, dict[str, Any]]] = fsspec.core._un_chain(url, options)
        return found
    protocol = scheme(url)
    made = fsspec.get_filesystem_class(protocol)
    given = {**options.pop(protocol, {}), **options}
    return [(made._strip_protocol(url), protocol, {**made._get_kwargs_from_urls(url), **given})]


def _own(protocol: str, found: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if protocol == "ftp":
        own["timeout"] = timeout
    own |= found
    if session := SESSION_OPTIONS.get(protocol):
        own[session] = {**SESSION, **(own.get(session) or {})}
    if protocol not in _NO_CACHE_OPTION:
        own["use_listings_cache"] = False
    own["skip_instance_cache"] = True
    return own


class Instances:
    """Those of one URL. Whoever calls one has it to himself, unless it is thread-safe."""

    def __init__(self, open_one: Callable[[], Opened], most: int = MOST_INSTANCES) -> None:
        """`open_one` may be called by several threads at once."""
        self._open_one = open_one
        self._most = 1
        """Until the first is there, which tells whether there may be others."""
        self._allowed = most
        self._count = 0
        self._idle: list[Opened] = []
        self._shared: Opened | None = None
        self._lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._ended = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Opened]:
        """One to call. Raises what `open_one` raises; `SourceError` after `abort` and `close`."""
        lent = self._take()
        if lent is self._shared:
            yield lent
            return
        good = False
        try:
            with self._lock:
                yield lent
            good = True
        finally:
            self._give_back(lent, good)

    def rest(self) -> None:
        """Closes those that nobody uses now."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._changed.notify_all()
        for each in idle:
            dispose(each.fs)

    def abort(self) -> None:
        """From any thread: nothing more is lent."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Those in use are closed as they are given back."""
        self.abort()
        self.rest()
        with self._changed:
            shared, self._shared = self._shared, None
        if shared:
            dispose(shared.fs)

    def _take(self) -> Opened:
        while True:
            with self._changed:
                while not self._ended and not self._shared and not self._idle and self._count >= self._most:
                    self._changed.wait()
                if self._ended:
                    raise SourceError("read cancelled")
                if self._shared:
                    return self._shared
                if self._idle:
                    return self._idle.pop()
                self._count += 1
            opened = self._open()
            if opened:
                return opened

    def _open(self) -> Opened | None:
        """None where there are others already, but no more are granted: one of those will do."""
        try:
            opened = self._open_one()
        except BaseException as error:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()
                if not self._count or not isinstance(error, Exception):
                    raise
                self._most = self._count
            log.info("the server limits connections to %d: %s", self._most, type(error).__name__)
            return None
        with self._changed:
            if thread_safe(opened.fs):
                self._shared = opened
            elif self._count == self._most == 1:
                self._most, self._lock = self._limits(opened.fs)
            self._changed.notify_all()
        return opened

    def _limits(self, fs: Any) -> tuple[int, contextlib.AbstractContextManager[Any]]:
        parts = list(inside(fs))
        if any(isinstance(each, MemoryFileSystem) for each in parts):
            return 1, _memory
        # Each would keep a copy of its own.
        kept = any(isinstance(each, CachingFileSystem) for each in parts)
        return 1 if kept else self._allowed, contextlib.nullcontext()

    def _give_back(self, lent: Opened, good: bool) -> None:
        """After an error a connection may be out of step, so it is not used again."""
        with self._changed:
            kept = good and not self._ended
            if kept:
                self._idle.append(lent)
            else:
                self._count -= 1
            self._changed.notify_all()
        if not kept:
            dispose(lent.fs)


def dispose(fs: Any) -> None:
    """Closes what a filesystem holds, where it can be closed; those on asyncio close as they are let go of."""
    for each in list(inside(fs)):
        if isinstance(each, AsyncFileSystem):
            continue
        known = object.__getattribute__(each, "__dict__")
        for held in (known.get(name) for name in _HELD):
            close = getattr(held, "close", None)
            if close and not inspect.iscoroutinefunction(close):
                with contextlib.suppress(Exception):
                    close()
