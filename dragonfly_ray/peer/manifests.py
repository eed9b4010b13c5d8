"""How a task's manifest gets here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError, IntegrityError, TransportError
from dragonfly_ray.model import Manifest, PieceTable, digest

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun


def manifest_of(run: TaskRun, deliver: m.Deliver) -> Manifest:
    """From the store, with the delivery, or from a neighbour; checked. Raises `IntegrityError`, `TransportError`."""
    known = run.context.store.get(run.task.id)
    if known is not None:
        return known.manifest
    data = deliver.manifest or _fetch(run)
    if digest(data) != run.task.manifest_digest:
        raise IntegrityError(f"{run.task.url}: the manifest does not match its digest")
    manifest = Manifest.decode(data)
    if len(PieceTable.of(manifest)) != run.task.pieces:
        raise IntegrityError(f"{run.task.url}: the manifest is cut in another way here")
    return manifest


def _fetch(run: TaskRun) -> bytes:
    """From any neighbour that has it."""
    failure: DragonflyError | None = None
    deadline = time.monotonic() + run.settings.origin.give_up
    while time.monotonic() < deadline and not run.stopping.is_set():
        for neighbour in [n for n in run.neighbours.known() if n.manifest]:
            try:
                connection = run.connect(neighbour)
                try:
                    data = connection.manifest(run.task.manifest_size)
                finally:
                    connection.close()
                if digest(data) == run.task.manifest_digest:
                    return data
                failure = IntegrityError(f"{neighbour.host.name}: sent another manifest")
            except DragonflyError as error:
                failure = error
        run.stopping.wait(0.1)
    raise failure or TransportError(f"{run.task.url}: nobody has the manifest")
