"""One task's pieces on this node: data files, and a journal of what is verified.

Locks, in the order in which they are taken, over the whole store:

1. `PieceStore._lock`: which tasks there are, pins, room.
2. `DataFiles.lock`: a data file is being made, copied, finished or removed. May be held for long.
3. `TaskPieces._lock`: bits, digests, marks, the journal. Never held while content is read or copied.
4. `TaskPieces._life`, `PieceStore._index`, `OpenFiles._lock`: nothing is taken below them.

A thread that serves others (`has`, `reading`, `discard`) takes 3 and 4 only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from dragonfly_ray import bitset
from dragonfly_ray.config import StorageSettings
from dragonfly_ray.errors import DragonflyError, IntegrityError, StorageError
from dragonfly_ray.model import Manifest, PieceTable, Task, digest
from dragonfly_ray.storage import open_files
from dragonfly_ray.storage.data_files import DataFiles, mark_of
from dragonfly_ray.storage.journal import DISCARDED, FINISHED, HAVE, Journal, Record
from dragonfly_ray.storage.os_errors import EXHAUSTED, storage_error

JOURNAL, MANIFEST = "journal", "manifest"


class Extent(NamedTuple):
    """A stretch of an open file."""

    fd: int
    offset: int
    length: int


class Store(Protocol):
    """What a task needs of the store that it lies in; `PieceStore` says what each is."""

    path: Path
    settings: StorageSettings
    umask: int
    host_id: str
    files: open_files.OpenFiles

    def released(self, task: TaskPieces) -> None: ...

    def learnt(self, found: bytes, task: TaskPieces, index: int) -> None: ...

    def unlearnt(self, found: bytes | None, task: TaskPieces, index: int) -> None: ...

    def twin(self, key: bytes, task: TaskPieces, number: int) -> str | None: ...

    def forget_files(self, task: TaskPieces, marks: Iterable[bytes]) -> None: ...

    def note_link(self, mark: bytes) -> None: ...

    def linked_by_us(self, mark: bytes) -> bool: ...


class TaskPieces:
    """Thread-safe. A piece is invisible until `commit`; what is committed survives a killed process.

    Entries of at least `PACK_LIMIT` bytes are a file each, named by their number; the smaller ones
    lie in one pack file.
    """

    def __init__(self, store: Store, folder: Path, task: Task, manifest: Manifest) -> None:
        self.task = task
        self.manifest = manifest
        self.table = PieceTable.of(manifest)
        self.folder = folder
        self.manifest_file = folder / MANIFEST
        self._store = store
        self._data = DataFiles(folder, manifest, self.table, store.files)
        self._lock = threading.Lock()
        self._written = threading.Condition(self._lock)
        self._writing: set[int] = set()
        """Pieces that a thread is writing."""
        self._life = threading.Lock()
        self._bits = 0
        self.digests: list[bytes | None] = [None] * len(self.table)
        self.users = 0
        self.evicted = False
        self._marks: dict[int, bytes] = {}
        """Data file -> its state when its pieces were last known to be good."""
        self._proved: dict[int, tuple[bytes, ...]] = {}
        """Piece -> the state of its touched files in which it was hashed again, and was good."""
        self._journal = Journal(folder / JOURNAL, task.manifest_digest, store.files)
        self._resume()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.task.id[:12]}: {self.count}/{len(self.table)} pieces)"

    def _resume(self) -> None:
        for record in self._journal.records:
            if record.kind == FINISHED and any(record.data):
                self._marks[record.piece] = record.data
            elif record.kind == FINISHED:
                self._marks.pop(record.piece, None)
            elif record.piece < len(self.table):
                if record.kind == HAVE:
                    self._bits |= 1 << record.piece
                    self.digests[record.piece] = record.data
                else:
                    self._bits &= ~(1 << record.piece)
                    self.digests[record.piece] = None
        self._journal.records.clear()
        self.survey()

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

    @property
    def finished(self) -> bool:
        """Whether it was `finish`ed, by this process or an earlier one: whole, and compared with its origin's word."""
        return self.complete and all(file in self._marks for file in self._data.numbers())

    @contextmanager
    def using(self) -> Iterator[Self]:
        """Inside, the task is not evicted. Raises `StorageError` if it has been."""
        with self._life:
            if self.evicted:
                raise StorageError(f"{self.task.url}: was evicted")
            self.users += 1
        try:
            yield self
        finally:
            with self._life:
                self.users -= 1
            self._store.released(self)

    def retire(self) -> bool:
        """Whether it may be evicted now: nobody uses it, and from now on nobody can."""
        with self._life:
            self.evicted = not self.users
            return self.evicted

    # --- pieces in --------------------------------------------------------------------------

    def put(self, index: int, data: memoryview, found: bytes) -> bool:
        """Writes and commits a piece, unless it is here: whether it did. Raises as `write` does."""
        self._check_length(index, len(data))
        with self._alone_at(index) as missing:
            if missing:
                self._write(index, data)
                self.commit(index, found)
        return missing

    def write(self, index: int, data: memoryview) -> None:
        """The whole piece; not visible yet. Raises `IntegrityError` for another length, `StorageFullError`, `StorageError`."""
        self._check_length(index, len(data))
        with self._alone_at(index) as missing:
            if missing:
                self._write(index, data)

    @contextmanager
    def _alone_at(self, index: int) -> Iterator[bool]:
        """One thread writes a piece at a time. False: it is here, and its file may be somebody's output by now."""
        with self._written:
            while index in self._writing:
                self._written.wait()
            missing = not self.has(index)
            if missing:
                self._writing.add(index)
        try:
            yield missing
        finally:
            if missing:
                with self._written:
                    self._writing.discard(index)
                    self._written.notify_all()

    def _write(self, index: int, data: memoryview) -> None:
        at = 0
        with self._errors():
            for file, offset, length in self._data.places(index):
                self._make(file)
                with self._store.files.use(self._data.path(file)) as fd:
                    open_files.write_all(fd, data[at : at + length], offset)
                at += length

    def make(self, index: int) -> None:
        """The files that the piece lies in exist, whether any of it is here or not. Raises `StorageError`."""
        with self.using(), self._errors():
            for file in self._data.files_of(index):
                if not os.path.exists(self._data.path(file)):
                    self._make(file)

    def commit(self, index: int, found: bytes) -> None:
        """It is verified: `found` is its digest. From now on it may be served."""
        with self._errors(), self._lock:
            if self.has(index):
                return
            self._journal.append(Record(HAVE, index, found))
            self.digests[index] = found
            self._bits |= 1 << index
        self._store.learnt(found, self, index)

    def copy_from(self, other: TaskPieces, other_index: int, index: int) -> bool:
        """The same bytes, from another task of this store, unless they are here: whether it did. They are checked, then
        committed. Raises as `write` does."""
        self._check_length(index, other.table[other_index].length)
        with self._alone_at(index) as missing:
            if missing:
                self._copy_from(other, other_index, index)
        return missing

    def _copy_from(self, other: TaskPieces, other_index: int, index: int) -> None:
        wanted = other.digests[other_index]
        with self._errors(), other.reading(other_index) as extents:
            spans = [(e.fd, e.offset, e.length) for e in extents]
            for file, offset, length in self._data.places(index):
                self._make(file)
                with self._store.files.use(self._data.path(file)) as fd:
                    while length:
                        source, start, there = spans[0]
                        part = min(length, there)
                        open_files.copy(source, fd, start, part, offset)
                        offset, length = offset + part, length - part
                        spans[0] = (source, start + part, there - part)
                        if part == there:
                            spans.pop(0)
        if wanted is None or digest(self.read(index)) != wanted:
            raise StorageError(f"{self.task.url}: piece {index} does not match the other task's")
        self.commit(index, wanted)

    def _make(self, file: int) -> None:
        """The data file may be written to. What an output may have done to it is found out before."""
        if file in self._marks:
            if not self.unedited(file):
                self._recheck_file(file)
            with self._lock:
                self._marks.pop(file, None)
                self._journal.append(Record(FINISHED, file, b""))
            self._data.seal(file)
        self._data.make(file, self.has, self._forget)

    def _recheck_file(self, file: int) -> list[int]:
        """Its pieces that are not what they were; they are discarded."""
        self._store.files.forget(self._data.path(file))  # its name may mean another file now
        return [i for i in self._data.pieces_of(file) if self.has(i) and not self.recheck(i)]

    def _check_length(self, index: int, length: int) -> None:
        wanted = self.table[index].length
        if length != wanted:
            raise IntegrityError(f"{self.task.url}: piece {index} has {length:,} bytes instead of {wanted:,}")

    def discard(self, index: int) -> None:
        """The piece is not (or no longer) what it should be."""
        self._forget([index])

    def _forget(self, pieces: Iterable[int]) -> None:
        """Their files are looked at again before they are written to."""
        with self._errors(), self._lock:
            gone = [i for i in pieces if self.has(i)]
            if not gone:
                return
            self._journal.append(*(Record(DISCARDED, i, b"") for i in gone))
            for index in gone:
                self._bits &= ~(1 << index)
                self._store.unlearnt(self.digests[index], self, index)
                self.digests[index] = None
                self._proved.pop(index, None)
                for file in self._data.files_of(index):
                    self._data.unready(file)

    def verify(self, index: int) -> bool:
        """Whether the piece is still what it was. Raises `OSError` if it cannot be read: that is no verdict."""
        wanted = self.digests[index]
        try:
            with self.reading(index) as extents:
                return wanted is not None and digest(_read(extents)) == wanted
        except FileNotFoundError:
            return False

    def recheck(self, index: int) -> bool:
        """Whether the piece is still what it was; discards it if not, or if it cannot be read.

        Where this process is short of descriptors or memory nothing can be told, and it stays.
        """
        try:
            good = self.verify(index)
        except OSError as error:
            good = error.errno in EXHAUSTED
        if not good:
            self.discard(index)
        return good

    def recheck_all(self) -> list[int]:
        """The pieces that were not what they should be; they are discarded."""
        return [i for i in list(bitset.members(self._bits)) if not self.recheck(i)]

    def survey(self) -> None:
        """Discards pieces whose files are gone or cut short. Reads no content."""
        for file in self._data.numbers():
            path = self._data.path(file)
            try:
                size = os.stat(path).st_size
            except OSError:
                size = -1
                self._store.files.forget(path)  # what is still open is nobody's any more
            if size < self._data.size(file):
                self._forget(self._data.beyond(file, size))

    def refresh(self) -> list[int]:
        """Looks for edits through an output that shares its blocks; the pieces that suffered."""
        bad: list[int] = []
        for file in [f for f in list(self._marks) if not self.unedited(f)]:
            mark = self._data.mark(file)
            lost = self._recheck_file(file)
            bad += lost
            if not lost:
                self._note({file: mark})
        return bad

    def unedited(self, file: int) -> bool:
        """Whether nothing has touched a finished data file since it was known to be good, but we ourselves."""
        mark = self._data.mark(file)
        return bool(mark) and (mark == self._marks.get(file) or self._store.linked_by_us(mark))

    # --- pieces out -------------------------------------------------------------------------

    @contextmanager
    def reading(self, index: int) -> Iterator[list[Extent]]:
        """Where the piece lies in open files; they stay open, and the task stays, inside the block."""
        with self.using(), contextlib.ExitStack() as stack:
            fds: dict[int, int] = {}
            places = self._data.places(index)
            for file, _, _ in places:
                if file not in fds:
                    fds[file] = stack.enter_context(self._store.files.use(self._data.path(file)))
            yield [Extent(fds[file], offset, length) for file, offset, length in places]

    @contextmanager
    def serving(self, index: int) -> Iterator[list[Extent]]:
        """As `reading`, for other hosts: where somebody has touched a file, the piece is hashed again before.

        Raises `OSError` if it is not what it was, or cannot be read.
        """
        with self.reading(index) as extents:
            touched = self._touched(index, extents)
            if touched and self._proved.get(index) != touched:
                wanted = self.digests[index]
                if wanted is None or digest(_read(extents)) != wanted:
                    raise OSError(errno.EIO, "was modified through an output file")
                self._proved[index] = touched
            yield extents

    def _touched(self, index: int, extents: list[Extent]) -> tuple[bytes, ...]:
        """How its files are now that are not as we left them."""
        found = []
        for (file, _, _), extent in zip(self._data.places(index), extents, strict=True):
            known = self._marks.get(file)
            if known is not None:
                mark = mark_of(os.fstat(extent.fd))
                if mark != known and not self._store.linked_by_us(mark):
                    found.append(mark)
        return tuple(found)

    def read(self, index: int) -> bytes:
        """Raises `OSError`, `StorageError`."""
        with self.reading(index) as extents:
            data = _read(extents)
        if len(data) != self.table[index].length:
            raise StorageError(f"{self.task.url}: piece {index} is truncated in the store")
        return data

    def peek(self, index: int, offset: int, length: int) -> bytes | None:
        """`length` bytes of a piece from `offset` on; None where they are not here, or cannot be read."""
        if not self.has(index) or offset < 0 or offset + length > self.table[index].length:
            return None
        found = []
        try:
            with self.reading(index) as extents:
                for extent in extents:
                    skipped = min(offset, extent.length)
                    part = min(length, extent.length - skipped)
                    found.append(os.pread(extent.fd, part, extent.offset + skipped))
                    offset, length = offset - skipped, length - part
        except (OSError, StorageError):
            return None
        return None if length else b"".join(found)

    # --- the end ----------------------------------------------------------------------------

    def twin_path(self, number: int) -> str | None:
        """The finished file of an entry, for others to link to; None if it is not what it was."""
        whole = all(self.has(i) for i in self.table.of_entry(number))
        return self._data.path(number) if whole and not self.evicted and self.unedited(number) else None

    def _note(self, marks: dict[int, bytes]) -> None:
        """The state of data files whose pieces are all good."""
        with self._lock:
            news = {file: mark for file, mark in marks.items() if mark and self._marks.get(file) != mark}
            if news and not self.evicted:
                self._marks |= news
                self._journal.append(*(Record(FINISHED, file, mark) for file, mark in news.items()))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DragonflyError:
            raise
        except OSError as error:
            raise storage_error(f"{self._store.path}: {self.task.url}", error) from None

    def remove(self) -> None:
        """Of the store's eviction, after `retire`: everything of the task goes."""
        with self._data.lock, self._lock:
            for index in bitset.members(self._bits):
                self._store.unlearnt(self.digests[index], self, index)
            self._bits = 0
            self._store.forget_files(self, self._marks.values())
            self._journal.close()
            for path in self.folder.iterdir():
                self._store.files.forget(str(path))
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            self._journal.close()


def _read(extents: list[Extent]) -> bytes:
    return b"".join(os.pread(e.fd, e.length, e.offset) for e in extents)
