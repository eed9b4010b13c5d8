"""Calls between processes of one machine, over a Unix socket: a namespace of its own does not part them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

Answer = Callable[..., Any]


class Server:
    """Answers calls by name, each caller's in order, until the process ends. `path` is there once it listens."""

    def __init__(self, path: Path, calls: dict[str, Answer]) -> None:
        self._calls = calls
        bound = path.with_name(f"{path.name}.bound")  # between bind and listen, whoever comes is refused
        self._listener = Listener(str(bound), "AF_UNIX", backlog=64)
        os.link(bound, path)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                caller = self._listener.accept()
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: Connection[Any, Any]) -> None:
        with contextlib.suppress(EOFError, OSError), caller:
            while True:
                name, arguments = caller.recv()
                try:
                    caller.send((True, self._calls[name](*arguments)))
                except Exception as error:  # noqa: BLE001 - the caller raises it
                    caller.send((False, f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """Nobody new; calls under way end."""
        self._listener.close()


class Caller:
    """Of one server, from any thread: each has a connection of its own."""

    def __init__(self, path: Path, lost: Callable[[str], Exception] = RuntimeError) -> None:
        self._path, self._lost = path, lost
        self._own = threading.local()

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Raises what `lost` makes of it where the other side is gone or fails."""
        try:
            if not hasattr(self._own, "connection"):
                self._own.connection = Client(str(self._path), "AF_UNIX")
            self._own.connection.send((name, arguments))
            ok, value = self._own.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost(f"{self._path.name}: {name}: no answer ({type(error).__name__})") from None
        if not ok:
            raise self._lost(f"{self._path.name}: {name}: {value}")
        return value
