"""What is made of a task's pieces on this node: finished files, stored once, and outputs."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from dragonfly_ray.errors import StorageError
from dragonfly_ray.model import Manifest, Task, digest
from dragonfly_ray.names import to_os
from dragonfly_ray.storage.data_files import PACK, VIEW, without_ctime
from dragonfly_ray.storage.dest_identity import stamp_of
from dragonfly_ray.storage.modes import Modes, shared
from dragonfly_ray.storage.name_limits import Trial, find_trials
from dragonfly_ray.storage.nofollow import opened
from dragonfly_ray.storage.output import Output, Published, destination_errors
from dragonfly_ray.storage.symlinks import check_links
from dragonfly_ray.storage.task_pieces import Store, TaskPieces

NOTE = "output-"
"""Names of links begin so that lead to an output under way."""


class TaskStore(TaskPieces):
    """A whole task: its pieces, and what they become."""

    def __init__(self, store: Store, folder: Path, task: Task, manifest: Manifest) -> None:
        super().__init__(store, folder, task, manifest)
        self._trials: Sequence[Trial] | None = None
        """None: not looked for yet."""
        self._inward = False
        """No symlink leads out of the folder: they have been followed."""
        with os.scandir(folder) as found:
            self._sweep({each.name for each in found})

    def finish(self) -> None:
        """All pieces are here: files become read-only, and the same content is stored once."""
        with self._errors(), self._data.lock:
            finished = self._data.numbers()
            modes = Modes(self.manifest, self._store.umask)
            for number in finished:
                if number == PACK:
                    os.chmod(self._data.path(PACK), 0o400)
                else:
                    self._finish_file(number, shared(modes.file(self.manifest.entries[number])))
                self._data.seal(number)
            self._note({file: self._data.mark(file) for file in finished})
            if self._store.settings.durable:
                self._sync(finished)

    def _finish_file(self, number: int, mode: int) -> None:
        """`mode`: what outputs that are links to it have."""
        path = self._data.path(number)
        key = self._content_key(number, mode)
        twin = self._store.twin(key, self, number) if key else None
        with contextlib.suppress(OSError):
            if twin is not None and not os.path.samefile(twin, path):
                draft = f"{path}.twin"
                Path(draft).unlink(missing_ok=True)
                os.link(twin, draft)
                os.replace(draft, path)
                self._store.files.forget(path)
                self._store.note_link(self._data.mark(number))
        found = os.stat(path)
        if found.st_nlink == 1:  # else it is somebody's output already, as its first task made it
            if stat.S_IMODE(found.st_mode) != mode:
                os.chmod(path, mode)
            mtime = self.manifest.entries[number].mtime_ns
            if mtime is not None and found.st_mtime_ns != mtime:
                os.utime(path, ns=(mtime, mtime))

    def _content_key(self, number: int, mode: int) -> bytes | None:
        """Equal for equal files of equal mode; None where the file shares a piece with its neighbours."""
        pieces = self.table.of_entry(number)
        start, end = self.table.starts[number], self.table.starts[number + 1]
        if not pieces or self.table.cuts[pieces.start] != start or self.table.cuts[pieces.stop] != end:
            return None
        found = [self.digests[i] or b"" for i in pieces]
        return digest(b"".join([*found, (end - start).to_bytes(8, "big"), mode.to_bytes(2, "big")]))

    def _sync(self, finished: list[int]) -> None:
        for file in finished:
            with self._store.files.use(self._data.path(file)) as fd:
                os.fdatasync(fd)
        self._journal.sync()

    # --- outputs ----------------------------------------------------------------------------

    def check_links(self, go_on: Callable[[], None] = lambda: None) -> None:
        """Raises `UnsafePathError` if a symlink leads out of the folder. `go_on` may raise to end it."""
        if not self._inward:
            check_links(self.manifest, go_on)
            self._inward = True

    def try_names(self, dest: Path, go_on: Callable[[], None] = lambda: None) -> None:
        """Raises `DestinationError` if the file system of `dest` does not hold all names: before they are fetched.

        `dest` need not be there yet; nothing is left there.
        """
        with destination_errors(dest):
            dest = dest.parent if dest.is_symlink() else dest
            while not os.path.isdir(dest):
                dest = dest.parent
            with opened(dest, follow=True) as root:
                self._output(link=False, go_on=go_on).try_names(root)

    def path(self, go_on: Callable[[], None] = lambda: None) -> Path:
        """A read-only file or folder inside the store, for those who gave no destination."""
        name = to_os(self.manifest.entries[0].path) if not self.task.directory else "content"
        view = self.folder / VIEW / name
        with self._errors():
            view.parent.mkdir(exist_ok=True)
            self._publish(view, link=True, go_on=go_on)
        return view

    def publish(
        self,
        dest: Path,
        *,
        link: bool = True,
        by: Path | None = None,
        umask: int | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> Published:
        """Makes the content visible at `dest`, whole or not at all. Raises `StorageError`.

        `by`: another way to the same place, such as an open folder. `umask`: of the caller; None: this process's
        own. `go_on` may raise to end it. Killed in the middle, the next process of this store removes what was not
        finished.
        """
        note = self.folder / f"{NOTE}{secrets.token_hex(8)}"
        with self._errors():
            note.symlink_to(dest)  # never torn, and written at once
        try:
            with self._errors():
                return self._publish(by or dest, link=link, umask=umask, go_on=go_on)
        finally:
            with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                note.unlink()

    def _publish(
        self, dest: Path, *, link: bool, umask: int | None = None, go_on: Callable[[], None] = lambda: None
    ) -> Published:
        if self.refresh() or not self.complete:
            raise StorageError(
                f"{self.task.url}: modified in the store, possibly through an earlier output; distribute it again"
            )
        marks: dict[int, bytes] = {}

        def linked(number: int) -> None:
            """Our own link has moved the file's ctime, and nothing else of it."""
            mark = self._data.mark(number)
            if mark and without_ctime(mark) == without_ctime(self._marks.get(number, b"")):
                marks[number] = mark
                self._store.note_link(mark)

        try:
            return self._output(link=link, umask=umask, linked=linked, go_on=go_on).publish(dest)
        finally:
            with contextlib.suppress(OSError):  # what is not noted is hashed again
                self._note(marks)

    def _sweep(self, names: set[str]) -> None:
        """After a kill: the drafts of outputs that were under way."""
        for note in [self.folder / name for name in names if name.startswith(NOTE)]:
            self._output(link=True).sweep(note.readlink())
            note.unlink()

    def published(self, dest: Path, stamp: str) -> bool:
        """Whether what another node has written there, and stamped so, is the output, visible from here."""
        return stamp_of(dest) == stamp and self._output(link=True).visible(dest)

    def _output(
        self,
        *,
        link: bool,
        umask: int | None = None,
        linked: Callable[[int], None] = lambda number: None,
        go_on: Callable[[], None] = lambda: None,
    ) -> Output:
        return Output(
            self.manifest,
            self._data.stored,
            link=link,
            durable=self._store.settings.durable,
            mark=self._store.host_id[:12],
            umask=self._store.umask,
            asked_umask=umask,
            linked=linked,
            go_on=go_on,
            trials=lambda: self.trials,
        )

    @property
    def trials(self) -> Sequence[Trial]:
        """Names that not every file system holds."""
        if self._trials is None:
            self._trials = find_trials(self.manifest.entries) if self.manifest.directory else ()
        return self._trials
