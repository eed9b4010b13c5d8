"""What the demo needs of the machine, and what it must not inherit from the caller's environment.

Nothing here needs Ray: it runs before Ray is imported, since Ray reads its environment then.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from dragonfly_ray.errors import ClusterError
from examples.demo import PREFIX

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy")
RAY_OF_OTHERS = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_GCS_SERVER_PORT",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_NAMESPACE",
    "RAY_REDIS_ADDRESS",
    "RAY_RUNTIME_ENV_HOOK",
)
MAX_FOLDER = 34
"""Bytes. Ray puts its sockets some 72 bytes below the folder, and their names may have 107 in all."""
DISK = 3 << 30
"""Bytes: the content once at the origin and once for each node, and Ray's own files."""


class UnfitMachineError(ClusterError):
    """The machine, or its environment, does not allow what was asked; the message says what to do."""


def scratch_folder(
    candidates: Sequence[str] | None = None, *, disk: int = DISK, prefix: str = PREFIX
) -> Path:
    """A new folder with room for everything, in the first place that has it.

    `TMPDIR` comes last: it is often too long for sockets. Raises `UnfitMachineError`.
    """
    refused = []
    for place in candidates or _places():
        if len(os.fsencode(place)) + len(prefix) + 9 > MAX_FOLDER:
            refused.append(f"{place}: too long for sockets below it")
            continue
        try:
            free = shutil.disk_usage(place).free
            if free < disk:
                refused.append(f"{place}: {free >> 20} MiB free")
                continue
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError as error:
            refused.append(f"{place}: {error.strerror}")
            continue
        folder.chmod(0o755)
        return folder
    raise UnfitMachineError(
        f"no folder with {disk >> 20} MiB ({'; '.join(refused)}): free some space, "
        "or set TMPDIR to a short path that has it"
    )


def _places() -> list[str]:
    return list(dict.fromkeys(["/tmp", "/var/tmp", os.environ.get("TMPDIR") or "/tmp"]))


def shed(environment: MutableMapping[str, str], keep: Sequence[str] = ()) -> list[str]:
    """Takes out what would lead to another cluster, or traffic of this machine to a proxy. The names, sorted."""
    out = [
        name
        for name in environment
        if name not in keep
        and (name.startswith("DRAGONFLY_") or name in RAY_OF_OTHERS or name.lower() in PROXIES)
    ]
    for name in out:
        del environment[name]
    return sorted(out)


def prepare_ray(folder: Path, environment: MutableMapping[str, str]) -> None:
    """Ray's files are all below `folder`: also those that it puts into its default folder, which may not be
    there, or be another user's. The interpreter gets a path that a shell need not quote: Ray does not."""
    environment["RAY_TMPDIR"] = str(folder)
    (folder / "ray").mkdir(exist_ok=True)
    if shlex.quote(sys.executable) != sys.executable:
        plain = folder / "python"
        plain.symlink_to(sys.prefix)
        sys.executable = str(plain / "bin" / Path(sys.executable).name)


def object_store_folder(folder: Path, needed: int) -> Path | None:
    """Where Ray shall keep its objects; None: in shared memory, as ever. `needed`: bytes of all nodes."""
    try:
        found = os.statvfs("/dev/shm")
        return None if found.f_bsize * found.f_bavail >= needed else folder
    except OSError:
        return folder


def explain(error: BaseException) -> str:
    """One line: what failed, and what to do."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left ({said}): free some, or set TMPDIR to a short path that has it"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files ({said}): raise the limit, as with `ulimit -n 4096`"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"a port was taken meanwhile ({said}): try again"
    if isinstance(error, PermissionError):
        return f"no permission ({said})"
    return f"{type(error).__name__}: {said[:500]}"
