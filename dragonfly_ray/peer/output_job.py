"""One distribution's claim on a task at this peer: where its output goes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DestinationError, DragonflyError
from dragonfly_ray.names import inside, to_os
from dragonfly_ray.storage.dest_identity import place_of, stamp_of
from dragonfly_ray.storage.name_folding import check_spellings
from dragonfly_ray.storage.nofollow import behind, beneath
from dragonfly_ray.storage.output import destination_errors
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.urls import basename

if TYPE_CHECKING:
    from dragonfly_ray.peer.services import PeerServices


_PLACEHOLDER = re.compile(r"\{name\}|\{node\}")


class OutputJob:
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
        self._elsewhere: m.WrittenElsewhere | None = None
        self._looked = False

    def undecided(self, context: PeerServices) -> str:
        """The output's place, while it is open whether this node is to write it; else empty."""
        if not self._looked:
            self._looked = True
            if self.spec.dest and not self.helper and "{node}" not in self.spec.dest:
                with contextlib.suppress(
                    DragonflyError, OSError
                ):  # publishing will say what is wrong with it
                    dest = self.destination(context)
                    with self._way(dest) as way:
                        self.place = place_of(way, link=self.spec.link, umask=self.spec.umask)
        return self.place if not self.told or self._waits() else ""

    def decided(self, elsewhere: m.WrittenElsewhere | None) -> None:
        """None: this node writes."""
        self.told, self._elsewhere = True, elsewhere

    def _waits(self) -> bool:
        return self._elsewhere is not None and not self._elsewhere.stamp

    def publish(self, context: PeerServices, store: TaskStore) -> bool:
        """Makes the output visible, whole; False while another node may be at it. Raises `StorageError`."""
        if self.helper:
            return True
        self.check_links(store)
        if not self.spec.dest:
            self.path = store.path(self.go_on)
            return True
        if self.undecided(context):
            return False
        dest = self.destination(context)
        other = self._elsewhere
        with destination_errors(dest), self._way(dest) as way:
            if other and store.published(way, other.stamp):
                self.path, self.merged, self.written_by = dest, other.merged, other.node_id
                return True
            place = way if self.spec.dest_roots is None else dest
            umask = self.spec.umask
            done = store.publish(place, link=self.spec.link, by=way, umask=umask, go_on=self.go_on)
            self.path, self.merged = dest, done.merged
            if self.place:
                self.stamp = stamp_of(way)
        return True

    def refuse(self, context: PeerServices, store: TaskStore) -> None:
        """Raises for what cannot be written here, before it is fetched."""
        if self.helper:
            return
        self.check_links(store)
        if self.spec.dest:
            dest = self.destination(context)
            if store.trials:
                with destination_errors(dest), self._way(dest) as way:
                    store.try_names(way, self.go_on)
            if self.spec.beside and "{name}" in self.spec.dest:
                with destination_errors(dest), self._way(dest) as way:
                    check_spellings(way.parent, [self._name(context), *self.spec.beside])

    def check_links(self, store: TaskStore) -> None:
        """Raises `UnsafePathError` for a symlink that leads out of the folder, unless whoever asked wants them as
        they are, and no policy or root binds them."""
        spec = self.spec
        kept = spec.source.links == "keep" and spec.policy is None and spec.dest_roots is None
        if not kept:
            store.check_links(self.go_on)

    def go_on(self) -> None:
        """Raises `DragonflyError` once it is over: ends long work for it."""
        if self.over:
            raise DragonflyError(f"{self.message.task.url}: no longer needed")

    def _way(self, dest: Path) -> AbstractContextManager[Path]:
        """Where roots came with the order, no link is followed below them; else one to a folder is this folder."""
        roots = self.spec.dest_roots
        return nullcontext(behind(dest)) if roots is None else beneath(dest, roots)

    def destination(self, context: PeerServices) -> Path:
        """`dest` with its placeholders filled in; below the allowed roots. Raises `DestinationError`.

        A file goes into the folder, under its name, where `dest` ends with `/` or is a link to one.
        """
        text, spec, file = self.spec.dest, self.spec, not self.message.task.directory
        values = {"{name}": self._name(context) if "{name}" in text else "", "{node}": context.node_id}
        path = Path(to_os(_PLACEHOLDER.sub(lambda found: values[found[0]], text)))
        if file and text.endswith("/"):
            path = path / to_os(self._name(context))
        if not path.is_absolute() or ".." in path.parts:
            raise DestinationError(
                f"{context.node_name}: dest {text!r} must be an absolute path without '..'"
            )
        if spec.dest_roots is None:
            roots: Sequence[str] = context.settings.peer.dest_roots
            allowed = any(path.is_relative_to(root) for root in roots)
        else:
            roots = spec.dest_roots
            allowed = inside(str(path), roots) is not None
        if not allowed:
            raise DestinationError(
                f"{context.node_name}: dest {text!r} is outside the allowed dest roots"
                f" ({os.pathsep.join(roots) or 'none'})"
            )
        if spec.dest_roots is None:
            into_folder = behind(path) != path and file and not text.endswith("/")
            return path / to_os(self._name(context)) if into_folder else path
        return path

    def _name(self, context: PeerServices) -> str:
        """The source's own."""
        name = basename(self.spec.source.url)
        if name in (".", "..") or "/" in name or "\0" in name:
            raise DestinationError(
                f"{context.node_name}: cannot derive a file name from the URL ({name!r}); set dest"
            )
        return name
