"""Names that differ in case or in how a letter is composed: whether a file system tells them apart."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from dragonfly_ray.errors import DestinationError
from dragonfly_ray.names import to_os
from dragonfly_ray.storage.beneath import opened, shown
from dragonfly_ray.storage.output import PREFIX

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check_spellings(folder: Path, names: Sequence[str]) -> None:
    """Tries the names out in a folder of its own inside `folder`, or the next above that is there; it goes again.

    Raises `DestinationError` naming two of `names` that are one file there, `OSError`.
    """
    while not folder.is_dir():
        folder = folder.parent
    draft = folder / f"{PREFIX}{secrets.token_hex(8)}"
    draft.mkdir(0o700)
    try:
        with opened(draft) as trial:
            made: dict[tuple[int, int], str] = {}
            for name in names:
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(trial / to_os(name), _NEW, 0o600))
                found = os.stat(trial / to_os(name))
                other = made.setdefault((found.st_dev, found.st_ino), name)
                if other != name:
                    raise DestinationError(
                        f"{shown(folder)}: its file system takes {other!r} and {name!r} for one name;"
                        " distribute them one by one, each with a dest of its own"
                    )
    finally:
        shutil.rmtree(draft, ignore_errors=True)
