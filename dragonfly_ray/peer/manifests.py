"""How a task's manifest gets here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError, IntegrityError, StalledError, TransportError
from dragonfly_ray.model import Manifest, PieceTable, Task, digest
from dragonfly_ray.peer.supervisor import Supervisor
from dragonfly_ray.scheduling.download.manifest_search import ROUND_PAUSE_S, ManifestSearch
from dragonfly_ray.scheduling.stragglers import Transfer
from dragonfly_ray.transport.parent_connection import ParentConnection


def manifest_of(task: Task, given: bytes, fetch: Callable[[], bytes]) -> Manifest:
    """`given`: with the delivery; else by `fetch`; checked. Raises `IntegrityError` and as `fetch`."""
    data = given or fetch()
    if digest(data) != task.manifest_digest:
        raise IntegrityError(f"{task.url}: the manifest does not match its digest")
    manifest = Manifest.decode(data)
    if len(PieceTable.of(manifest)) != task.pieces:
        raise IntegrityError(f"{task.url}: the manifest has another number of pieces than the task")
    return manifest


def fetch_manifest(
    threads: Supervisor,
    known: Callable[[], Iterable[m.Neighbour]],
    connect: Callable[[m.Neighbour], ParentConnection],
    idle: Callable[[], bool],
    give_up: float,
) -> bytes:
    """From any of the `known` neighbours that has it; from one that trickles only after all others were asked.

    Tried for `give_up` seconds, unless it is `idle`: nobody waits for the task any more. Raises `TransportError`.
    """
    failure: DragonflyError | None = None
    task = threads.task
    deadline = time.monotonic() + give_up
    search = ManifestSearch()
    while time.monotonic() < deadline and not threads.stopping.is_set():
        for neighbour in search.round(known()):
            try:
                connection = connect(neighbour)
                try:
                    watch = _watch(task, neighbour, search, idle)
                    data = connection.manifest(task.manifest_size, watch)
                finally:
                    connection.close()
                if digest(data) == task.manifest_digest:
                    return data
                failure = IntegrityError(f"{neighbour.host.name}: sent a manifest with another digest")
            except DragonflyError as error:
                failure = error
        threads.stopping.wait(ROUND_PAUSE_S)
    raise failure or TransportError(f"{task.url}: no peer could send the manifest")


def _watch(
    task: Task, neighbour: m.Neighbour, search: ManifestSearch, idle: Callable[[], bool]
) -> Callable[[int], None]:
    """Told of bytes as they come: ends it where it is no longer needed, or comes too slowly."""
    transfer = Transfer(task.manifest_size, time.monotonic())

    def progress(count: int) -> None:
        now = time.monotonic()
        transfer.moved(count, now)
        if idle():
            raise TransportError(f"{task.url}: its manifest is no longer needed")
        if transfer.measured(now) and search.too_slow(transfer.left(now)):
            raise StalledError(
                f"{neighbour.host.name}: manifest transfer too slow ({transfer.rate(now):.0f} B/s)"
            )

    return progress
