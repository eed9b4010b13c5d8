"""The digest of the whole content, computed along the contiguous prefix while bytes arrive."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from dragonfly_ray.errors import DragonflyError, IntegrityError, InvalidRequestError

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def parse(text: str) -> tuple[str, str]:
    """(algorithm, hex) of `sha256:…`, `blake3:…` or any algorithm of hashlib; a bare 64-digit hex is sha256."""
    algorithm, found, value = text.partition(":")
    if not found:
        algorithm, value = "sha256", text
    algorithm, value = algorithm.lower(), value.lower()
    if algorithm != "blake3" and algorithm not in hashlib.algorithms_available:
        raise InvalidRequestError(f"digest {text!r}: unknown algorithm {algorithm!r}; use sha256 or blake3")
    size = 32 if algorithm == "blake3" else hashlib.new(algorithm).digest_size
    if len(value) != 2 * size or any(c not in "0123456789abcdef" for c in value):
        raise InvalidRequestError(f"digest {text!r}: {algorithm} has {2 * size} hexadecimal digits")
    return algorithm, value


class PrefixHash:
    """Follows a download. `check` waits for the rest and compares."""

    def __init__(self, run: TaskRun, wanted: str) -> None:
        self._run = run
        self._algorithm, _ = parse(wanted)
        self._hash: _Hash = blake3() if self._algorithm == "blake3" else hashlib.new(self._algorithm)
        self._next = 0
        self._more = threading.Event()
        self._done = threading.Event()
        self._result = ""
        self._failure: DragonflyError | None = None
        self._started = False

    def advance(self) -> None:
        """A piece arrived."""
        self._more.set()

    def run(self) -> None:
        """Until all is hashed, or the task ends."""
        self._started = True
        try:
            self._follow()
        except DragonflyError as error:
            self._failure = error
        finally:
            self._done.set()

    def _follow(self) -> None:
        store = self._run.store
        assert store is not None
        count = self._run.task.pieces
        self._more.set()
        while self._next < count and not self._run.stopping.is_set():
            self._more.wait(1.0)
            self._more.clear()
            while self._next < count and store.has(self._next):
                self._hash.update(store.read(self._next))
                self._next += 1
        self._result = self._hash.hexdigest()

    def check(self, wanted: str) -> None:
        """Raises `IntegrityError` if the content is not what the caller expects. All of it must be here."""
        algorithm, value = parse(wanted)
        if not self._started:
            found = self._whole(algorithm)
        else:
            self._more.set()
            self._done.wait()
            if self._failure:
                raise self._failure
            found = self._result if algorithm == self._algorithm else self._whole(algorithm)
        if found != value:
            raise IntegrityError(
                f"{self._run.task.url}: {algorithm} is {found[:16]}…, expected {value[:16]}…; nothing was written"
            )

    def _whole(self, algorithm: str) -> str:
        store = self._run.store
        assert store is not None
        hasher: _Hash = blake3() if algorithm == "blake3" else hashlib.new(algorithm)
        for index in range(self._run.task.pieces):
            hasher.update(store.read(index))
        return hasher.hexdigest()
