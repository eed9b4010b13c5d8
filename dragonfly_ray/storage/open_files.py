"""Open files of a store, a bounded number of them, and bytes between them without passing through here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dragonfly_ray.storage.os_errors import NO_DESCRIPTOR

FICLONE = 0x40049409
MOST_OPEN = 512
LEAST_OPEN = 16
WANTED_OPEN = 65_536
WRITE_STEP = 64 * 1024
"""Bytes of a write. The page cache takes a block of memory as large as the write: large ones are those that a virtual
machine has handed back to its host, where the first touch of each page costs several times the copy."""
SMALL = 16 * 1024
"""Bytes that are copied faster through this process than by the kernel alone."""
_UNSUPPORTED = (
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.EPERM,
    errno.EBADF,
)
_libc = ctypes.CDLL(None, use_errno=True)


def allocate(fd: int, size: int) -> None:
    """Reserves `size` bytes of disk, so that a full one is found out before the transfer."""
    # Not os.posix_fallocate: where the file system cannot, it writes zeros instead.
    while _libc.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code))
        os.ftruncate(fd, size)
        return


def write_all(fd: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(fd, view[:WRITE_STEP], offset)
        view, offset = view[count:], offset + count


def copy(source: int, target: int, offset: int, length: int, to: int = 0) -> None:
    """`length` bytes between two files inside the kernel: shared blocks, else a copy."""
    if not length:
        return
    if length <= SMALL:
        write_all(target, memoryview(_read(source, offset, length)), to)
        return
    whole = not offset and not to and os.fstat(source).st_size == length
    if whole:
        try:
            fcntl.ioctl(target, FICLONE, source)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    while length:
        try:
            count = os.copy_file_range(source, target, length, offset, to)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            os.lseek(target, to, os.SEEK_SET)
            count = os.sendfile(target, source, offset, length)
        if not count:
            raise OSError(errno.EIO, "file is shorter than expected")
        length, offset, to = length - count, offset + count, to + count


def set_mode(path: Path, found: os.stat_result, mode: int) -> bool:
    """Whether the file has the mode now, or its file system holds none. `found`: how it was looked at.

    Not where others may share it under another name, or where it is not ours.
    """
    if found.st_nlink != 1 or found.st_uid != os.geteuid():
        return False
    try:
        number = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        now = os.fstat(number)
        if (now.st_dev, now.st_ino, now.st_nlink) != (found.st_dev, found.st_ino, 1):
            return False
        os.chmod(f"/proc/self/fd/{number}", mode)
    except OSError:
        return False
    finally:
        os.close(number)
    return True


def _read(source: int, offset: int, length: int) -> bytes:
    found = os.pread(source, length, offset)
    if len(found) < length:
        raise OSError(errno.EIO, "file is shorter than expected")
    return found


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # finished: it is only read


def raise_limit() -> int:
    """Lets this process open as many files as it may, within reason; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_OPEN if hard == resource.RLIM_INFINITY else min(hard, WANTED_OPEN)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def most_open() -> int:
    """How many files a store keeps open: a part of what the process may, the rest is for sockets."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if soft == resource.RLIM_INFINITY else max(LEAST_OPEN, min(MOST_OPEN, soft // 4))


class _Open:
    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0


class OpenFiles:
    """Keeps files open while they are used, and the latest ones afterwards: data files and journals."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most_open() if most is None else most
        self._files: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def use(self, path: str, flags: int = 0) -> Iterator[int]:
        """A descriptor, good until the end of the block. `flags`: for opening it. Raises `OSError`."""
        with self._lock:
            found = self._files.get(path)
            if found is None:
                found = self._files[path] = _Open(self._opened(path, flags))
                self._shrink(self._most)
            self._files.move_to_end(path)
            found.users += 1
        try:
            yield found.fd
        finally:
            with self._lock:
                found.users -= 1
                if not found.users and self._files.get(path) is not found:
                    os.close(found.fd)

    def forget(self, path: str) -> None:
        """The name means another file now, or none."""
        with self._lock:
            found = self._files.pop(path, None)
            if found and not found.users:
                os.close(found.fd)

    def close(self) -> None:
        for path in list(self._files):
            self.forget(path)

    def _opened(self, path: str, flags: int) -> int:
        try:
            return _open(path, flags)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:
                raise
            self._shrink(0)  # others need them now; what is idle here can be opened again
            return _open(path, flags)

    def _shrink(self, most: int) -> None:
        """Closes the oldest that nobody uses, but not the one that was opened just now."""
        for _ in range(len(self._files) - 1):
            if len(self._files) <= most:
                return
            path, oldest = next(iter(self._files.items()))
            if oldest.users:
                self._files.move_to_end(path)
            else:
                del self._files[path]
                os.close(oldest.fd)
