"""A real forward proxy (proxy.py), that alone knows where `origin.test` and its like are: here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.http.proxy import HttpProxyBasePlugin

ASKED = "DRAGONFLY_TEST_PROXY_ASKED"


class Names(HttpProxyBasePlugin):
    """Runs in the proxy's process: writes down who is asked for, and resolves names below `.test`."""

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, None]:
        return ("127.0.0.1" if host.endswith(".test") else None), None

    def before_upstream_connection(self, request: Any) -> Any:
        with open(os.environ[ASKED], "a") as file:
            file.write(f"{request.method.decode()} {(request.host or b'').decode()}\n")
        return request


class ForwardProxy:
    """On loopback. `login`: `user:password`, where it wants some."""

    def __init__(self, folder: Path, login: str = "") -> None:
        self._folder, self._login = folder, login
        self._asked, self._port = folder / "asked", folder / "port"
        self.port = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._asked.touch()
        command = [
            sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(self._port),
            "--num-workers", "1", "--num-acceptors", "1", "--timeout", "60", "--plugins", f"{__name__}.Names",
            "--log-level", "ERROR",
        ]  # fmt: skip
        if self._login:
            command += ["--basic-auth", self._login]
        root = Path(__file__).parent.parent
        environment = {
            **os.environ,
            ASKED: str(self._asked),
            "PYTHONPATH": str(root),
            "HOME": str(self._folder),
        }
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not (self._port.exists() and self._port.read_text().strip()):
            assert self._process.poll() is None, "the proxy does not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.port = int(self._port.read_text().split()[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)

    @property
    def url(self) -> str:
        """With what it wants."""
        return f"http://{self._login}{'@' * bool(self._login)}127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """`METHOD host` of each connection that it made."""
        return self._asked.read_text().split("\n")[:-1]
