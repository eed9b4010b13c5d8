"""Names that differ in case or in how a letter is composed: whether a file system tells them apart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dragonfly_ray.errors import DestinationError
from dragonfly_ray.names import to_os
from dragonfly_ray.storage.name_limits import draft_in
from dragonfly_ray.storage.nofollow import shown
from dragonfly_ray.storage.output import PREFIX

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check_spellings(folder: Path, names: Sequence[str]) -> None:
    """Tries the names out in a folder of its own inside `folder`, or the next above that is there; it goes again.

    Raises `DestinationError` naming two of `names` that are one file there, `OSError`.
    """
    while not folder.is_dir():
        folder = folder.parent
    made: dict[tuple[int, int], str] = {}
    with _opened(folder) as number, draft_in(number, PREFIX) as trial:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(to_os(name), _NEW, 0o600, dir_fd=trial))
            found = os.stat(to_os(name), dir_fd=trial)
            other = made.setdefault((found.st_dev, found.st_ino), name)
            if other != name:
                raise DestinationError(
                    f"{shown(folder)}: its file system treats {other!r} and {name!r} as the same name;"
                    " distribute them separately, each with its own dest"
                )


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)
