"""Folders that are opened name by name, with no link followed: nobody can lead the way elsewhere meanwhile.

An open folder is used as `/proc/self/fd/N`: whatever is done below that path is done in this very folder,
whatever has become of its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from dragonfly_ray.errors import DestinationError, UnsafePathError
from dragonfly_ray.names import from_os, inside, to_os

_OPEN = "/proc/self/fd/"
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FOLDER = (errno.ENOTDIR, errno.ELOOP)


def shown(path: Path | str) -> str:
    """For people: the names behind an open folder."""
    text = os.fspath(path)
    if not text.startswith(_OPEN):
        return text
    number, slash, rest = text.removeprefix(_OPEN).partition("/")
    with contextlib.suppress(OSError):
        return os.readlink(_OPEN + number) + slash + rest
    return rest or text


@contextmanager
def beneath(path: Path, roots: Sequence[str]) -> Iterator[Path]:
    """`path` by way of its open folder, which is made where it is missing, below one of `roots`.

    The roots themselves are whoever's who configured them: they must be there, and may be links.
    Raises `DestinationError`, `UnsafePathError`, `OSError`.
    """
    root = inside(os.fspath(path), roots)
    if root is None:
        allowed = os.pathsep.join(roots) or "none"
        raise DestinationError(f"dest {str(path)!r} is outside the allowed dest roots ({allowed})")
    try:
        start = os.open(root, _FOLDER)
    except OSError as error:
        raise DestinationError(f"{root}: {error.strerror}; this dest root must exist") from None
    with Folders(start) as folders:
        yield folders.at(from_os(os.fspath(path.parent.relative_to(root)))) / path.name


@contextmanager
def opened(folder: Path, *, follow: bool = False) -> Iterator[Path]:
    """A folder itself, by way of its descriptor. Raises `OSError`; also for a link to one, unless `follow`."""
    number = os.open(folder, _FOLDER | (0 if follow else os.O_NOFOLLOW))
    try:
        yield Path(f"{_OPEN}{number}")
    finally:
        os.close(number)


def behind(dest: Path) -> Path:
    """`dest`, or the folder that it is a link to; a link to a file is a name to be replaced.

    Raises `DestinationError` where it, or a folder above, is a link that leads nowhere.
    """
    for path in (*reversed(dest.parents), dest):
        try:
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                continue
        except OSError:
            return dest  # nothing is there to be followed; making it will say what is wrong
        _check_link(path)
    return Path(os.path.realpath(dest)) if dest.is_symlink() and dest.is_dir() else dest


def _check_link(path: Path) -> None:
    try:
        os.stat(path)
    except FileNotFoundError:
        there = os.readlink(path)
        raise DestinationError(
            f"{path}: is a symlink to {there!r}, which does not exist; "
            f"create that folder, or remove the symlink"
        ) from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            return
        raise DestinationError(f"{path}: is a symlink loop; remove it, or choose another dest") from None


def make_folders(folder: Path, umask: int | None = None) -> None:
    """`folder` and those above it, where they are missing; `umask`: beside the process's own. Raises `OSError`."""
    if umask is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    try:
        folder.mkdir(0o777 & ~umask, exist_ok=True)
    except FileNotFoundError:
        make_folders(folder.parent, umask)
        folder.mkdir(0o777 & ~umask, exist_ok=True)


@contextmanager
def guarded(folder: Path, mode: int | None = None) -> Iterator[Path]:
    """A folder that was made just now, by way of its descriptor: inside the block it is nobody's but ours.

    Its mode is then `mode`, or as it was made with. Raises `OSError`, and `UnsafePathError` if another one lies there.
    """
    with opened(folder) as root:
        found = os.stat(root)
        # The folder above may have lent it the group that it is for.
        os.chmod(root, stat.S_IRWXU | found.st_mode & stat.S_ISGID)
        if os.listdir(root) or not _ours(root, found):
            raise UnsafePathError(f"{shown(folder)}: was replaced while being created; nothing was written")
        yield root
        made = stat.S_IMODE(found.st_mode)
        os.chmod(root, made if mode is None else mode | made & stat.S_ISGID)


def _ours(root: Path, found: os.stat_result) -> bool:
    if found.st_uid == os.geteuid():
        return True
    # A file server may know us by another number: then what we make in it has that owner, too.
    probe = root / ".probe"
    number = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(number).st_uid == found.st_uid
    finally:
        os.close(number)
        os.unlink(probe)


class Folders:
    """Folders below an open one, which is closed with this; one of them is open at a time. Paths are as in entries.

    `make`: whether what is missing is made. `mode`: of a folder that is made, by its path; None: the usual one.
    """

    def __init__(
        self, root: int, *, make: bool = True, mode: Callable[[str], int | None] = lambda path: None
    ) -> None:
        self._root = root
        self._make = make
        self._mode = mode
        self._last: tuple[str, int] | None = None

    @classmethod
    def of(
        cls, root: Path, *, make: bool = True, mode: Callable[[str], int | None] = lambda path: None
    ) -> Folders:
        return cls(os.open(root, _FOLDER), make=make, mode=mode)

    def at(self, path: str) -> Path:
        """`a/b`, made where it is missing; good until the next is asked for."""
        return Path(f"{_OPEN}{self.number(path)}")

    def number(self, path: str) -> int:
        """As `at`, its descriptor."""
        if path in ("", "."):
            return self._root
        if self._last is None or self._last[0] != path:
            number = self._walk(path)
            self._leave()
            self._last = path, number
        return self._last[1]

    def _walk(self, path: str) -> int:
        number = os.dup(self._root)
        names = path.split("/")
        for depth, name in enumerate(names, 1):
            try:
                below = self._enter(to_os(name), number, "/".join(names[:depth]))
            finally:
                os.close(number)
            number = below
        return number

    def _enter(self, name: str, folder: int, path: str) -> int:
        if name in ("", ".", ".."):
            raise UnsafePathError(f"{name!r}: not a valid folder name")
        made = False
        while True:
            try:
                number = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                if made:
                    _widen(number, self._mode(path))
                return number
            except FileNotFoundError:
                if not self._make:
                    raise
                mode = self._mode(path)
                with contextlib.suppress(FileExistsError):  # somebody else was faster
                    os.mkdir(name, 0o777 if mode is None else mode, dir_fd=folder)
                    made = True
            except OSError as error:
                if error.errno not in _NO_FOLDER:
                    raise
                raise _in_the_way(name, folder) from None

    def _leave(self) -> None:
        if self._last:
            os.close(self._last[1])
            self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._root)


def _widen(folder: int, mode: int | None) -> None:
    """A folder that was made just now has `mode`, though this process's umask may not let it through."""
    found = os.fstat(folder)
    if mode is not None and mode & ~found.st_mode and found.st_uid == os.geteuid():
        os.chmod(f"{_OPEN}{folder}", mode | found.st_mode & stat.S_ISGID)


def _in_the_way(name: str, folder: int) -> DestinationError | UnsafePathError:
    """For something else than a folder in its place: a link would lead elsewhere, a file is only in the way."""
    where = shown(f"{_OPEN}{folder}/{name}")
    try:
        link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        link = True  # gone or replaced meanwhile: not to be trusted
    if link:
        return UnsafePathError(f"{where}: is a symlink, but a folder is needed")
    return DestinationError(f"{where}: is a file, but a folder is needed; remove it, or choose another dest")
