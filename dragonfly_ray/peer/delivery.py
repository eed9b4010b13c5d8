"""One distribution's claim on a task at this peer: where its output goes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DestinationError, DragonflyError
from dragonfly_ray.storage.place import place_of, stamp_of
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
        self.checked = not deliver.spec.digest
        """The content is what the caller said it is."""
        self.told = False
        """The scheduler has said who writes."""
        self.place = ""
        self.stamp = ""
        self.written_by = ""
        self._elsewhere: m.Elsewhere | None = None
        self._looked = False

    def undecided(self, context: Context) -> str:
        """The output's place, while it is open whether this node is to write it; else empty."""
        if not self._looked:
            self._looked = True
            if self.spec.dest and not self.helper and "{node}" not in self.spec.dest:
                with contextlib.suppress(DragonflyError):  # publishing will say what is wrong with it
                    self.place = place_of(self.destination(context), link=self.spec.link)
        return self.place if not self.told or self._waits() else ""

    def decided(self, elsewhere: m.Elsewhere | None) -> None:
        """None: this node writes."""
        self.told, self._elsewhere = True, elsewhere

    def _waits(self) -> bool:
        return self._elsewhere is not None and not self._elsewhere.stamp

    def publish(self, context: Context, store: TaskStore) -> bool:
        """Makes the output visible, whole; False while another node may be at it. Raises `StorageError`."""
        if self.helper:
            return True
        if not self.spec.dest:
            self.path = store.path()
            return True
        if self.undecided(context):
            return False
        dest = self.destination(context)
        other = self._elsewhere
        if other and store.published(dest, other.stamp):
            self.path, self.merged, self.written_by = dest, other.merged, other.node_id
            return True
        done = store.publish(dest, link=self.spec.link)
        self.path, self.merged = done.path, done.merged
        if self.place:
            self.stamp = stamp_of(dest)
        return True

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
