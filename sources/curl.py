"""libcurl for many small files at once over a few kept connections: whole bodies, straight into their buffers.

Of the extra `curl`. Without it `OneByOne` stands in: every request goes its way alone, with the care that single files get.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pycurl

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceForbiddenError
from dragonfly_ray.policy import Rules
from dragonfly_ray.sources.batch_requests import BUFFER, BUSY, R
from dragonfly_ray.sources.proxies import Proxy
from dragonfly_ray.sources.stall_detection import StallDetector

WAIT = 1.0
"""Seconds after which a quiet round looks whether it is still wanted."""


class ManyFiles:
    """For one thread at a time. Connections are kept between calls, as many as the last one might use."""

    def __init__(
        self,
        headers: Mapping[str, str],
        settings: OriginSettings,
        known: Rules | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._rules = known
        self._proxy = proxy
        self._headers = [f"{name}: {value}" for name, value in headers.items()]
        self._settings = settings
        self._multi = pycurl.CurlMulti()
        self._idle: list[pycurl.Curl] = []
        self._silences = StallDetector(settings)

    def fetch(
        self,
        wanted: Sequence[R],
        connections: int,
        progress: Callable[[int], None],
        *,
        ends: Callable[[int], bool] = lambda status: status in BUSY,
        ahead: int | None = None,
    ) -> list[R]:
        """Fills the views. Returns those that did not go well, `status` 0 where no answer came.

        After one of these whose status `ends` it (by default `BUSY`, 429 or 503) nothing further is asked. `progress`
        may raise, to end it. `ahead`: none is begun so many places after one that is still under way; None: any.
        """
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        todo: deque[R] = deque(wanted)
        bad: list[R] = []
        active: dict[pycurl.Curl, R] = {}
        places: dict[pycurl.Curl, int] = {}
        """Where in `wanted` those are that are under way; the first of them first."""

        def room() -> bool:
            oldest = next(iter(places.values()), None)
            far = ahead is not None and oldest is not None and len(wanted) - len(todo) - oldest >= ahead
            return len(active) < connections and not far

        def over(handle: pycurl.Curl, *, answered: bool) -> None:
            del places[handle]
            done = self._end(handle, active, keep=answered)
            if answered and done.end(handle.getinfo(pycurl.RESPONSE_CODE)):
                progress(len(done.view))
                return
            bad.append(done)
            if ends(done.status):
                bad.extend(todo)
                todo.clear()

        try:
            while todo or active:
                while todo and room():
                    place = len(wanted) - len(todo)
                    places[self._begin(todo.popleft(), active)] = place
                self._multi.perform()
                more = True
                while more:
                    left, good, failed = self._multi.info_read()
                    more = left > 0
                    for handle in [*good, *(h for h, _, _ in failed)]:
                        over(handle, answered=True)
                if todo and room():
                    continue  # a request that is not begun wakes nobody up
                if active:
                    self._multi.select(min(WAIT, self._silences.pause))
                    progress(0)
                    for handle in self._silences.overdue(time.monotonic()):
                        over(handle, answered=False)
        finally:
            for handle in list(active):
                self._end(handle, active, keep=False)
        return bad

    def close(self) -> None:
        for handle in self._idle:
            handle.close()
        self._idle.clear()
        self._multi.close()

    def _begin(self, wanted: R, active: dict[pycurl.Curl, R]) -> pycurl.Curl:
        handle = self._idle.pop() if self._idle else self._handle()
        wanted.begin()
        handle.setopt(pycurl.URL, wanted.url)
        handle.setopt(pycurl.NOBODY if wanted.headers_only else pycurl.HTTPGET, 1)
        if wanted.range:
            handle.setopt(pycurl.RANGE, wanted.range)
        else:
            handle.unsetopt(pycurl.RANGE)
        handle.setopt(pycurl.WRITEFUNCTION, wanted.body)
        handle.setopt(pycurl.HEADERFUNCTION, wanted.header)
        self._multi.add_handle(handle)
        self._silences.begin(handle, time.monotonic())
        active[handle] = wanted
        return handle

    def _end(self, handle: pycurl.Curl, active: dict[pycurl.Curl, R], *, keep: bool = True) -> R:
        self._multi.remove_handle(handle)
        self._silences.end(handle)
        if keep:
            self._idle.append(handle)
        else:
            handle.close()
        return active.pop(handle)

    def _lead(self, handle: pycurl.Curl) -> None:
        """Through the proxy that was chosen, or directly; what the variables say libcurl is not asked for."""
        handle.setopt(pycurl.PROXY, self._proxy.url if self._proxy else "")
        handle.setopt(pycurl.NOPROXY, "")
        if self._proxy and self._proxy.headers:
            handle.setopt(pycurl.PROXYUSERNAME, self._proxy.user)
            handle.setopt(pycurl.PROXYPASSWORD, self._proxy.password)

    def _handle(self) -> pycurl.Curl:
        settings = self._settings
        handle = pycurl.Curl()
        handle.setopt(pycurl.HTTPHEADER, self._headers)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.BUFFERSIZE, BUFFER)
        self._lead(handle)
        if self._rules:
            guard_handle(handle, self._rules)
        # A redirect is none of its business: what opens this origin must not follow it elsewhere.
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, int(1000 * settings.connect_timeout))
        handle.setopt(pycurl.SOCKOPTFUNCTION, self._silences.watch)
        trusted = ssl.get_default_verify_paths()
        if trusted.cafile:
            handle.setopt(pycurl.CAINFO, trusted.cafile)
        if trusted.capath:
            handle.setopt(pycurl.CAPATH, trusted.capath)
        return handle


def guard_handle(handle: pycurl.Curl, known: Rules) -> None:
    """Sockets are opened to addresses that may be asked alone; anything else fails as if nobody listened."""

    def open_socket(purpose: int, address: Any) -> socket.socket | int:
        family, kind, protocol, place = address
        try:
            # No name for a proxy, no socket in the file system: an address, or nothing.
            known.address(str(place[0]) if isinstance(place, tuple) else "")
        except SourceForbiddenError:
            return int(pycurl.SOCKET_BAD)
        return socket.socket(family, kind, protocol)

    handle.setopt(pycurl.OPENSOCKETFUNCTION, open_socket)
    handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
