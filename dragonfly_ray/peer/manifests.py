"""How a task's manifest gets here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError, IntegrityError, StalledError, TransportError
from dragonfly_ray.model import Manifest, PieceTable, digest
from dragonfly_ray.scheduling.slowness import Transfer

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun


FIRST_PATIENCE_S, PATIENCE_GROWTH = 10.0, 4.0
"""Seconds that the rest of a manifest may take at the rate at which it comes, while others have it, too; so many
times as long in each round."""


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
    """From any neighbour that has it; from one that trickles only after all others were asked."""
    failure: DragonflyError | None = None
    deadline = time.monotonic() + run.settings.origin.give_up
    patience = FIRST_PATIENCE_S
    while time.monotonic() < deadline and not run.stopping.is_set():
        having = [n for n in run.neighbours.known() if n.manifest]
        for neighbour in having:
            try:
                connection = run.connect(neighbour)
                try:
                    watch = _watch(run, neighbour, patience if len(having) > 1 else math.inf)
                    data = connection.manifest(run.task.manifest_size, watch)
                finally:
                    connection.close()
                if digest(data) == run.task.manifest_digest:
                    return data
                failure = IntegrityError(f"{neighbour.host.name}: sent another manifest")
            except DragonflyError as error:
                failure = error
        patience *= PATIENCE_GROWTH
        run.stopping.wait(0.1)
    raise failure or TransportError(f"{run.task.url}: nobody has the manifest")


def _watch(run: TaskRun, neighbour: m.Neighbour, patience: float) -> Callable[[int], None]:
    """Told of bytes as they come: ends it where it is not wanted any more, or comes too slowly."""
    transfer = Transfer(run.task.manifest_size, time.monotonic())

    def progress(count: int) -> None:
        now = time.monotonic()
        transfer.moved(count, now)
        if run.idle():
            raise TransportError(f"{run.task.url}: its manifest is no longer needed")
        if transfer.measured(now) and transfer.left(now) > patience:
            raise StalledError(
                f"{neighbour.host.name}: sends the manifest at only {transfer.rate(now):.0f} B/s"
            )

    return progress
