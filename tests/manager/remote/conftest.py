"""A manager behind a real socket, its client, and the commands over it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

import dragonfly_ray as d
from dragonfly_ray.remote import Client
from tests.manager.conftest import token_of
from tests.waiting import until

URL = "https://models.example.org/weights.bin"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind is enough: the client sees HTTP."""
    return f"sqlite:///{tmp_path / 'manager.db'}"


@contextmanager
def served(app: FastAPI, **options: Any) -> Iterator[str]:
    """The application behind a real socket."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started
    scheme = "https" if options else "http"
    yield f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    with served(app) as found:
        yield found


@pytest.fixture
def token(app: FastAPI, address: str) -> str:
    return token_of(app.state.manager.database, "operator")


@pytest.fixture
def client(address: str, token: str) -> Iterator[Client]:
    with d.connect(address, token) as found:
        yield found


class Line:
    """`dragonfly …`, with the manager and the token in the environment."""

    def __init__(self, address: str, token: str, home: Path) -> None:
        self._env = {**os.environ, "DRAGONFLY_MANAGER": address, "DRAGONFLY_TOKEN": token, "HOME": str(home)}

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "dragonfly_ray.cli", *arguments], env={**self._env, **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0, **env: str) -> str:
        with self.start(*arguments, **env) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"{out}\n{err}"
        return err if code else out


@pytest.fixture
def line(address: str, token: str, tmp_path: Path) -> Line:
    return Line(address, token, tmp_path)
