"""What the upload server sees of a task: its store, and its download if one is running."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dragonfly_ray import bitset
from dragonfly_ray.peer.recheck import Rechecker
from dragonfly_ray.storage.task_pieces import Extent
from dragonfly_ray.storage.task_store import TaskStore


class Running(Protocol):
    """A download, as children meet it."""

    @property
    def opened(self) -> TaskStore | None: ...

    def shown(self, host: str) -> int:
        """The pieces that a child may ask for, as a bitmap."""

    def heard(self, host: str, items: list[tuple[int, bytes]]) -> None:
        """A child says what it has."""

    def deserted(self, host: str) -> None:
        """A child has closed its connection."""


class UploadView:
    """A task as others may read it. Children's news reach the running download, if there is one."""

    def __init__(
        self,
        store: TaskStore,
        run: Callable[[], Running | None],
        rechecker: Rechecker,
        sent: Callable[[int], None],
    ) -> None:
        self._store = store
        self._find = run
        self._rechecker = rechecker
        self._sent = sent

    @property
    def _run(self) -> Running | None:
        """It may begin after a child has come."""
        return self._find()

    @property
    def manifest_file(self) -> Path:
        return self._store.manifest_file

    def bitmap(self, host_id: str) -> bytes:
        """What this child may ask for."""
        run, task = self._run, self._store.task
        if run is None or run.opened is not self._store:
            shown = bitset.from_bytes(self._store.have(), task.pieces)
        else:
            shown = run.shown(host_id)
        return bitset.to_bytes(shown & ~bitset.of(self._rechecker.pieces_withdrawn(task.id)), task.pieces)

    def digests(self) -> list[bytes | None]:
        return list(self._store.digests)

    def has(self, index: int) -> bool:
        return self._store.has(index) and not self._rechecker.withdrawn(self._store.task.id, index)

    def digest(self, index: int) -> bytes:
        found = self._store.digests[index]
        if found is None:
            raise KeyError(index)
        return found

    def reading(self, index: int) -> AbstractContextManager[list[Extent]]:
        return self._store.serving(index)

    def on_have(self, host_id: str, items: list[tuple[int, bytes]]) -> None:
        if run := self._run:
            run.heard(host_id, items)

    def on_corrupt(self, host_id: str, index: int) -> None:
        """A child says that our bytes are bad. It may be right."""
        self._rechecker.complained(self._store.task.id, index, host_id)

    def on_unreadable(self, index: int) -> None:
        self._rechecker.unreadable(self._store.task.id, index)

    def on_sent(self, host_id: str, nbytes: int) -> None:
        self._sent(nbytes)

    def on_joined(self, host_id: str) -> None:
        pass

    def on_left(self, host_id: str) -> None:
        if run := self._run:
            run.deserted(host_id)
