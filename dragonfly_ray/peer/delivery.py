"""One distribution's claim on a task at this peer: where its output goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DestinationError
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.urls import basename

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import Context


class Delivery:
    """`over` once its outcome is known or it was cancelled."""

    def __init__(self, deliver: m.Deliver) -> None:
        self.message = deliver
        self.spec = deliver.spec
        self.helper = deliver.helper
        self.over = False
        self.path: Path | None = None
        self.merged = False

    def publish(self, context: Context, store: TaskStore) -> None:
        """Makes the output visible, whole. Raises `StorageError`."""
        if self.helper:
            return
        if not self.spec.dest:
            self.path = store.path()
            return
        done = store.publish(self.destination(context), link=self.spec.link)
        self.path, self.merged = done.path, done.merged

    def destination(self, context: Context) -> Path:
        """`dest` with its placeholders filled in; below the allowed roots."""
        name = basename(self.spec.source.url)
        text = self.spec.dest.replace("{name}", name).replace("{node}", context.node_id)
        path = Path(text)
        if text.endswith("/") and not self.message.task.directory:
            path = path / name
        if not path.is_absolute() or ".." in path.parts:
            raise DestinationError(
                f"{context.node_name}: dest {text!r} must be an absolute path without '..'"
            )
        roots = context.settings.peer.dest_roots
        if not any(path.is_relative_to(root) for root in roots):
            allowed = os.pathsep.join(roots) or "none"
            raise DestinationError(
                f"{context.node_name}: dest {text!r} lies outside the allowed roots ({allowed})"
            )
        return path
