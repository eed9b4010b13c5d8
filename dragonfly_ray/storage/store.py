"""A node's piece store: a folder with one subfolder a task."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dragonfly_ray.config import StorageSettings
from dragonfly_ray.errors import InvalidRequestError, StorageError, StorageFullError
from dragonfly_ray.model import Manifest, Task, digest
from dragonfly_ray.private_folders import private_folder, root_of
from dragonfly_ray.storage import eviction
from dragonfly_ray.storage.data_files import inode
from dragonfly_ray.storage.dest_identity import boot_id as this_boot
from dragonfly_ray.storage.host_identity import host_identity
from dragonfly_ray.storage.manifest_paths import check_manifest
from dragonfly_ray.storage.media import medium
from dragonfly_ray.storage.open_files import OpenFiles
from dragonfly_ray.storage.os_errors import EXHAUSTED, storage_error, storage_errors
from dragonfly_ray.storage.task_pieces import JOURNAL, MANIFEST, TaskPieces
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.umask import current_umask

log = logging.getLogger(__name__)

TASK = "task"
SPOOL = "spool"
MOST_STORES = 1000


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes. `held`: of all tasks' content; `free`, `total`: of the file system."""

    held: int
    free: int
    total: int


class PieceStore:
    """Takes the first free `store-N` below the root, and holds it while the process lives.

    `host_id` belongs to the folder on this machine: it outlives processes and Ray's node ids. After a reboot
    everything is hashed again before it is used: what a crash of the machine left is not known.
    """

    def __init__(self, settings: StorageSettings, *, boot_id: str | None = None) -> None:
        self.settings = settings
        self.umask = current_umask()
        """Of this process, as it was started with."""
        self._medium = medium(settings.medium)
        self.path, self._lock_fd = _claim(self._medium.folder(root_of(settings)))
        self.files = OpenFiles()
        self.on_evicted: Callable[[Task], None] = lambda task: None
        """Told of every task that made room for another."""
        self._tasks: dict[str, TaskStore] = {}
        self._used: dict[str, float] = {}
        self._index = threading.Lock()
        """Of the three that follow; see `task_store` for the order of locks."""
        self._by_digest: dict[bytes, tuple[TaskPieces, int]] = {}
        self._twins: dict[bytes, tuple[TaskPieces, int]] = {}
        self._own: dict[bytes, bytes] = {}
        """File's number in the file system -> its mark, as our own last link left it."""
        self._gone: list[Task] = []
        """Evicted for others, and not told of yet."""
        self._unwanted: set[str] = set()
        """Tasks that go as soon as nobody uses them."""
        self._lock = threading.RLock()
        try:
            with storage_errors(str(self.path)):
                self.host_id = host_identity(self.path / "id", boot_id)
                self._pins: dict[str, dict[str, float | None]] = self._load_pins()
                self._load(self._rebooted(boot_id))
        except BaseException:
            self.close()  # or nobody else could have the folder while this process lives
            raise

    def __repr__(self) -> str:
        return f"PieceStore({self.path}: {len(self._tasks)} tasks)"

    # --- start ------------------------------------------------------------------------------

    def _rebooted(self, boot_id: str | None) -> bool:
        now = boot_id if boot_id is not None else this_boot()
        file = self.path / "boot"
        before = file.read_text() if file.exists() else now
        _write(file, now.encode())
        return before != now

    def _load(self, rebooted: bool) -> None:
        tasks = self.path / "tasks"
        tasks.mkdir(exist_ok=True)
        shutil.rmtree(self.path / SPOOL, ignore_errors=True)
        (self.path / SPOOL).mkdir()
        for folder in sorted(tasks.iterdir()):
            try:
                task = msgspec.msgpack.decode((folder / TASK).read_bytes(), type=Task)
                data = (folder / MANIFEST).read_bytes()
                manifest = Manifest.decode(data)
                # The id names the length of the pieces, too: another version may have cut them in another way.
                ids = {folder.name, task.id, manifest.task_id(task.source_id)}
                if len(ids) > 1 or digest(data) != task.manifest_digest:
                    raise ValueError("not the task that it claims to be, or stored by another version")
                found = TaskStore(self, folder, task, manifest)
            except (OSError, ValueError, msgspec.DecodeError) as error:
                if isinstance(error, OSError) and error.errno in EXHAUSTED:
                    raise storage_error(str(self.path), error) from None  # nothing is known of what is there
                log.warning("%s dropped: %s", folder, error)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._tasks[task.id] = found
            self._used[task.id] = (folder / JOURNAL).stat().st_mtime
            if rebooted:
                bad = found.recheck_all()
                if bad:
                    log.warning(
                        "%s: %d pieces do not match their digests after the reboot, dropped",
                        task.url,
                        len(bad),
                    )
            for index, known in enumerate(found.digests):
                if known is not None:
                    self._by_digest.setdefault(known, (found, index))

    def give_up_host_id(self) -> None:
        """Another host has it, too: whoever opens the store next gets another."""
        (self.path / "id").unlink(missing_ok=True)

    # --- tasks ------------------------------------------------------------------------------

    def tasks(self) -> list[TaskStore]:
        with self._lock:
            return list(self._tasks.values())

    def get(self, task_id: str) -> TaskStore | None:
        return self._tasks.get(task_id)

    def open(self, task: Task, manifest: Manifest, go_on: Callable[[], None] = lambda: None) -> TaskStore:
        """Resumes the task, or makes room for it. Raises `UnsafePathError`, `StorageFullError`, `StorageError`.

        The names of a new one are looked at first; `go_on` may raise to end that.
        """
        self._check(task, manifest, go_on)
        with self._telling(), self._lock:
            return self._open(task, manifest)

    @contextmanager
    def hold(
        self, task: Task, manifest: Manifest, go_on: Callable[[], None] = lambda: None
    ) -> Iterator[TaskStore]:
        """As `open`, and in use from the first moment on: nothing can evict what is about to be written."""
        self._check(task, manifest, go_on)
        with contextlib.ExitStack() as stack:
            with self._telling(), self._lock:
                found = stack.enter_context(self._open(task, manifest).using())
            yield found

    def _check(self, task: Task, manifest: Manifest, go_on: Callable[[], None]) -> None:
        """Without the lock: of many names it takes a while, and other tasks go on meanwhile."""
        if task.id not in self._tasks:
            check_manifest(manifest, go_on)

    def _open(self, task: Task, manifest: Manifest) -> TaskStore:
        self._unwanted.discard(task.id)
        found = self._tasks.get(task.id)
        if found is not None:
            return found
        self._make_room(task.size)
        final = self.path / "tasks" / task.id
        draft = self.path / SPOOL / secrets.token_hex(8)
        try:
            draft.mkdir(parents=True)
            (draft / MANIFEST).write_bytes(manifest.encode())
            (draft / TASK).write_bytes(msgspec.msgpack.encode(task))
            os.rename(draft, final)
            found = self._tasks[task.id] = TaskStore(self, final, task, manifest)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise storage_error(str(self.path), error) from None
        self._used[task.id] = time.time()
        return found

    def released(self, task: TaskPieces) -> None:
        """It was used until just now."""
        self._used[task.task.id] = time.time()
        if task.task.id in self._unwanted:
            self.give_up(task.task.id)

    # --- the same content -------------------------------------------------------------------

    def find(self, wanted: bytes) -> tuple[TaskPieces, int] | None:
        """A verified piece with this digest, in any task."""
        return self._by_digest.get(wanted)

    def learnt(self, found: bytes, task: TaskPieces, index: int) -> None:
        with self._index:
            self._by_digest.setdefault(found, (task, index))

    def unlearnt(self, found: bytes | None, task: TaskPieces, index: int) -> None:
        with self._index:
            if found is not None and self._by_digest.get(found) == (task, index):
                del self._by_digest[found]

    def twin(self, key: bytes, task: TaskPieces, number: int) -> str | None:
        """A finished file with the same content; where there is none, that of `task` is one from now on."""
        with self._index:
            found = self._twins.get(key)
        path = found[0].twin_path(found[1]) if found and found[0] is not task else None
        if path is None:
            with self._index:
                self._twins[key] = task, number
        return path

    def forget_files(self, task: TaskPieces, marks: Iterable[bytes]) -> None:
        """It is gone, with files of these marks."""
        with self._index:
            self._twins = {key: found for key, found in self._twins.items() if found[0] is not task}
            for mark in marks:
                self._own.pop(inode(mark), None)

    def note_link(self, mark: bytes) -> None:
        """We ourselves have just linked a file that was good; this is how it is now."""
        with self._index:
            self._own[inode(mark)] = mark

    def linked_by_us(self, mark: bytes) -> bool:
        """Whether a file is as our own last link left it."""
        return self._own.get(inode(mark)) == mark

    # --- pins -------------------------------------------------------------------------------

    def pin(self, task_id: str, owner: str, expires: float | None) -> None:
        """Keeps a task until `expires` (Unix time; None: until it is unpinned)."""
        with self._lock:
            if task_id not in self._tasks:
                raise InvalidRequestError(f"task {task_id[:12]} is not in the store {self.path}")
            self._pins.setdefault(task_id, {})[owner] = expires
            self._save_pins()

    def unpin(self, task_id: str, owner: str) -> None:
        with self._lock:
            owners = self._pins.get(task_id, {})
            owners.pop(owner, None)
            if not owners:
                self._pins.pop(task_id, None)
            self._save_pins()

    def pins(self, task_id: str) -> dict[str, float | None]:
        """Owner -> expiry, of the pins that hold."""
        now = time.time()
        return {o: e for o, e in self._pins.get(task_id, {}).items() if e is None or e > now}

    def _load_pins(self) -> dict[str, dict[str, float | None]]:
        try:
            data = (self.path / "pins").read_bytes()
            return msgspec.json.decode(data, type=dict[str, dict[str, float | None]])
        except (OSError, msgspec.DecodeError):
            return {}

    def _save_pins(self) -> None:
        _write(self.path / "pins", msgspec.json.encode(self._pins))

    # --- room -------------------------------------------------------------------------------

    def evict(self, task_id: str) -> int:
        """Drops a task; the bytes of content freed. Raises `InvalidRequestError` if it is kept."""
        with self._lock:
            found = self._tasks.get(task_id)
            if found is None:
                return 0
            if self.pins(task_id):
                owners = ", ".join(sorted(self.pins(task_id)))
                raise InvalidRequestError(f"{found.task.url}: is pinned by {owners}; unpin it first")
            if not found.retire():
                raise InvalidRequestError(f"{found.task.url}: is in use and cannot be evicted now")
            del self._tasks[task_id]
            self._used.pop(task_id, None)
            self._pins.pop(task_id, None)
            freed = sum(found.table[i].length for i in range(len(found.table)) if found.has(i))
            found.remove()
            return freed

    def give_up(self, task_id: str) -> bool:
        """Drops a task as soon as nobody uses it, unless it is opened again before. False: it stays, or is not here."""
        with self._lock:
            found = self._tasks.get(task_id)
            self._unwanted.discard(task_id)
            if found is None or self.pins(task_id):
                return False
            try:
                self.evict(task_id)
            except InvalidRequestError:
                self._unwanted.add(task_id)
            return True

    def make_room(self, need: int) -> None:
        """Evicts until `need` more bytes fit. Raises `StorageFullError` if they cannot."""
        with self._telling(), self._lock:
            self._make_room(need)

    def capacity(self) -> int:
        """Bytes of content that could be held at most, if all that is held now went."""
        free, total = self._medium.space(self.path)
        with self._lock:
            written = sum(_written(t) for t in self._tasks.values())
        most = max(0, free + written - int(total * self.settings.keep_free))
        return most if self.settings.quota is None else min(most, self.settings.quota)

    def spool_more(self, count: int) -> None:
        """Evicts until `count` more bytes fit into the spool, beside what lies there already.

        Raises `StorageFullError`.
        """
        with self._telling(), self._lock:
            self._make_room(count, self._spooled())

    def _spooled(self) -> int:
        with os.scandir(self.path / SPOOL) as found:
            return sum(each.stat().st_size for each in found if each.is_file(follow_symlinks=False))

    def _make_room(self, need: int, spooled: int = 0) -> None:
        """`spooled`: bytes that are written already, and count for the quota."""
        free, total = self._medium.space(self.path)
        held = sum(t.task.size for t in self._tasks.values())
        # What tasks under way have still to write is spoken for.
        owed = sum(t.table.size - _written(t) for t in self._tasks.values() if not t.complete)
        spare = int(total * self.settings.keep_free)
        over = max(0, need + owed - (free - spare))
        if self.settings.quota is not None:
            s = self.settings
            over = max(
                over, eviction.excess(held, need + spooled, self.settings.quota, s.high_water, s.low_water)
            )
        for task_id in eviction.choose(self._candidates(), over) if over else []:
            self._drop(task_id)
        self._check_room(need, owed, spare, spooled)

    def _check_room(self, need: int, owed: int, spare: int, spooled: int) -> None:
        free, _ = self._medium.space(self.path)
        held = sum(t.task.size for t in self._tasks.values())
        quota = self.settings.quota
        if quota is not None and held + spooled + need > quota:
            raise StorageFullError(
                f"{self.path}: {spooled + need:,} bytes exceed the quota of {quota:,} ({held:,} in use); "
                "raise storage.quota, or evict or unpin content"
            )
        if need + owed > free - spare:
            raise StorageFullError(
                f"{self.path}: {need:,} bytes do not fit: {free:,} free, {spare:,} of them reserved "
                f"(storage.keep_free) and {owed:,} reserved for running tasks; "
                "free disk space, or set storage.root"
            )

    def _candidates(self) -> list[eviction.Held]:
        return [
            eviction.Held(i, t.task.size, self._used.get(i, 0.0), bool(t.users or self.pins(i)))
            for i, t in self._tasks.items()
        ]

    def _drop(self, task_id: str) -> None:
        found = self._tasks.get(task_id)
        with contextlib.suppress(InvalidRequestError):
            self.evict(task_id)
            if found:
                log.info("%s evicted", found.task.url)
                self._gone.append(found.task)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tells of what is evicted inside, when the lock is free again: whoever hears of it may wait for others."""
        try:
            yield
        finally:
            while self._gone:
                with contextlib.suppress(IndexError):  # another thread was faster
                    self.on_evicted(self._gone.pop())

    def usage(self) -> Usage:
        free, total = self._medium.space(self.path)
        return Usage(sum(_written(t) for t in self.tasks()), free, total)

    def close(self) -> None:
        """Lets go of the folder; what is in it stays."""
        with self._lock:
            for task in self._tasks.values():
                task.close()
            self.files.close()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1


def _written(task: TaskStore) -> int:
    if task.complete:
        return task.table.size
    return min(task.table.size, task.count * task.table.leaf)


def _claim(root: Path) -> tuple[Path, int]:
    """The first store that no living process holds. Raises `StorageError`."""
    for number in range(MOST_STORES):
        folder = root / f"store-{number}"
        private_folder(folder)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return folder, descriptor
    raise StorageError(f"{root}: all {MOST_STORES} stores are in use")


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(data)
    os.replace(draft, path)
