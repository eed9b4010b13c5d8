"""Names that only some file systems hold: found in a listing, and tried out where they are to be written.

Two names that differ in case or in how a letter is composed are one file to some file systems; some take no colon, no
backslash, no dot at the end, no bytes that are no UTF-8. Which ones nobody can tell but they.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragonfly_ray.errors import DestinationError, DragonflyError
from dragonfly_ray.model import Entry
from dragonfly_ray.names import from_os, shown, to_bytes, to_os
from dragonfly_ray.storage.manifest_paths import LOOK, folded
from dragonfly_ray.storage.nofollow import Folders

USUAL_LENGTH = 255
"""Bytes that a name may have on nearly every file system."""
_ODD = re.compile(r'[\x01-\x1f\x7f\\:*?"<>|]')
_ESCAPED = re.compile("[\uf780-\uf7ff]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
NAME_ERRORS = frozenset((errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR))
"""What file systems say to names that they cannot hold."""
NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS))


@dataclass(frozen=True, slots=True)
class Trial:
    """Names of one folder that may not be held, alone or beside each other. One of each `kind` tells of all."""

    folder: str
    names: tuple[str, ...]
    kind: str


def find_trials(entries: Sequence[Entry], go_on: Callable[[], None] = lambda: None) -> tuple[Trial, ...]:
    """What is to be tried out before the entries are written; for nearly every listing nothing."""
    known: set[str] = {""}
    groups: dict[tuple[str, str], dict[str, None]] = {}
    """(folder, folded name) -> the names as they are spelled."""
    odd: list[Trial] = []
    for number, entry in enumerate(entries):
        if number % LOOK == 0:
            go_on()
        path = entry.path
        while path not in known:
            known.add(path)
            folder, _, name = path.rpartition("/")
            groups.setdefault((folder, folded(name).rstrip(". ")), {})[name] = None
            odd += (Trial(folder, (name,), kind) for kind in _oddities(name))
            path = folder
    alike = [
        Trial(folder, tuple(names), _likeness(names))
        for (folder, _), names in groups.items()
        if len(names) > 1
    ]
    return tuple(alike + odd)


def _likeness(names: Iterable[str]) -> str:
    """Case folds alike for all letters of ASCII; of others each has its own rules."""
    if all(name.isascii() for name in names) and len({name.lower() for name in names}) == 1:
        return "case"
    return "/".join(names)


def _oddities(name: str) -> list[str]:
    found = [f"character {character}" for character in _ODD.findall(name)]
    if name[-1] in ". ":
        found.append(f"ends with {name[-1]!r}")
    if _ESCAPED.search(name):
        found.append("bytes")
    if _DEVICE.fullmatch(name):
        found.append("device")
    length = len(to_bytes(name))
    if length > USUAL_LENGTH:
        found.append(f"length {length}")
    return found


@contextlib.contextmanager
def draft_in(folder: int, prefix: str) -> Iterator[int]:
    """A new folder in an open one, open, too; it goes again. Raises `OSError`."""
    name = f"{prefix}{secrets.token_hex(8)}"
    os.mkdir(name, 0o700, dir_fd=folder)
    try:
        place = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            yield place
        finally:
            os.close(place)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(name, dir_fd=folder)


class TryOut:
    """Makes the names of trials, empty, in a folder of its own beside where they belong, which goes again."""

    def __init__(self, prefix: str, go_on: Callable[[], None] = lambda: None) -> None:
        self._prefix = prefix
        self._go_on = go_on
        self._passed: set[tuple[tuple[int, int], str]] = set()
        """(folder, kind of trial)"""

    def below(self, root: Path, wanted: Sequence[Trial]) -> None:
        """Each in its folder below an open one, or where that is missing, in the next above that is there.

        Raises `DestinationError` naming what this file system does not hold, `OSError`.
        """
        with Folders.of(root, make=False) as folders:
            for trial in wanted:
                self._go_on()
                at = _nearest(folders, trial.folder)
                found = os.stat(f"/proc/self/fd/{at}")
                key = (found.st_dev, found.st_ino), trial.kind
                if key not in self._passed:
                    self._try(at, trial)
                    self._passed.add(key)

    def _try(self, folder: int, trial: Trial) -> None:
        with draft_in(folder, self._prefix) as place:
            self._make(place, trial)

    @staticmethod
    def _make(place: int, trial: Trial) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        for name in trial.names:
            path = f"{trial.folder}/{name}" if trial.folder else name
            try:
                os.close(os.open(to_os(name), flags, 0o600, dir_fd=place))
            except OSError as error:
                if error.errno not in NAME_ERRORS:
                    raise
                if error.errno == errno.EEXIST:
                    other = next(n for n in trial.names if n == name or _is_there(n, place))
                    raise cannot_hold(path, f"together with '{shown(other)}'") from None
                raise cannot_hold(path, f"({error.strerror})") from None
            if name[-1] in ". " and folded(name) not in {folded(from_os(n)) for n in os.listdir(place)}:
                raise cannot_hold(path, "(it was truncated)")


def _is_there(name: str, place: int) -> bool:
    with contextlib.suppress(OSError):
        os.stat(to_os(name), dir_fd=place, follow_symlinks=False)
        return True
    return False


def _nearest(folders: Folders, path: str) -> int:
    while path:
        with contextlib.suppress(OSError, DragonflyError):  # what lies there is seen to later
            return folders.number(path)
        path = path.rpartition("/")[0]
    return folders.number("")


def cannot_hold(path: str, why: str) -> DestinationError:
    return DestinationError(
        f"the file system of dest cannot store '{shown(path)}' {why}; exclude it, or choose another dest"
    )


@contextlib.contextmanager
def naming(entry: Entry) -> Iterator[None]:
    """What the system says of an entry names it."""
    try:
        yield
    except DragonflyError:
        raise
    except OSError as error:
        if entry.kind == "symlink" and error.errno in NO_LINKS:
            raise DestinationError(
                f"the file system of dest does not support symlinks ({error.strerror}), but "
                f"'{shown(entry.path)}' is one; "
                "links='follow' delivers their targets"
            ) from None
        if error.errno in NAME_ERRORS:
            raise cannot_hold(entry.path, f"({error.strerror})") from None
        raise
