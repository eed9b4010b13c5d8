"""Transfers of libcurl that say nothing: the wait for an answer to begin, and a stall within one, are two things."""

from __future__ import annotations

import socket

import pycurl

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.sources.http_connections import watching

LOOKS = 4
"""So many looks in the time after which a transfer is given up."""


class StallDetector:
    """Of transfers under way; for one thread at a time. Times are seconds of the caller's clock."""

    def __init__(self, settings: OriginSettings) -> None:
        self._answer, self._stall = settings.answer_timeout, settings.read_timeout
        self._moved: dict[pycurl.Curl, tuple[float, int]] = {}
        """(when its last bytes were seen, how many there were by then)"""
        self._pause = min(1.0, min(self._answer, self._stall) / LOOKS)
        self._next = 0.0

    def begin(self, handle: pycurl.Curl, now: float) -> None:
        self._moved[handle] = (now, 0)

    def end(self, handle: pycurl.Curl) -> None:
        self._moved.pop(handle, None)

    def overdue(self, now: float) -> list[pycurl.Curl]:
        """Those whose answers do not begin, or do not go on."""
        if now < self._next:
            return []
        self._next = now + self._pause
        found = []
        for handle, (since, before) in self._moved.items():
            count = handle.getinfo(pycurl.SIZE_DOWNLOAD_T)
            if count != before:
                self._moved[handle] = (now, count)
            elif now - since > (self._stall if count else self._answer):
                found.append(handle)
        return found

    @property
    def pause(self) -> float:
        """Seconds between looks."""
        return self._pause

    def watch(self, descriptor: int, purpose: int) -> int:
        """libcurl's `SOCKOPTFUNCTION`: a connection whose other end is not there any more breaks."""
        sock = socket.socket(fileno=descriptor)
        try:
            for option in watching(self._stall):
                sock.setsockopt(*option)
        except OSError:
            pass  # no TCP
        finally:
            sock.detach()
        return 0
