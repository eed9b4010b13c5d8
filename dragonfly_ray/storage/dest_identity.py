"""Where an output lies, told so that nodes can compare: is it one folder that we both would write to?

Inside one machine the kernel's numbers of the folder tell. On a network file system its server and
the folder's number there do, where all clients see the same numbers (NFS, CephFS, Lustre, GPFS,
SMB). Both are a guess that spares work; the proof is the stamp of what was written.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from dragonfly_ray.names import from_os
from dragonfly_ray.storage.nofollow import make_folders
from dragonfly_ray.storage.output import destination_errors

NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "ocfs2", "gfs2",
     "orangefs", "pvfs2", "wekafs", "afs", "9p", "virtiofs", "fuse.glusterfs", "fuse.ceph",
     "fuse.ceph-fuse", "fuse.juicefs", "fuse.sshfs", "fuse.moosefs", "fuse.seaweedfs")
)  # fmt: skip
"""Kinds of file systems that several machines mount."""
_MOUNTS = Path("/proc/self/mountinfo")


def boot_id() -> str:
    """Of this machine's kernel, since it started; empty where it does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def place_of(dest: Path, *, link: bool, umask: int | None = None) -> str:
    """Equal for nodes that would write one and the same output; `dest`'s folder is made for it.

    `umask`: of the caller, where it holds.

    Raises `DestinationError`, `StorageFullError`.
    """
    with destination_errors(dest):
        make_folders(dest.parent, umask)
        folder = os.stat(dest.parent)
        home = _server(folder.st_dev) or f"{boot_id() or socket.gethostname()}:{folder.st_dev}"
    asked = "" if umask is None else f" (umask {umask:03o})"
    return f"{home}:{folder.st_ino}/{from_os(dest.name)}{'' if link else ' (a copy)'}{asked}"


def stamp_of(path: Path) -> str:
    """Equal only for the very same file or folder, unchanged; empty if it is not there.

    Opening it makes network file systems ask the server, and not their cache.
    """
    try:
        with os.scandir(path.parent):
            pass
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    return f"{found.st_ino}:{found.st_size}:{found.st_ctime_ns}"


def _server(device: int) -> str:
    """Kind and server of a file system that other machines may mount as well; else empty."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if fields[2] != number:
            continue
        kind, source = fields[fields.index("-") + 1 :][:2]
        # What is exported may be mounted at several depths: the folder's number tells them apart.
        return f"{kind}:{source.rpartition(':/')[0] or source}" if kind in NETWORK else ""
    return ""
