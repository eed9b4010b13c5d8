"""Several replicas of the manager over one cluster: in this process, and in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, cast

import httpx

from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from tests.waiting import until

AUTHKEY = b"replicas"


class _Server(BaseManager):
    """Calls of other processes to the cluster of this one."""


class _Client(BaseManager):
    pass


_Client.register("cluster")


@contextlib.contextmanager
def shared(cluster: FakeCluster) -> Iterator[str]:
    """An address at which other processes find the cluster."""
    _Server.register("cluster", callable=lambda: cluster)
    server = _Server(("127.0.0.1", 0), AUTHKEY).get_server()
    thread = threading.Thread(target=_serve, args=(server,), daemon=True)
    thread.start()
    try:
        host, port = cast("tuple[str, int]", server.address)
        yield f"{host}:{port}"
    finally:
        server.stop_event.set()  # type: ignore[attr-defined]
        thread.join(30)


def _serve(server: Any) -> None:
    with contextlib.suppress(SystemExit):
        server.serve_forever()


class Replica:
    """One process of its own, with the whole application."""

    def __init__(self, cluster: str, settings: ManagerSettings, log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.manager.replicas", cluster, settings.model_dump_json()],
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=Path(__file__).parents[2],
                text=True,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("http"), f"no replica: {log.read_text()[-2000:]}"
        self.url = line.strip()

    def kill(self) -> None:
        """At once, with nothing tidied up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    def stop(self) -> None:
        """As an operator does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(30)
                raise

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


@contextlib.contextmanager
def replica(cluster: str, settings: ManagerSettings, log: Path) -> Iterator[Replica]:
    found = Replica(cluster, settings, log)
    try:
        yield found
    finally:
        found.stop()


def main(address: str, settings: str) -> None:
    import uvicorn

    from dragonfly_ray.serve.app import create_app

    host, _, port = address.partition(":")
    remote = _Client((host, int(port)), AUTHKEY)
    remote.connect()
    cluster: Cluster = remote.cluster()  # type: ignore[attr-defined]
    app = create_app(ManagerSettings.model_validate_json(settings), cluster)
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_tell_where, args=(server,), daemon=True)
    thread.start()
    server.run()


def _tell_where(server: Any) -> None:
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
