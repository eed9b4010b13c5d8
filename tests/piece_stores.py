"""Piece stores with content in them, for tests."""

from __future__ import annotations

import os
from pathlib import Path

from dragonfly_ray.config import StorageSettings
from dragonfly_ray.model import Entry, Manifest, PieceTable, Source, Task, digest
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore

BIG = os.urandom(1_500_000)
FILES = {"a/big": BIG, "a/small": b"small", "b/empty": b"", "b/mid": os.urandom(70_000), "c": b"c" * 100}


def manifest_of(files: dict[str, bytes], *, version: str = "v") -> Manifest:
    entries = [Entry(path, len(data), version) for path, data in sorted(files.items())]
    return Manifest(
        (*entries, Entry("none", kind="dir")) if len(files) > 1 else tuple(entries), len(files) > 1
    )


def task_of(manifest: Manifest, url: str = "http://o/x") -> Task:
    data, table = manifest.encode(), PieceTable.of(manifest)
    source = Source(url)
    return Task(manifest.task_id(source.id), source.id, url, "default", digest(data), len(data), table.size,
                len(table), len(manifest.entries), manifest.directory, True)  # fmt: skip


def fill(found: TaskStore, files: dict[str, bytes]) -> None:
    stream = b"".join(files[e.path] for e in found.manifest.entries if e.kind == "file")
    for piece in found.table:
        data = memoryview(stream)[piece.offset : piece.offset + piece.length]
        found.put(piece.index, data, digest(data))


def store_at(root: Path, **settings: object) -> PieceStore:
    return PieceStore(StorageSettings(root=root, **settings))


def complete(
    store: PieceStore, files: dict[str, bytes], url: str = "http://o/x", version: str = "v"
) -> TaskStore:
    manifest = manifest_of(files, version=version)
    found = store.open(task_of(manifest, url), manifest)
    fill(found, files)
    found.finish()
    return found


def assert_tree(path: Path, files: dict[str, bytes]) -> None:
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".dragonfly-*"))
