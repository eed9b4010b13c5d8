"""Where a store's folder lies: plug-ins by name."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from pathlib import Path

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.private_folders import NAME, adopted, private_folder

GROUP = "dragonfly_ray.media"
"""Entry-point group of `Medium` classes."""


class Medium(ABC):
    """A kind of place that holds files. Whatever it is, it is reached as a folder."""

    @abstractmethod
    def folder(self, root: Path) -> Path:
        """The folder for stores, made if it is missing."""

    def space(self, folder: Path) -> tuple[int, int]:
        """(free, total) bytes."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


class Disk(Medium):
    """The configured root itself."""

    def folder(self, root: Path) -> Path:
        return private_folder(root)


class Memory(Medium):
    """tmpfs: as fast as memory, gone with a reboot, and counted as memory."""

    base = Path("/dev/shm")

    def folder(self, root: Path) -> Path:
        own = adopted(self.base / NAME, self.base / f"{NAME}-{os.geteuid()}")
        return private_folder(private_folder(own) / root.as_posix().strip("/").replace("/", "-"))


BUILT_IN: dict[str, type[Medium]] = {"disk": Disk, "memory": Memory}


def medium(name: str) -> Medium:
    """The medium of that name, built in or installed."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    for found in entry_points(group=GROUP, name=name):
        made = found.load()()
        if isinstance(made, Medium):
            return made
    known = sorted({*BUILT_IN, *(e.name for e in entry_points(group=GROUP))})
    raise InvalidRequestError(f"storage.medium {name!r} not installed; available: {', '.join(known)}")
