"""A bare machine inside this one: Linux, Python, make, and nothing that was ever set up.

Mount and process namespaces of their own, with an empty /tmp, /var/tmp, /dev/shm and home folders; the programs
that tests/setup would install are hidden, and so is whatever could install them. The network is this machine's:
the packages are really installed. What runs inside ends with it, and nothing of it stays.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

CHECKOUT = Path(__file__).resolve().parents[2]
USER = "nobody"
HIDDEN = [
    "nginx",
    "npm",
    "npx",
    "node",
    "nodejs",
    "chromium",
    "postgres",
    "pg_ctl",
    "initdb",
    "psql",
    "promtool",
    "azurite-blob",
    "strace",
    "curl",
    "wget",
    "aria2c",
    "apt-get",
    "apt",
    "dpkg-deb",
    "sudo",
]
SHELVES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
HOME = Path("/home/newcomer")
WORK = HOME / "my work" / "dragonfly-ray"
"""The checkout: in a path with a space."""
_PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE")


def available() -> str:
    """Why there can be no such namespaces; empty: there can."""
    if os.geteuid():
        return "needs root"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"without mount namespaces ({done.stderr.strip()})" if done.returncode else ""


class BareMachine:
    """`folder`: of this machine, empty; it holds what is written inside. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._init: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        account = pwd.getpwnam(USER)
        for name, mode in (("tmp", 0o1777), ("vartmp", 0o1777), ("home", 0o755), ("root", 0o755)):
            (self._folder / name).mkdir()
            (self._folder / name).chmod(mode)
        (self._folder / "hidden").touch(mode=0o644)
        work = self._folder / "home" / WORK.relative_to("/home")
        work.mkdir(parents=True)
        _copy_checkout(work)
        subprocess.run(
            ["chown", "-R", f"{account.pw_uid}:{account.pw_gid}", str(self._folder / "home")], check=True
        )
        self._init = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc", self._mounts()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "ready\n":
            raise RuntimeError(f"no bare machine: exit {self._init.wait(timeout=20)}")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._init is not None
        self._init.communicate()  # its input ends, so does it, and with it all that runs inside
        shutil.rmtree(self._folder, ignore_errors=True)

    def _mounts(self) -> str:
        f = shlex.quote(str(self._folder))
        python = Path(sys.base_prefix)
        lines = [
            "mount --make-rprivate /",
            f"mkdir {f}/python",
            f"mount --bind {shlex.quote(str(python))} {f}/python",
            f"mount --bind {f}/home /home",
        ]
        for name in HIDDEN:
            places = {os.path.realpath(shelf) + "/" + name for shelf in SHELVES}
            lines += [f"mount --bind {f}/hidden {place}" for place in sorted(places) if os.path.exists(place)]
        lines += ["! test -d /usr/lib/postgresql || mount -t tmpfs tmpfs /usr/lib/postgresql"]
        if Path.home() != Path("/"):
            # This Python may itself live below the home folder that is to be empty.
            lines += [f"mount --bind {f}/root {shlex.quote(str(Path.home()))}"]
            if python.is_relative_to(Path.home()):
                lines += [
                    f"mkdir -p {shlex.quote(str(python))}",
                    f"mount --bind {f}/python {shlex.quote(str(python))}",
                ]
        lines += [
            "mount -t tmpfs -o mode=1777,size=1g tmpfs /dev/shm",
            f"mount --bind {f}/vartmp /var/tmp",
            f"mount --bind {f}/tmp /tmp",
            "echo ready",
            "exec cat",
        ]
        return "\n".join(lines)

    def run(
        self, command: str, *, user: str = USER, timeout: float, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A shell's command in the checkout; standard error is part of the output."""
        assert self._init is not None
        account = pwd.getpwnam(user)
        inside = [
            "nsenter", "--target", str(self._child()), "--mount", "--pid",
            "setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
            "bash", "-c", f"cd {shlex.quote(str(WORK))} && {command}",
        ]  # fmt: skip
        passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        return subprocess.run(
            inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
            env={
                **passed,
                "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(HOME if user == USER else Path.home()),
                "USER": user,
                "LANG": "C.UTF-8",
                "COLUMNS": "80",
                **(env or {}),
            },
        )  # fmt: skip

    def processes(self) -> list[str]:
        """Command lines of what runs inside, but for its first process."""
        first = self._child()
        inside = os.readlink(f"/proc/{first}/ns/pid")
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):
                if pid != first and os.readlink(f"/proc/{pid}/ns/pid") == inside:
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def _child(self) -> int:
        assert self._init is not None
        (child,) = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return int(child)


def _copy_checkout(to: Path) -> None:
    """What git knows of, as it is now."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, check=True,
    ).stdout.split(b"\0")  # fmt: skip
    for name in filter(None, map(os.fsdecode, names)):
        if os.path.lexists(CHECKOUT / name):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, to / name, follow_symlinks=False)
