"""A demo that goes on in the background: written down, found again, ended, and never mistaken for another process.

One process of its own session owns everything that the demo starts; all of it ends when that process does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

STATE_VARIABLE = "DRAGONFLY_DEMO_STATE"
STOP_TIMEOUT = 100.0
"""Seconds for everything to be put away; then it is killed."""
PAUSE = 0.05
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Kept:
    """A demo's owner. A process id alone comes back with another process: `started` and `boot` tell them apart."""

    pid: int
    started: int
    """Clock ticks since the machine's start."""
    boot: str
    folder: str
    url: str = ""
    ready: bool = False

    @classmethod
    def me(cls, folder: Path) -> Kept:
        started = _started(os.getpid())
        assert started is not None
        return cls(os.getpid(), started, _boot(), str(folder))

    def write(self) -> None:
        state = state_folder()
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path()
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    def forget(self) -> None:
        self._path().unlink(missing_ok=True)

    def _path(self) -> Path:
        return state_folder() / f"{self.pid}.json"

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A descriptor of that very process, which cannot become another's meanwhile; None: it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            same = (_started(self.pid), _boot()) == (self.started, self.boot)
            yield descriptor if same else None
        finally:
            os.close(descriptor)

    @property
    def alive(self) -> bool:
        with self.opened() as process:
            return process is not None and not _ended(process, 0.0)


def state_folder() -> Path:
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "dragonfly-ray" / "demo"


def all_kept() -> list[Kept]:
    """Whatever is written down, whether it still runs or not."""
    found = []
    for path in sorted(state_folder().glob("*.json")):
        try:
            found.append(Kept(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            path.unlink(missing_ok=True)  # torn, or of another version
    return found


def stop(kept: Kept, timeout: float = STOP_TIMEOUT) -> bool:
    """Ends it, and waits until all of it has gone. False: it had ended before."""
    with kept.opened() as process:
        running = process is not None and not _ended(process, 0.0)
        if process is not None and running:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not _ended(process, timeout):
                _kill_all(kept.pid, timeout)
    shutil.rmtree(kept.folder, ignore_errors=True)
    kept.forget()
    return running


def start_in_background(log: Path) -> tuple[int | None, Kept | None]:
    """Starts an owner, passes on what it says until it has done its work, and leaves it running.

    If it ends before that: its exit code, and None.
    """
    with log.open("wb") as output:
        owner = subprocess.Popen(
            [sys.executable, "-m", "examples.demo", "own"],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with log.open(errors="replace") as said:
            while True:
                ended = owner.poll() is not None
                found = next((k for k in all_kept() if k.pid == owner.pid and k.ready), None)
                sys.stdout.write(said.read())
                sys.stdout.flush()
                if ended or found:
                    return owner.poll(), None if ended else found
                time.sleep(PAUSE)
    except BaseException:
        owner.terminate()
        owner.wait(STOP_TIMEOUT)
        raise


def _kill_all(pid: int, timeout: float) -> None:
    """It hangs: what belongs to it would be left behind. Waits until each has ended."""
    with contextlib.ExitStack() as stack:
        killed = []
        for process in _family(pid):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                descriptor = os.pidfd_open(process.pid)
                stack.callback(os.close, descriptor)
                process.kill()
                killed.append(descriptor)
        for descriptor in killed:
            _ended(descriptor, timeout)


def _family(pid: int) -> list[psutil.Process]:
    """The process, held still, and below it whatever it has started; the process first.

    It must neither start another meanwhile nor see its children end and go on.
    """
    try:
        owner = psutil.Process(pid)
        owner.suspend()
        return [owner, *owner.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _ended(process: int, timeout: float) -> bool:
    """Whether the process of this descriptor ends within `timeout` seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _started(pid: int) -> int | None:
    try:
        # Behind the name, which may hold anything: field 22.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
