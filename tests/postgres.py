"""A PostgreSQL server of the tests' own: a folder, a socket, a port on loopback; gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests import guard, programs
from tests.ports import free_port


def binaries() -> Path | None:
    """The newest server that is installed."""
    found = programs.find("postgres")
    return Path(found).parent if found else None


class Postgres:
    """Start it with `start`; `stop` and `start` again keep the data."""

    def __init__(self, folder: Path) -> None:
        found = binaries()
        if found is None:
            raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
        self._bin = found
        self._data = folder / "data"
        self._folder = folder
        self.port = free_port()
        # The server refuses to run as root.
        self._as = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        )
        self._user = "postgres" if self._as else pwd.getpwuid(os.getuid()).pw_name
        if self._as:
            shutil.chown(folder, "postgres")
        self._run(
            "initdb", "-D", str(self._data), "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-U", "postgres"
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self._folder,
            env={**os.environ, "HOME": str(self._folder)},
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout[-500:]}{done.stderr[-500:]}")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self._folder} -c fsync=off -c max_connections=200"
        self._run(
            "pg_ctl", "-D", str(self._data), "-l", str(self._folder / "log"), "-o", options, "-w", "start"
        )
        guard.watch(process=int((self._data / "postmaster.pid").read_text().split()[0]))

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    @contextlib.contextmanager
    def database(self, like: str = "template1") -> Iterator[str]:
        """The URL of a database of its own: empty, or with what `like` (a name, nobody connected) holds."""
        name = f"t{uuid.uuid4().hex[:12]}"
        # By files, as before version 15: through the log it takes twice as long.
        how = "strategy file_copy" if int(self._bin.parent.name) >= 15 else ""
        self._execute(f"create database {name} template {like} {how}")
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"
        finally:
            self._execute(f"drop database {name} with (force)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Without PostgreSQL the test skips."""
    programs.need("postgres")
    folder = Path(tempfile.mkdtemp(prefix="dragonfly-pg-", dir="/tmp"))
    folder.chmod(0o755)
    guard.watch(folder=folder)
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(RuntimeError):
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
