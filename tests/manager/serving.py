"""The application behind a real server on loopback: what streams need, which a test client holds back."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from tests.waiting import HANG


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The URL of the application, which runs with all that runs beside requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="serving", daemon=True)
    thread.start()
    try:
        if not server.up.wait(HANG):
            raise RuntimeError("the application has not started")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(HANG)
        listening.close()
        assert not thread.is_alive(), "the application has not ended"


class _Server(uvicorn.Server):
    """Says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            if not self.should_exit:
                self.up.set()


@dataclass
class Message:
    """A server-sent event. `name` is empty for an unnamed one."""

    name: str = ""
    id: str = ""
    data: str = ""
    comments: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Reader:
    """Messages of an open stream, one after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self.opened = self.message()
        """The server's first word."""

    def message(self) -> Message:
        """The next one, comments too. Raises `StopIteration` at the end of the stream."""
        found = Message()
        for line in self._lines:
            name, _, value = line.partition(":")
            match name, value.removeprefix(" "):
                case "", "":
                    return found
                case "", comment:
                    found.comments.append(comment)
                case "event", text:
                    found.name = text
                case "id", text:
                    found.id = text
                case "data", text:
                    found.data += text
        raise StopIteration

    def next(self) -> Message:
        """The next one that says something; heartbeats do not count."""
        deadline = time.monotonic() + HANG
        while not (found := self.message()).data:
            assert time.monotonic() < deadline, "nothing but heartbeats"
        return found


@contextlib.contextmanager
def stream(url: str, token: str, **headers: str) -> Iterator[Reader]:
    """An open stream of events; the server has answered, and what happens from now on is in it."""
    headers["Authorization"] = f"Bearer {token}"
    with httpx.stream("GET", url, headers=headers, timeout=HANG) as response:
        if response.status_code != 200:
            response.read()
            raise AssertionError(f"{response.status_code}: {response.text}")
        reader = Reader(response)
        assert reader.opened.comments == ["open"]
        yield reader
