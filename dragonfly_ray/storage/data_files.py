"""Where a task's bytes lie: a file for each entry of at least `PACK_LIMIT` bytes, and one pack for the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dragonfly_ray.model import PACK_LIMIT, Manifest, PieceTable
from dragonfly_ray.storage import open_files as io
from dragonfly_ray.storage.os_errors import EXHAUSTED, FULL_DISK
from dragonfly_ray.storage.output import Stored

PACK = 0xFFFFFFFF
"""The number of the pack file, where entries have their own."""
KEPT_PLACES = 64
"""Pieces whose places are remembered."""
PACK_NAME, VIEW = "pack", "view"
_MARK = struct.Struct("!QQQQ")
_U64 = (1 << 64) - 1

Forget = Callable[[list[int]], None]


def mark_of(found: os.stat_result) -> bytes:
    return _MARK.pack(found.st_mtime_ns & _U64, found.st_size, found.st_ctime_ns & _U64, found.st_ino)


def without_ctime(mark: bytes) -> bytes:
    """What a link to the file does not change."""
    return mark[:16] + mark[24:]


def inode(mark: bytes) -> bytes:
    """The file's number in its file system."""
    return mark[24:]


class DataFiles:
    """The data files of one task. `lock` is held while one of them is made, copied, finished or removed."""

    def __init__(self, folder: Path, manifest: Manifest, table: PieceTable, files: io.OpenFiles) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self._base = str(folder)
        self._pack = folder / PACK_NAME
        self._manifest = manifest
        self._table = table
        self._files = files
        self._ready: set[int] = set()
        """Those that may be written to."""
        self._sealed: set[int] = set()
        """Those that were whole: somebody may have a link to them, or read them."""
        self._pack_at: dict[int, int] = {}
        at = 0
        for number, entry in enumerate(manifest.entries):
            if entry.kind == "file" and entry.size < PACK_LIMIT:
                self._pack_at[number] = at
                at += entry.size
        self.pack_size = at
        self._places: dict[int, tuple[tuple[int, int, int], ...]] = {}
        """Of the pieces that were asked for last: one may hold thousands of files, and is asked for once for each."""

    # --- names and places -------------------------------------------------------------------

    def name(self, file: int) -> str:
        return PACK_NAME if file == PACK else f"{file}"

    def path(self, file: int) -> str:
        return f"{self._base}/{self.name(file)}"

    def size(self, file: int) -> int:
        return self.pack_size if file == PACK else self._manifest.entries[file].size

    def numbers(self) -> list[int]:
        """All that the task has when it is complete."""
        whole = [
            number
            for number, entry in enumerate(self._manifest.entries)
            if entry.kind == "file" and entry.size >= PACK_LIMIT
        ]
        return [*whole, PACK] if self.pack_size else whole

    def stored(self, number: int) -> Stored:
        """Where the bytes of an entry are."""
        packed = self._pack_at.get(number)
        if packed is not None:
            return Stored(self._pack, packed, whole=False)
        return Stored(self.folder / self.name(number), 0, whole=True)

    def places(self, index: int) -> Sequence[tuple[int, int, int]]:
        """(file, offset in it, length) of each stretch of a piece: neighbours in the pack are one."""
        found = self._places.get(index)
        if found is None:
            found = tuple(self._found_places(index))
            if len(self._places) >= KEPT_PLACES:
                self._places.clear()
            self._places[index] = found
        return found

    def _found_places(self, index: int) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        for entry, offset, length in self._table.segments(index):
            at = self._pack_at.get(entry)
            if at is None:
                found.append((entry, offset, length))
            elif found and found[-1][0] == PACK and found[-1][1] + found[-1][2] == at + offset:
                found[-1] = PACK, found[-1][1], found[-1][2] + length
            else:
                found.append((PACK, at + offset, length))
        return found

    def files_of(self, index: int) -> set[int]:
        return {file for file, _, _ in self.places(index)}

    def pieces_of(self, file: int) -> list[int]:
        if file != PACK:
            return list(self._table.of_entry(file))
        return sorted({i for number in self._pack_at for i in self._table.of_entry(number)})

    def beyond(self, file: int, size: int) -> list[int]:
        """The pieces that a file of `size` bytes does not hold whole, though it should."""
        if size >= self.size(file):
            return []
        return [
            i
            for i in self.pieces_of(file)
            if any(f == file and offset + length > size for f, offset, length in self.places(i))
        ]

    def mark(self, file: int) -> bytes:
        """Changes whenever somebody writes to the file, whatever they do to its times; empty if it is gone."""
        try:
            return mark_of(os.stat(self.path(file)))
        except OSError:
            return b""

    # --- writing ----------------------------------------------------------------------------

    def make(self, file: int, held: Callable[[int], bool], forget: Forget) -> None:
        """The file is there in full length, with blocks of its own: somebody's output must not change under them.

        `forget` is told of held pieces that are lost, before they could be read as zeros. Raises `OSError`.
        """
        if file in self._ready:
            return
        with self.lock:
            if file in self._ready:
                return
            path, size = self.path(file), self.size(file)
            try:
                found = os.stat(path)
            except FileNotFoundError:
                self._files.forget(path)
                forget([i for i in self.pieces_of(file) if held(i)])
            else:
                forget([i for i in self.beyond(file, found.st_size) if held(i)])
                sealed = file in self._sealed or not found.st_mode & stat.S_IWUSR
                if sealed or found.st_nlink > 1:
                    self._unshare(file, min(size, found.st_size), held, forget)
            with self._files.use(path, os.O_CREAT) as fd:
                if os.fstat(fd).st_size < size:
                    io.allocate(fd, size)
            self._sealed.discard(file)
            self._ready.add(file)

    def seal(self, file: int) -> None:
        """It is never written to again: what comes later goes into a copy of it."""
        self._sealed.add(file)
        self._ready.discard(file)

    def unready(self, file: int) -> None:
        """Before it is written to again it is looked at again."""
        self._ready.discard(file)

    def _unshare(self, file: int, length: int, held: Callable[[int], bool], forget: Forget) -> None:
        path = self.path(file)
        draft = f"{path}.own"
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                forget(self._copy(source, target, file, length, held))
                os.ftruncate(target, self.size(file))
            finally:
                os.close(target)
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        finally:
            os.close(source)
        self._files.forget(path)
        shutil.rmtree(self.folder / VIEW, ignore_errors=True)

    def _copy(
        self, source: int, target: int, file: int, length: int, held: Callable[[int], bool]
    ) -> list[int]:
        """The pieces that could not be read, where not all of the file can."""
        try:
            io.copy(source, target, 0, length)
            return []
        except OSError as error:
            if error.errno in FULL_DISK | EXHAUSTED:
                raise
        lost: list[int] = []
        for index in self.pieces_of(file):
            if not held(index):
                continue
            try:
                for number, offset, part in self.places(index):
                    if number == file:
                        io.copy(source, target, offset, part, offset)
            except OSError as error:
                if error.errno in FULL_DISK | EXHAUSTED:
                    raise
                lost.append(index)
        return lost
