"""What a run of tests has started ends with it, also where it is killed and nothing is torn down.

A process of its own waits for the end of the one that runs tests. It knows what to end by a variable that children
inherit; servers that write over their environment (nginx, PostgreSQL) are named to it, and so are folders.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RUN = "DRAGONFLY_TEST_RUN"
PATIENCE_S = 2.0
"""That what has been asked to end has for it, until it is killed."""
ROUNDS = 10
_guards: dict[int, subprocess.Popen[bytes]] = {}
"""By the process that started it: a fork's children have none."""


def start() -> None:
    """From here on; once a process."""
    if os.getpid() not in _guards:
        run = os.environ[RUN] = secrets.token_hex(16)
        others = {name: value for name, value in os.environ.items() if name != RUN}
        _guards[os.getpid()] = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), run],
            stdin=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=others,
            start_new_session=True,  # an interrupt from the terminal is for the tests
        )


def watch(*, process: int | None = None, folder: Path | None = None) -> None:
    """A process that hides its environment; a folder, to be removed. Nothing without `start`."""
    guard = _guards.get(os.getpid())
    if guard is not None and guard.stdin is not None:
        line = f"process {process}" if folder is None else f"folder {folder}"
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(f"{line}\n".encode())


def _main(parent: int, run: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        end = os.pidfd_open(parent)
        if os.getppid() == parent:
            folders, processes = _listen(end)
        _end_all(run, processes)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _listen(end: int) -> tuple[list[str], list[int]]:
    """Until it has ended: the folders and the open processes that were named."""
    folders: list[str] = []
    processes: list[int] = []
    said = b""
    while True:
        ready, _, _ = select.select([0, end], [], [])
        if 0 in ready:
            more = os.read(0, 65536)
            said += more
            *lines, said = said.split(b"\n")
            for line in lines:
                kind, _, name = os.fsdecode(line).partition(" ")
                if kind == "folder":
                    folders.append(name)
                else:
                    with contextlib.suppress(ProcessLookupError):
                        processes.append(os.pidfd_open(int(name)))
            if more:
                continue
        if end in ready:
            return folders, processes
        select.select([end], [], [])  # closed, and still there


def _end_all(run: str, named: list[int]) -> None:
    """Asked to first, then killed, again and again while some are left."""
    for sign in (signal.SIGTERM, *[signal.SIGKILL] * ROUNDS):
        left = [process for process in (*named, *_heirs(run)) if not _ended(process, 0.0)]
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, sign)
        deadline = time.monotonic() + PATIENCE_S
        for process in left:
            _ended(process, deadline)


def _ended(process: int, deadline: float) -> bool:
    ready, _, _ = select.select([process], [], [], max(0.0, deadline - time.monotonic()))
    return bool(ready)


def _heirs(run: str) -> Iterator[int]:
    """Open processes that have the variable from their start."""
    wanted = f"{RUN}={run}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                process = os.pidfd_open(int(name))
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    yield process
                else:
                    os.close(process)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
