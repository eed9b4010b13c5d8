"""Parts of files whose ranges an origin refuses: the whole file is asked for, and what stands before is skipped.

Whoever reads on takes the answer over where the last one left it, so that one reader fetches a file about once.
"""

from __future__ import annotations

import threading

from dragonfly_ray.sources.base import Stream
from dragonfly_ray.sources.http_body import Body


class SkippingStream(Stream):
    """`length` bytes of a whole file from `offset` on. `body` is at byte `at` of it.

    Raises `SourceError` where what stands before cannot be skipped.
    """

    def __init__(self, kept: WholeAnswers, url: str, body: Body, at: int, offset: int, length: int) -> None:
        self._kept, self._url, self._body = kept, url, body
        self._left = length
        self._broken = False
        try:
            body.skip(offset - at)
        except BaseException:
            body.close()
            raise
        self._at = offset
        self.asks = body.asks

    def readinto(self, view: memoryview) -> int:
        if not self._left:
            return 0
        self._broken = True
        count = self._body.readinto(view[: self._left])
        self._broken = not count
        self.asks = self._body.asks
        self._at += count
        self._left -= count
        return count

    def close(self) -> None:
        if self._broken or self._body.ended:
            self._body.close()
        else:
            self._kept.keep(self._url, self._body, self._at)


class WholeAnswers:
    """Answers under way, and how far each is read. Thread-safe; `most` are kept, the latest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: list[tuple[str, Body, int]] = []

    def keep(self, url: str, body: Body, at: int) -> None:
        with self._lock:
            self._kept.append((url, body, at))
            old = self._kept[: -self._most]
            del self._kept[: -self._most]
        for _, late, _ in old:
            late.close()

    def take(self, url: str, offset: int) -> tuple[Body, int] | None:
        """The one that is nearest before `offset`, and where it is."""
        with self._lock:
            fitting = [each for each in self._kept if each[0] == url and each[2] <= offset]
            if not fitting:
                return None
            found = max(fitting, key=lambda each: each[2])
            self._kept.remove(found)
        return found[1], found[2]

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for _, body, _ in kept:
            body.close()
