"""The newest of something that is made again and again, for as long as somebody looks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable

from dragonfly_ray.serve.background import Loop

log = logging.getLogger(__name__)


class Live:
    """A service. `make` is called once every `seconds` however many look, and not at all when nobody does."""

    def __init__(self, name: str, seconds: float, make: Callable[[], str]) -> None:
        self._seconds = seconds
        self._make = make
        self._lock = threading.Lock()
        self._viewers: set[_Viewer] = set()
        self._newest: tuple[float, str] | None = None
        self._loop = Loop(name, seconds, self._round)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    async def newest(self) -> AsyncGenerator[str]:
        """One after the other; who is slow gets the newest, and those between are left out."""
        viewer = _Viewer()
        with self._lock:
            self._viewers.add(viewer)
            first = len(self._viewers) == 1
            if self._newest and time.monotonic() - self._newest[0] < self._seconds:
                viewer.offer(self._newest[1])
        if first:
            self._loop.wake()
        try:
            while True:
                yield await viewer.take()
        finally:
            with self._lock:
                self._viewers.discard(viewer)

    def _round(self, stopping: threading.Event) -> None:
        if not self._viewers:
            return
        made = self._make()
        with self._lock:
            self._newest = (time.monotonic(), made)
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.offer(made)


class _Viewer:
    """`take` in its coroutine, `offer` in any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()
        self._text = ""

    def offer(self, text: str) -> None:
        self._text = text
        try:
            self._loop.call_soon_threadsafe(self._there.set)
        except RuntimeError:
            log.debug("a viewer's event loop has ended")

    async def take(self) -> str:
        await self._there.wait()
        self._there.clear()
        return self._text
