"""A file server as an origin, with a log of every byte that it sent: nginx, or one in Python where that is missing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests import file_server, guard, programs
from tests.ports import free_port

MODULES = Path("/usr/lib/nginx/modules")
_CONF = """
{load} daemon off; pid {state}/pid; error_log {state}/error.log; worker_processes 1; {user}
events {{ worker_connections 4096; }}
http {{
  log_format bytes '$msec $request_time $remote_addr $status $body_bytes_sent $request_method "$http_range" $uri';
  access_log {state}/access.log bytes;
  client_body_temp_path {state}/t1; proxy_temp_path {state}/t2; fastcgi_temp_path {state}/t3;
  uwsgi_temp_path {state}/t4; scgi_temp_path {state}/t5;
  sendfile on; tcp_nopush on; keepalive_requests 100000;
  types {{ }} default_type application/octet-stream;
  server {{ listen {listen}; root {root}; autoindex on; {extra} }}
  server {{ listen unix:{logged}; access_log off; return 204; }}
}}
"""


class Hit(NamedTuple):
    """One line of the log. `time`: when the answer was through (Unix time). `took`: seconds since the
    first byte of its request."""

    time: float
    took: float
    address: str
    status: int
    sent: int
    method: str
    range: str
    path: str


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


class Nginx:
    """Serves `root`, with listings.

    `extra`: more of its configuration, for the server block. `modules`: paths of modules to load. Without
    nginx a server in Python does the same; the test skips if that does not understand `extra`, or if it must be
    `real`.
    """

    def __init__(
        self,
        root: Path,
        state: Path,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        extra: str = "",
        modules: Sequence[str | Path] = (),
        real: bool = False,
        start: Callable[[Sequence[str]], subprocess.Popen[bytes]] = _start,
    ) -> None:
        self.root, self._state = root, state
        self._address = address
        self.port = port or free_port()
        self._extra = extra
        self._modules = list(modules)
        self._real = real or bool(modules)
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = Path()
        root.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self.port}"

    def start(self, extra: str | None = None) -> None:
        """Until it answers."""
        self._extra = self._extra if extra is None else extra
        # A short path: there are 107 bytes for it.
        self._logged = Path(tempfile.mkdtemp(prefix="web")) / "logged"
        self._process = self._start(self._command())
        deadline = time.monotonic() + 20
        while not (self._state / "pid").exists() or not (self._state / "pid").read_text().strip():
            if self._process.poll() is not None or time.monotonic() > deadline:
                errors = self._state / "error.log"
                raise RuntimeError(
                    f"the file server does not start: {errors.read_text()[-500:] if errors.exists() else ''}"
                )
            time.sleep(0.01)
        guard.watch(process=int((self._state / "pid").read_text()))

    def _command(self) -> list[str]:
        """Writes the configuration; what to run."""
        nginx = programs.find("nginx")
        if nginx is None:
            if self._real or file_server.understood(self._extra) is None:
                programs.need("nginx")
            settings = {
                "address": self._address,
                "port": self.port,
                "root": str(self.root),
                "extra": self._extra,
                "logged": str(self._logged),
            }
            (self._state / "server.json").write_text(json.dumps(settings))
            return [sys.executable, file_server.__file__, str(self._state)]
        conf = self._state / "nginx.conf"
        conf.write_text(
            _CONF.format(
                load="".join(f"load_module {module}; " for module in self._modules),
                state=self._state,
                root=self.root,
                listen=f"{self._address}:{self.port}",
                logged=self._logged,
                extra=self._extra,
                user="" if os.geteuid() else "user root;",
            )
        )
        return [nginx, "-p", str(self._state), "-c", str(conf)]

    def stop(self) -> None:
        """At once; connections break."""
        if self._process is None:
            return
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self._state / "pid").read_text()), signal.SIGTERM)
        self._process.wait(timeout=20)
        self._process = None
        shutil.rmtree(self._logged.parent, ignore_errors=True)
        (self._state / "pid").unlink(missing_ok=True)

    def restart(self, extra: str) -> None:
        """With other directives, such as a `limit_rate`."""
        self.stop()
        self.start(extra)

    def pids(self) -> list[int]:
        """Of the master and its workers."""
        master = int((self._state / "pid").read_text())
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return [master, *map(int, children.split())]

    def _await_log(self) -> None:
        """Until every answer that somebody has whole is in the log: it is written after the last byte is sent.

        The one worker of nginx answers this after it has logged what it was at."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:  # it may be down
            asking.settimeout(10)
            asking.connect(str(self._logged))
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            asking.recv(1)

    def hits(self) -> list[Hit]:
        self._await_log()
        log = self._state / "access.log"
        found = []
        whole, _, _ = (log.read_text() if log.exists() else "").rpartition("\n")
        for line in whole.splitlines():
            at, took, address, status, sent, method, rest = line.split(" ", 6)
            asked, _, path = rest[1:].partition('" ')
            found.append(Hit(float(at), float(took), address, int(status), int(sent), method, asked, path))
        return found

    def sent(self, path: str = "") -> int:
        """Bytes of bodies, of all files whose path starts so."""
        return sum(hit.sent for hit in self.hits() if hit.path.startswith(path) and hit.method != "HEAD")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
