"""Outputs: a file or a tree at a place of the caller's choice, whole or not at all.

Bytes never pass through this process: a hard link where the file system permits, else shared
blocks, else a copy inside the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dragonfly_ray.errors import DestinationError, StorageError, StorageFullError, UnsafePathError
from dragonfly_ray.model import Entry, Manifest
from dragonfly_ray.names import to_os
from dragonfly_ray.storage import open_files
from dragonfly_ray.storage.modes import Modes, shared
from dragonfly_ray.storage.name_limits import Trial, TryOut, naming
from dragonfly_ray.storage.nofollow import Folders, guarded, make_folders, opened, shown
from dragonfly_ray.storage.os_errors import FULL_DISK, NO_DESCRIPTOR, storage_error

PREFIX = ".dragonfly-"
"""Names of what is not finished begin so."""
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)
_KINDS = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK}
_GONE = (errno.ELOOP, errno.ENOENT, errno.ENXIO)
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_COMPARE = 1024 * 1024


class Stored(NamedTuple):
    """Where an entry's bytes lie. `whole`: the file holds nothing else, and may be linked."""

    file: Path
    offset: int
    whole: bool


@dataclass(slots=True)
class Published:
    """What was done. `merged`: into a folder that was there. The numbers count files."""

    path: Path
    merged: bool = False
    linked: int = 0
    copied: int = 0
    unchanged: int = 0


class Output:
    """Makes the entries of a manifest visible. `link`: whether they may share blocks with the store.

    `mark`: of the store, in the names of what is not finished. `umask`: of this process; `asked_umask`: of the
    caller, which holds in its place.
    """

    def __init__(
        self,
        manifest: Manifest,
        stored: Callable[[int], Stored],
        *,
        link: bool,
        durable: bool,
        mark: str = "",
        umask: int,
        asked_umask: int | None = None,
        linked: Callable[[int], None] = lambda number: None,
        go_on: Callable[[], None] = lambda: None,
        trials: Callable[[], Sequence[Trial]] = tuple,
    ) -> None:
        self._manifest = manifest
        self._stored = stored
        self._link = link
        self._durable = durable
        self._linked = linked
        """Told of every entry whose stored file was linked, when it lies in its place."""
        self._go_on = go_on
        """Asked before every entry; raises once nobody wants the output any more."""
        self._trials = trials
        """Names that not every file system holds."""
        self._opened: tuple[Path, int] | None = None
        """The stored file that was copied from last: small entries share one."""
        self._mark = f"{mark}-" if mark else ""
        self._umask = umask
        self._asked_umask = asked_umask
        self._modes = Modes(manifest, umask if asked_umask is None else asked_umask)

    def publish(self, dest: Path) -> Published:
        """Raises `DestinationError`, `StorageFullError`, `UnsafePathError`."""
        done = Published(dest)
        with destination_errors(dest), contextlib.ExitStack() as stack:
            stack.callback(self._let_go)
            make_folders(dest.parent, self._asked_umask)
            # From here on the folder is meant that lies there now, whatever becomes of its name.
            dest = stack.enter_context(opened(dest.parent, follow=True)) / dest.name
            if dest.is_symlink() and (self._manifest.directory or dest.is_dir()):
                raise UnsafePathError(
                    f"{shown(dest)}: is a symlink, which is not followed here; use its target as dest"
                )
            if not self._manifest.directory:
                if dest.is_dir():
                    raise DestinationError(
                        f"{shown(dest)}: is a folder; end dest with '/' to put the file into it"
                    )
                self._file(0, dest, done)
            elif _exists(dest):
                self._merge(dest, done)
            else:
                self._tree(dest, done)
            if self._durable:
                _sync_folder(dest.parent)
        return done

    def _source(self, file: Path) -> int:
        """An open descriptor of a stored file, until the next is asked for."""
        if self._opened and (self._opened[0] is file or self._opened[0] == file):
            return self._opened[1]
        self._let_go()
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self._opened = file, descriptor
        return descriptor

    def _let_go(self) -> None:
        if self._opened:
            os.close(self._opened[1])
            self._opened = None

    def visible(self, dest: Path) -> bool:
        """Whether every entry is there, by its kind and size: somebody else has written it."""
        for entry in self._manifest.entries:
            try:
                found = os.lstat(dest / to_os(entry.path) if self._manifest.directory else dest)
            except OSError:
                return False
            if _KINDS[entry.kind] != stat.S_IFMT(found.st_mode):
                return False
            if entry.kind == "file" and found.st_size != entry.size:
                return False
        return True

    def sweep(self, dest: Path) -> None:
        """Removes what an earlier process of this store left unfinished there; nothing that is others'."""
        if not self._mark:
            return
        with contextlib.suppress(OSError), opened(dest.parent, follow=True) as folder:
            self._sweep(folder)
        if self._manifest.directory:
            parents = {e.path.rpartition("/")[0] for e in self._manifest.entries}
            with contextlib.suppress(OSError), opened(dest) as root, Folders.of(root, make=False) as folders:
                for path in {"", *parents}:
                    with contextlib.suppress(OSError, UnsafePathError):
                        self._sweep(folders.at(path))

    def _sweep(self, folder: Path) -> None:
        for left in folder.glob(f"{PREFIX}{self._mark}*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    # --- trees ------------------------------------------------------------------------------

    def _tree(self, dest: Path, done: Published) -> None:
        draft = self._beside(dest)
        try:
            draft.mkdir()
            with guarded(draft, self._folder_mode("")) as root:
                self.try_names(root)
                self._fresh(root, done)
            try:
                os.rename(draft, dest)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                # Somebody else was faster: what is there now is merged into.
                self._merge(dest, Published(dest))
                done.merged = True
        finally:
            if draft.exists():
                shutil.rmtree(draft, ignore_errors=True)

    def _fresh(self, root: Path, done: Published) -> None:
        """Into a folder that nobody else sees yet: each name is made once, in its place."""
        with Folders.of(root, mode=self._folder_mode) as folders:
            for number, entry in enumerate(self._manifest.entries):
                self._go_on()
                with naming(entry):
                    self._new(folders, number, entry, done)

    def _new(self, folders: Folders, number: int, entry: Entry, done: Published) -> None:
        if entry.kind == "dir":
            folders.number(entry.path)
            return
        parent, _, last = entry.path.rpartition("/")
        at, name = folders.number(parent), to_os(last)
        if entry.kind == "symlink":
            os.symlink(to_os(entry.target), name, dir_fd=at)
        elif self._make(entry, self._stored(number), name, self._modes.file(entry), at):
            done.linked += 1
            self._linked(number)
        else:
            done.copied += 1

    def _folder_mode(self, path: str) -> int | None:
        """None: as any folder that this process makes, so that a default ACL of the one above holds, too."""
        own = self._asked_umask is None and not self._modes.says(path)
        return None if own else self._modes.folder(path)

    def _merge(self, dest: Path, done: Published) -> None:
        if not stat.S_ISDIR(os.lstat(dest).st_mode):
            raise DestinationError(
                f"{shown(dest)}: exists and is not a folder; a directory cannot replace it"
            )
        done.merged = True
        with opened(dest) as root:
            self._refuse_symlinks(root)
            self.try_names(root)
            self._entries(root, done)

    def try_names(self, root: Path) -> None:
        """Raises `DestinationError` naming what the file system of an open folder does not hold, `OSError`."""
        if wanted := self._trials():
            TryOut(f"{PREFIX}{self._mark}", self._go_on).below(root, wanted)

    def _refuse_symlinks(self, dest: Path) -> None:
        """Before anything is written: no folder on the way may lead elsewhere."""
        seen: set[str] = set()
        for entry in self._manifest.entries:
            names = to_os(entry.path).split("/")
            folders = names if entry.kind == "dir" else names[:-1]
            for depth in range(1, len(folders) + 1):
                part = "/".join(folders[:depth])
                if part in seen:
                    continue
                seen.add(part)
                found = dest / part
                if found.is_symlink():
                    raise UnsafePathError(
                        f"{shown(found)}: is a symlink, but a folder is needed; nothing was written"
                    )
                if _exists(found) and not found.is_dir():
                    raise DestinationError(
                        f"{shown(found)}: is a file, but a folder is needed; nothing was written"
                    )

    def _entries(self, root: Path, done: Published) -> None:
        closed: dict[str, int] = {}
        with Folders.of(root, mode=self._folder_mode) as folders:
            for number, entry in enumerate(self._manifest.entries):
                self._go_on()
                with naming(entry):
                    if entry.kind == "dir":
                        folders.at(entry.path)
                        continue
                    folder, _, name = entry.path.rpartition("/")
                    if folder not in closed:
                        closed[folder] = self._kept_out(folders, folder)
                    target = folders.at(folder) / to_os(name)
                    if entry.kind == "file":
                        self._file(number, target, done, closed[folder])
                    else:
                        self._symlink(to_os(entry.target), target)

    def _kept_out(self, folders: Folders, folder: str) -> int:
        """Bits that files in it must not have: it was there, and may be open to more users than at the source."""
        if not self._modes.closed_folders:
            return 0
        names = folder.split("/") if folder else []
        way = ["", *("/".join(names[:depth]) for depth in range(1, len(names) + 1))]
        return self._modes.kept_out([(path, os.stat(folders.at(path)).st_mode) for path in way])

    # --- one file ---------------------------------------------------------------------------

    def _file(self, number: int, target: Path, done: Published, keep_out: int = 0) -> None:
        entry = self._manifest.entries[number]
        stored = self._stored(number)
        found = self._replaced(target)
        mode = self._modes.file(entry, found.st_mode if found else None, keep_out)
        if (
            found
            and self._unchanged(entry, stored, target, found)
            and (self._modes.fits(entry, found.st_mode, keep_out) or open_files.set_mode(target, found, mode))
        ):
            done.unchanged += 1
            return
        draft = self._beside(target)
        try:
            linked = self._make(entry, stored, draft, mode)
            os.replace(draft, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
        if linked:
            done.linked += 1
            self._linked(number)
        else:
            done.copied += 1

    def _symlink(self, leads_to: str, target: Path) -> None:
        if target.is_symlink() and os.readlink(target) == leads_to:
            return
        draft = self._beside(target)
        try:
            draft.symlink_to(leads_to)
            os.replace(draft, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()

    def _beside(self, path: Path) -> Path:
        return path.with_name(f"{PREFIX}{self._mark}{secrets.token_hex(8)}")

    def _make(
        self, entry: Entry, stored: Stored, draft: Path | str, mode: int, folder: int | None = None
    ) -> bool:
        """Whether it is a link. `mode`: of a copy; `folder`: what a relative `draft` is relative to, an open one."""
        if self._link and stored.whole and entry.size and self._has_mode(stored, shared(mode)):
            try:
                os.link(stored.file, draft, dst_dir_fd=folder)
                return True
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
        plain = not mode & self._umask
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(draft, flags, mode if plain else 0o600, dir_fd=folder)
        try:
            if entry.size:
                open_files.copy(self._source(stored.file), target, stored.offset, entry.size)
            if not plain:
                os.fchmod(target, mode)
            if entry.mtime_ns is not None:
                os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
            if self._durable:
                os.fsync(target)
        finally:
            os.close(target)
        return False

    @staticmethod
    def _has_mode(stored: Stored, mode: int) -> bool:
        """A link has the mode of the store's file, and so has every other link to it."""
        return stat.S_IMODE(os.stat(stored.file).st_mode) == mode

    @staticmethod
    def _replaced(target: Path) -> os.stat_result | None:
        """The file that lies there. Raises `DestinationError` for a folder."""
        try:
            found = os.lstat(target)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(found.st_mode):
            raise DestinationError(f"{shown(target)}: is a folder, but a file is needed")
        return found if stat.S_ISREG(found.st_mode) else None

    def _unchanged(self, entry: Entry, stored: Stored, target: Path, found: os.stat_result) -> bool:
        if found.st_size != entry.size:
            return False
        if not entry.size:
            return True
        inside = os.stat(stored.file)
        if stored.whole and (found.st_dev, found.st_ino) == (inside.st_dev, inside.st_ino):
            return self._link
        return _same(stored, target, entry.size)


def _same(stored: Stored, target: Path, size: int) -> bool:
    try:
        # Whatever lies there by now: no link is followed, and no pipe waits for its other end.
        number = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    with stored.file.open("rb") as ours, os.fdopen(number, "rb") as theirs:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return False
        ours.seek(stored.offset)
        while size > 0:
            part = min(_COMPARE, size)
            if ours.read(part) != theirs.read(part):
                return False
            size -= part
    return True


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def destination_errors(dest: Path) -> Iterator[None]:
    """`OSError` becomes one of this package that names the path and what to do."""
    try:
        yield
    except (StorageError, UnsafePathError):
        raise
    except OSError as error:
        if error.errno in NO_DESCRIPTOR:
            raise storage_error(shown(dest), error) from None
        if error.errno in FULL_DISK:
            text = f"{shown(dest)}: the disk is full; the partial output was removed"
            raise StorageFullError(text) from None
        named = isinstance(error.filename, str) and os.path.isabs(error.filename)
        where = shown(error.filename if named else dest)
        text = f"{where}: {error.strerror or error}; choose another dest, or make it writable"
        raise DestinationError(text) from None
