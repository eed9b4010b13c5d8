"""A real FTP server (pyftpdlib) on loopback."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer


class Ftp:
    """Serves `root`, to be read. `commands`: how often each was sent. `open`: control connections there are."""

    def __init__(self, root: Path, *, connections: int = 0, mlsd: bool = True, port: int = 0) -> None:
        """`connections`: more than so many at once are sent away with a 421; 0: any number.
        `mlsd`: whether the server knows listings for machines."""
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.commands: Counter[str] = Counter()
        self._most = connections
        ftp, allowed = self, DummyAuthorizer()
        allowed.add_user("reader", "secret", str(root), perm="elr")

        class Handler(FTPHandler):  # type: ignore[misc]
            authorizer = allowed
            auth_failed_timeout = 0

            def pre_process_command(self, line: str, command: str, argument: str) -> None:
                ftp.commands[command] += 1
                super().pre_process_command(line, command, argument)

        if not mlsd:
            Handler.proto_cmds = {k: v for k, v in FTPHandler.proto_cmds.items() if k not in ("MLSD", "MLST")}
        self._server: Any = FTPServer(("127.0.0.1", port), Handler)
        self._server.max_cons = 512
        self._server.max_cons_per_ip = connections
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"ftp://reader:secret@127.0.0.1:{self._server.address[1]}"

    @property
    def open(self) -> int:
        return len(self._server.ip_map)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._server.close_all()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._server.serve_forever(timeout=0.05, blocking=False)
