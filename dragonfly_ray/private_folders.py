"""Folders that belong to this user alone: where a store and its keys lie, nobody else can have put anything."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NoReturn

from dragonfly_ray.config import StorageSettings
from dragonfly_ray.errors import StorageError

log = logging.getLogger(__name__)

FORMER_ROOT = Path("/tmp/dragonfly-ray")
"""The default of earlier versions; what lies there is moved."""
NAME = "dragonfly-ray"
MAX_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class _Unsafe(Exception):
    """Somebody else could have put it there."""


def root_of(settings: StorageSettings) -> Path:
    """Where the stores of this node lie. Raises `StorageError` where that is not ours alone."""
    if settings.root is not None:
        return private_folder(settings.root)
    wanted = default_root()
    return private_folder(adopted(FORMER_ROOT, wanted))


def default_root() -> Path:
    """Of root and of everybody else; below the folder for temporary files where that cannot be made."""
    user = os.geteuid()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    base = Path("/var/lib") if user == 0 else home
    with contextlib.suppress(OSError):
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (base / NAME).exists() or os.access(base, os.W_OK | os.X_OK):
            return base / NAME
    return Path("/tmp") / f"{NAME}-{user}"


def private_folder(path: Path, setting: str = "storage.root") -> Path:
    """The folder without links on the way, mode 0700; made where it is missing.

    Whoever may write to a folder on the way could put another one into its place, so all of them must be ours
    or the system's, and links as well; the folder itself must be ours, and no link. `setting`: what names it.
    Raises `StorageError`.
    """
    try:
        number, where = _walk(path.absolute())
        try:
            _make_private(number, where)
        finally:
            os.close(number)
    except _Unsafe as error:
        text = f"{error}; remove it, or set {setting} to a folder that you own"
        raise StorageError(text) from None
    except OSError as error:
        text = f"{path}: {error.strerror or error}; create it, or set {setting} to a folder that you own"
        raise StorageError(text) from None
    return Path(where)


def read_private(path: Path) -> bytes:
    """A file that only we can have written and only we can read. Raises `StorageError`, `FileNotFoundError`."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror}; must be a regular file that you own, not a symlink"
        ) from None
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise StorageError(
                f"{path}: is not a regular file owned by uid {os.geteuid()}; delete it, a new one will be created"
            )
        if found.st_mode & 0o077:
            raise StorageError(
                f"{path}: accessible to other users; delete it, or chmod 600 if you trust its content"
            )
        return file.read()


def _walk(path: Path) -> tuple[int, str]:
    """The open folder, and its name without links."""
    names, seen, links = deque(path.parts[1:]), [""], 0
    number = os.open("/", _FOLDER)
    trusted = {0, os.geteuid(), os.fstat(number).st_uid}
    try:
        while names:
            name = names.popleft()
            if name == "..":
                seen = seen[:-1] or [""]
                number = _enter("..", number)
                continue
            where = "/".join([*seen, name])
            target = _link(name, number, where, trusted, last=not names)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    _refuse(where, "is a symlink loop")
                names.extendleft(reversed([part for part in target.parts if part != "/"]))
                if target.is_absolute():
                    seen = [""]
                    number = _enter("/", number)
                continue
            number = _enter(name, number, make=0o755 if names else 0o700)
            seen.append(name)
            if names:
                _check_way(os.fstat(number), where, trusted)
        return number, "/".join(seen)
    except BaseException:
        os.close(number)
        raise


def _enter(name: str, folder: int, make: int = 0) -> int:
    """The folder below, in the place of the one above, which is closed."""
    try:
        below = os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            os.mkdir(name, make, dir_fd=folder)
        below = os.open(name, _FOLDER, dir_fd=folder)
    os.close(folder)
    return below


def _link(name: str, folder: int, where: str, trusted: set[int], *, last: bool) -> PurePosixPath | None:
    """Where a link on the way leads, if one that may be followed lies there."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(found.st_mode):
        return None
    if last or found.st_uid not in trusted:
        _refuse(where, "is a symlink")
    return PurePosixPath(os.readlink(name, dir_fd=folder))


def _check_way(found: os.stat_result, where: str, trusted: set[int]) -> None:
    if found.st_uid not in trusted:
        _refuse(where, f"owned by uid {found.st_uid}, who could replace its content")
    if _writable(found) and not found.st_mode & stat.S_ISVTX:
        _refuse(where, "writable by other users, who could replace its content")


def _writable(found: os.stat_result) -> bool:
    """By others than its owner."""
    ours = found.st_gid in (0, os.getegid())
    return bool(found.st_mode & (stat.S_IWOTH | (0 if ours else stat.S_IWGRP)))


def _make_private(number: int, where: str) -> None:
    found = os.fstat(number)
    if found.st_uid != os.geteuid():
        _refuse(where, f"owned by uid {found.st_uid}, but this process runs as uid {os.geteuid()}")
    if found.st_mode & 0o077:
        os.fchmod(number, 0o700)
    if not _writable(found):
        return
    with os.scandir(number) as entries:
        for entry in entries:
            if entry.is_symlink() or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                _refuse(
                    where, f"was writable by other users, and contains {entry.name!r} that we did not create"
                )


def _refuse(where: str, why: str) -> NoReturn:
    raise _Unsafe(f"{where}: {why}")


# --- what earlier versions left -----------------------------------------------------------------


def adopted(former: Path, wanted: Path) -> Path:
    """`wanted`, with what lies in `former` if that is ours and nobody uses it; `former` where it cannot be moved."""
    try:
        found = os.lstat(former)
        usable = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not _writable(found)
        if not usable or former == wanted or (wanted.is_dir() and any(wanted.iterdir())):
            return wanted
        with _unused(former) as unused:
            if not unused:
                log.warning("%s: in use by another process, not moved", former)
                return wanted
            private_folder(wanted)
            os.rename(former, wanted)  # in the place of the empty one
    except FileNotFoundError:
        return wanted
    except OSError as error:
        log.info("%s cannot be moved to %s, still used in place: %s", former, wanted, error.strerror or error)
        return former
    log.info("%s was moved to %s", former, wanted)
    return wanted


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no process holds a store in it, nor can take one inside the block."""
    with contextlib.ExitStack() as held:
        for lock in folder.glob("store-*/lock"):
            number = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, number)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True
