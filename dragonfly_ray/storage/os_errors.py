"""What the system says went wrong with a store, as one of this package's errors."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from dragonfly_ray.errors import DragonflyError, StorageError, StorageFullError

FULL_DISK = frozenset((errno.ENOSPC, errno.EDQUOT))
NO_DESCRIPTOR = frozenset((errno.EMFILE, errno.ENFILE))
EXHAUSTED = NO_DESCRIPTOR | {errno.ENOMEM, errno.ENOBUFS, errno.EINTR}
"""This process or machine is short of something for now: nothing is known of the file."""


def storage_error(where: str, error: OSError) -> StorageError:
    """One line: what failed, where, and what to do."""
    if error.errno in FULL_DISK:
        text = "the disk is full; free disk space, or set storage.root or storage.quota"
        return StorageFullError(f"{where}: {text}")
    if error.errno in NO_DESCRIPTOR:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = f"too many open files (the limit is {limit:,}); raise it with `ulimit -n` or LimitNOFILE="
        return StorageError(f"{where}: {text}")
    return StorageError(f"{where}: {error.strerror or error}")


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """`OSError` becomes a `StorageError` that says where; this package's own pass."""
    try:
        yield
    except DragonflyError:
        raise
    except OSError as error:
        raise storage_error(where, error) from None
