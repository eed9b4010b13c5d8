"""Looks and reads that are cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceError,
)
from dragonfly_ray.model import Credentials, PieceTable, Source
from dragonfly_ray.sources import Stop, open_reader, resolve
from tests.origins import ScriptedOrigin
from tests.reading import SETTINGS


def test_a_slow_look_ends_when_it_is_stopped(origin: ScriptedOrigin, tmp_path: Path) -> None:
    """An answer of unknown length, of which nothing more comes."""
    origin.behaviour.content = os.urandom(1 << 20)
    origin.behaviour.ranges = origin.behaviour.length = False
    origin.behaviour.stall = 1000
    stop, ended = Stop(), threading.Event()
    patient = OriginSettings(answer_timeout=60.0, read_timeout=60.0, retries=5)

    def resolve_it() -> None:
        with pytest.raises(SourceError):
            resolve(Source(origin.url), Credentials(), patient, spool=tmp_path, stop=stop)
        ended.set()

    asked = threading.Event()

    def before(number: int) -> int:
        asked.set()
        return 0

    origin.behaviour.before = before
    thread = threading.Thread(target=resolve_it)
    thread.start()
    assert asked.wait(20)
    stop.stop()
    assert ended.wait(20)
    thread.join()
    assert len(origin.requests) == 1, "it was not tried again"
    assert not list(tmp_path.iterdir())


def test_after_a_stop_nothing_is_asked(origin: ScriptedOrigin) -> None:
    stop = Stop()
    stop.stop()
    with pytest.raises(SourceError, match="read cancelled"):
        resolve(Source(origin.url), Credentials(), OriginSettings(), stop=stop)
    assert origin.requests == []


class Waiting(AsyncFileSystem):  # type: ignore[misc]
    """A filesystem on asyncio whose bytes never come."""

    protocol = "waiting"
    asked = threading.Event()

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": 100, "type": "file", "ETag": "v1"}

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        self.asked.set()
        await asyncio.Event().wait()
        return b""


def test_a_read_of_a_filesystem_on_asyncio_ends_when_it_is_stopped() -> None:
    fsspec.register_implementation("waiting", Waiting, clobber=True)
    source, credentials = Source("waiting://x/f"), Credentials()
    manifest = resolve(source, credentials, SETTINGS).manifest
    reader = open_reader(source, credentials, manifest, PieceTable.of(manifest), SETTINGS)
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(SourceError, match="read cancelled"):
            list(reader.read(0, 1, lambda index: memoryview(bytearray(100)), lambda count: None))
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert Waiting.asked.wait(20)
    reader.abort()
    assert ended.wait(20)
    thread.join()
    reader.close()
