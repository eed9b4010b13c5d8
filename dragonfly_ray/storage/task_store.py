"""One task's pieces on this node: data files, a journal of what is verified, outputs made from them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dragonfly_ray.errors import StorageError, StorageFullError
from dragonfly_ray.model import DIGEST_SIZE, PACK_LIMIT, Manifest, PieceTable, Task, digest
from dragonfly_ray.scheduling import bits as bitset
from dragonfly_ray.storage import files
from dragonfly_ray.storage.journal import DISCARDED, FINISHED, HAVE, Journal, Record
from dragonfly_ray.storage.output import Output, Published, Stored
from dragonfly_ray.storage.place import stamp_of

if TYPE_CHECKING:
    from dragonfly_ray.storage.store import PieceStore

PACK = 0xFFFFFFFF
"""The number of the pack file, where entries have their own."""
_MARK = struct.Struct("!QQ")
NOTE = "output-"
"""Names of links begin so that lead to an output under way."""
JOURNAL, MANIFEST, PACK_NAME, VIEW = "journal", "manifest", "pack", "view"


class Extent(NamedTuple):
    """A stretch of an open file."""

    fd: int
    offset: int
    length: int


class TaskStore:
    """Thread-safe. A piece is invisible until `commit`; what is committed survives a killed process.

    Entries of at least `PACK_LIMIT` bytes are a file each, named by their number; the smaller ones
    lie in one pack file.
    """

    def __init__(self, store: PieceStore, folder: Path, task: Task, manifest: Manifest) -> None:
        self.task = task
        self.manifest = manifest
        self.table = PieceTable.of(manifest)
        self.folder = folder
        self._base = str(folder)
        self._pack = folder / PACK_NAME
        self.manifest_file = folder / MANIFEST
        self._store = store
        self._lock = threading.RLock()
        self._bits = 0
        self.digests: list[bytes | None] = [None] * len(self.table)
        self.users = 0
        self.evicted = False
        self._ready: set[int] = set()
        """Data files that exist."""
        self._marks: dict[int, bytes] = {}
        self._pack_at: dict[int, int] = {}
        at = 0
        for number, entry in enumerate(manifest.entries):
            if entry.kind == "file" and entry.size < PACK_LIMIT:
                self._pack_at[number] = at
                at += entry.size
        self._pack_size = at
        self._journal = Journal(folder / JOURNAL, task.manifest_digest)
        self._resume()

    def __repr__(self) -> str:
        return f"TaskStore({self.task.id[:12]}: {self.count}/{len(self.table)} pieces)"

    def _resume(self) -> None:
        for record in self._journal.records:
            if record.kind == FINISHED:
                self._marks[record.piece] = record.data
            elif record.piece < len(self.table):
                if record.kind == HAVE:
                    self._bits |= 1 << record.piece
                    self.digests[record.piece] = record.data
                else:
                    self._bits &= ~(1 << record.piece)
                    self.digests[record.piece] = None
        self._journal.records.clear()
        present = {path.name for path in self.folder.iterdir()}
        self._sweep(present)
        lost = [
            i
            for i in bitset.members(self._bits)
            if not all(self._name(f) in present for f in self._files_of(i))
        ]
        self._forget(lost)

    # --- what is here -----------------------------------------------------------------------

    def have(self) -> bytes:
        """A bitmap, piece 0 in the lowest bit of the first byte."""
        return bitset.to_bytes(self._bits, len(self.table))

    def has(self, index: int) -> bool:
        return bool(self._bits >> index & 1)

    @property
    def count(self) -> int:
        return self._bits.bit_count()

    @property
    def complete(self) -> bool:
        return self.count == len(self.table)

    @contextmanager
    def using(self) -> Iterator[TaskStore]:
        """Inside, the task is not evicted. Raises `StorageError` if it has been."""
        with self._lock:
            if self.evicted:
                raise StorageError(f"{self.task.url}: was evicted")
            self.users += 1
        try:
            yield self
        finally:
            with self._lock:
                self.users -= 1
            self._store.released(self)

    # --- pieces in --------------------------------------------------------------------------

    def put(self, index: int, data: memoryview, found: bytes) -> None:
        self.write(index, data)
        self.commit(index, found)

    def write(self, index: int, data: memoryview) -> None:
        """The whole piece; not visible yet. Raises `StorageFullError`, `StorageError`."""
        at = 0
        with self._errors():
            for file, offset, length in self._places(index):
                self._make(file)
                with self._store.files.use(self._path(file)) as fd:
                    files.write_all(fd, data[at : at + length], offset)
                at += length

    def commit(self, index: int, found: bytes) -> None:
        """It is verified: `found` is its digest. From now on it may be served."""
        with self._errors(), self._lock:
            if self.has(index):
                return
            self._journal.append(Record(HAVE, index, found))
            self.digests[index] = found
            self._bits |= 1 << index
        self._store.learnt(found, self, index)

    def copy_from(self, other: TaskStore, other_index: int, index: int) -> None:
        """The same bytes, from another task of this store; checked, then committed."""
        wanted = other.digests[other_index]
        with self._errors(), other.reading(other_index) as extents:
            spans = [(e.fd, e.offset, e.length) for e in extents]
            for file, offset, length in self._places(index):
                self._make(file)
                with self._store.files.use(self._path(file)) as fd:
                    while length:
                        source, start, there = spans[0]
                        part = min(length, there)
                        files.copy(source, fd, start, part, offset)
                        offset, length = offset + part, length - part
                        spans[0] = (source, start + part, there - part)
                        if part == there:
                            spans.pop(0)
        if wanted is None or digest(self.read(index)) != wanted:
            raise StorageError(f"{self.task.url}: piece {index} is not what the other task had")
        self.commit(index, wanted)

    def discard(self, index: int) -> None:
        """The piece is not (or no longer) what it should be."""
        self._forget([index])

    def _forget(self, pieces: list[int]) -> None:
        with self._errors(), self._lock:
            gone = [i for i in pieces if self.has(i)]
            if not gone:
                return
            self._journal.append(*(Record(DISCARDED, i, b"") for i in gone))
            for index in gone:
                self._bits &= ~(1 << index)
                self._store.unlearnt(self.digests[index], self, index)
                self.digests[index] = None
            for file in {f for i in gone for f in self._files_of(i)}:
                self._unshare(file)

    def recheck(self, index: int) -> bool:
        """Whether the piece is still what it was; discards it if not."""
        wanted = self.digests[index]
        try:
            good = wanted is not None and digest(self.read(index)) == wanted
        except (OSError, StorageError):
            good = False
        if not good:
            self.discard(index)
        return good

    def recheck_all(self) -> list[int]:
        """The pieces that were not what they should be; they are discarded."""
        return [i for i in list(bitset.members(self._bits)) if not self.recheck(i)]

    def refresh(self) -> list[int]:
        """Looks for edits through an output that shares its blocks; the pieces that suffered."""
        bad: list[int] = []
        for file, mark in list(self._marks.items()):
            if self._mark(file) != mark:
                bad += [i for i in self._pieces_of(file) if self.has(i) and not self.recheck(i)]
                self._marks.pop(file, None)
        return bad

    # --- pieces out -------------------------------------------------------------------------

    @contextmanager
    def reading(self, index: int) -> Iterator[list[Extent]]:
        """Where the piece lies in open files; they stay open, and the task stays, inside the block."""
        with self.using(), contextlib.ExitStack() as stack:
            fds: dict[int, int] = {}
            places = self._places(index)
            for file, _, _ in places:
                if file not in fds:
                    fds[file] = stack.enter_context(self._store.files.use(self._path(file)))
            yield [Extent(fds[file], offset, length) for file, offset, length in places]

    def read(self, index: int) -> bytes:
        """Raises `OSError`, `StorageError`."""
        with self.reading(index) as extents:
            data = b"".join(os.pread(e.fd, e.length, e.offset) for e in extents)
        if len(data) != self.table[index].length:
            raise StorageError(f"{self.task.url}: piece {index} is cut short in the store")
        return data

    # --- the end ----------------------------------------------------------------------------

    def finish(self) -> None:
        """All pieces are here: files become read-only, and the same content is stored once."""
        with self._errors(), self._lock:
            finished = []
            for number, entry in enumerate(self.manifest.entries):
                if entry.kind == "file" and entry.size >= PACK_LIMIT:
                    self._finish_file(number, 0o444 | ((entry.mode or 0) & 0o111))
                    finished.append(number)
            if self._pack_size:
                os.chmod(self._path(PACK), 0o444)
                finished.append(PACK)
            self._note(finished)
            if self._store.settings.durable:
                self._sync()

    def _finish_file(self, number: int, mode: int) -> None:
        path = self._path(number)
        key = self._content_key(number)
        twin = self._store.twin(key, path) if key else None
        if twin is not None and os.stat(twin).st_ino != os.stat(path).st_ino:
            draft = f"{path}.twin"
            with contextlib.suppress(OSError):
                Path(draft).unlink(missing_ok=True)
                os.link(twin, draft)
                os.replace(draft, path)
                self._store.files.forget(path)
        found = os.stat(path)
        if found.st_nlink == 1:  # else it is somebody's output already, as its first task made it
            if stat.S_IMODE(found.st_mode) != mode:
                os.chmod(path, mode)
            mtime = self.manifest.entries[number].mtime_ns
            if mtime is not None and found.st_mtime_ns != mtime:
                os.utime(path, ns=(mtime, mtime))

    def _content_key(self, number: int) -> bytes | None:
        """Equal for equal files; None where the file shares a piece with its neighbours."""
        pieces = self.table.of_entry(number)
        start, end = self.table.starts[number], self.table.starts[number + 1]
        if not pieces or self.table.cuts[pieces.start] != start or self.table.cuts[pieces.stop] != end:
            return None
        found = [self.digests[i] or b"" for i in pieces]
        mode = (self.manifest.entries[number].mode or 0) & 0o111
        return digest(b"".join([*found, (end - start).to_bytes(8, "big"), bytes([mode])]))

    def _note(self, finished: list[int]) -> None:
        marks = {file: mark for file in finished if self._marks.get(file) != (mark := self._mark(file))}
        self._marks |= marks
        if marks:
            self._journal.append(*(Record(FINISHED, file, mark) for file, mark in marks.items()))

    def _mark(self, file: int) -> bytes:
        try:
            found = os.stat(self._path(file))
        except OSError:
            return b""
        return _MARK.pack(found.st_mtime_ns, found.st_size).ljust(DIGEST_SIZE, b"\0")

    def _sync(self) -> None:
        for file in [n for n in range(len(self.manifest.entries)) if n in self._ready] + [PACK]:
            if os.path.exists(self._path(file)):
                with self._store.files.use(self._path(file)) as fd:
                    os.fdatasync(fd)
        self._journal.sync()

    def path(self) -> Path:
        """A read-only file or folder inside the store, for those who gave no destination."""
        name = self.manifest.entries[0].path if not self.task.directory else "content"
        view = self.folder / VIEW / name
        view.parent.mkdir(exist_ok=True)
        with self._errors():
            self._output(link=True).publish(view)
        return view

    def publish(self, dest: Path, *, link: bool = True, by: Path | None = None) -> Published:
        """Makes the content visible at `dest`, whole or not at all. Raises `StorageError`.

        `by`: another way to the same place, such as an open folder. Killed in the middle, the next process of this store removes what was not finished.
        """
        note = self.folder / f"{NOTE}{secrets.token_hex(8)}"
        with self._errors():
            note.symlink_to(dest)  # never torn, and written at once
        try:
            return self._output(link=link).publish(by or dest)
        finally:
            with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                note.unlink()

    def _sweep(self, names: set[str]) -> None:
        """After a kill: the drafts of outputs that were under way."""
        for note in [self.folder / name for name in names if name.startswith(NOTE)]:
            self._output(link=True).sweep(note.readlink())
            note.unlink()

    def published(self, dest: Path, stamp: str) -> bool:
        """Whether what another node has written there, and stamped so, is the output, visible from here."""
        return stamp_of(dest) == stamp and self._output(link=True).visible(dest)

    def _output(self, *, link: bool) -> Output:
        durable, mark = self._store.settings.durable, self._store.host_id[:12]
        return Output(self.manifest, self._stored, link=link, durable=durable, mark=mark)

    def _stored(self, number: int) -> Stored:
        packed = self._pack_at.get(number)
        if packed is not None:
            return Stored(self._pack, packed, whole=False)
        return Stored(self.folder / self._name(number), 0, whole=True)

    # --- files ------------------------------------------------------------------------------

    def _name(self, file: int) -> str:
        return PACK_NAME if file == PACK else f"{file}"

    def _path(self, file: int) -> str:
        return f"{self._base}/{self._name(file)}"

    def _places(self, index: int) -> list[tuple[int, int, int]]:
        """(file, offset in it, length) of each stretch of a piece: neighbours in the pack are one."""
        found: list[tuple[int, int, int]] = []
        for entry, offset, length in self.table.segments(index):
            at = self._pack_at.get(entry)
            if at is None:
                found.append((entry, offset, length))
            elif found and found[-1][0] == PACK and found[-1][1] + found[-1][2] == at + offset:
                found[-1] = PACK, found[-1][1], found[-1][2] + length
            else:
                found.append((PACK, at + offset, length))
        return found

    def _files_of(self, index: int) -> set[int]:
        return {file for file, _, _ in self._places(index)}

    def _pieces_of(self, file: int) -> list[int]:
        if file != PACK:
            return list(self.table.of_entry(file))
        return sorted({i for number in self._pack_at for i in self.table.of_entry(number)})

    def _make(self, file: int) -> None:
        """The file exists, reserved in full length."""
        if file in self._ready:
            return
        with self._lock:
            if file in self._ready:
                return
            path = self._path(file)
            size = self._pack_size if file == PACK else self.manifest.entries[file].size
            with self._store.files.use(path, create=True) as fd:
                found = os.fstat(fd)
                if found.st_size < size:
                    files.allocate(fd, size)
            if found.st_nlink > 1 or not found.st_mode & stat.S_IWUSR:
                self._unshare(file)
            self._ready.add(file)

    def _unshare(self, file: int) -> None:
        """Gives the file blocks of its own again: somebody's output must not change under them."""
        path = self._path(file)
        self._marks.pop(file, None)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            self._store.files.forget(path)
            self._ready.discard(file)
            return
        if found.st_nlink == 1 and found.st_mode & stat.S_IWUSR:
            return
        size = self._pack_size if file == PACK else self.manifest.entries[file].size
        draft = f"{path}.own"
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            files.copy(source, target, 0, min(size, found.st_size))
            os.ftruncate(target, size)
        finally:
            os.close(source)
            os.close(target)
        os.replace(draft, path)
        self._store.files.forget(path)
        shutil.rmtree(self.folder / VIEW, ignore_errors=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            where = f"{self._store.path}: {self.task.url}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"{where}: the disk is full; free some space, or set storage.root or storage.quota"
                raise StorageFullError(text) from None
            raise StorageError(f"{where}: {error.strerror or error}") from None

    def remove(self) -> None:
        """Of the store's eviction: everything of the task goes."""
        with self._lock:
            self.evicted = True
            for index in bitset.members(self._bits):
                self._store.unlearnt(self.digests[index], self, index)
            self._bits = 0
            self._journal.close()
            for path in self.folder.iterdir():
                self._store.files.forget(str(path))
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            self._journal.close()
