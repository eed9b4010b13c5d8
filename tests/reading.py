"""Looking at an origin and reading it, as a peer does."""

from __future__ import annotations

import os
from pathlib import Path

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Source
from dragonfly_ray.sources import Resolution, open_reader, resolve

SETTINGS = OriginSettings(answer_timeout=60.0, read_timeout=60.0, connect_timeout=60.0)
"""No test waits for these: a busy machine is no failure."""
CONTENT = os.urandom(3 * 1024 * 1024 + 17)


def look(
    url: str, spool: Path | None = None, small: int = 0, headers: dict[str, str] | None = None
) -> Resolution:
    return resolve(Source(url), Credentials({}, headers or {}), SETTINGS, small_limit=small, spool=spool)


def read_all(
    url: str, manifest: Manifest, first: int = 0, last: int | None = None, settings: OriginSettings = SETTINGS
) -> bytes:
    table = PieceTable.of(manifest)
    reader = open_reader(Source(url), Credentials(), manifest, table, settings)
    seen: list[int] = []
    data = bytearray()
    try:
        pieces = reader.read(
            first,
            len(table) if last is None else last,
            lambda i: memoryview(bytearray(table[i].length)),
            seen.append,
        )
        for _, view in pieces:
            data += view
    finally:
        reader.close()
    assert sum(seen) == len(data)
    return bytes(data)
