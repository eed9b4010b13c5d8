"""Patience with an origin that fails in the middle of a look: the look goes on where it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dragonfly_ray.backoff import DEFAULT_RETRY_AFTER_S, FIRST_PAUSE_S, PASSING, next_pause
from dragonfly_ray.errors import SourceBusyError, SourceError

BEAT_S = 1.0
"""At most so often it is told that the look goes on."""

T = TypeVar("T")


def _nobody(why: str, retry_after: float) -> None:
    """The look goes on, and nobody wants to know."""


class Retry:
    """Of one look, by several threads: while one waits, none of them asks anything.

    `give_up`: seconds for which one request may fail. Until something has answered, a failure is raised at once:
    another host may fare better; `helps`: only what is no answer at all. `told(why, retry_after)` hears what it waits
    for, with the seconds that the origin asked for, and with an empty text that it goes on.
    """

    def __init__(
        self, give_up: float, told: Callable[[str, float], None] = _nobody, *, helps: bool = False
    ) -> None:
        self._give_up = give_up
        self._told = told
        self._helps = helps
        self._answered = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._until = 0.0
        self._beat = time.monotonic()
        """Since when it has not been told that it goes on: a short look says nothing."""

    def ask(self, request: Callable[[], T], passing: tuple[type[SourceError], ...] = PASSING) -> T:
        """What `request` returns, in the end. Raises what it raises; those in `passing` with `failing`, the seconds
        for which it was tried."""
        since, pause = None, FIRST_PAUSE_S
        while True:
            self._wait()
            try:
                found = request()
            except passing as error:
                now = time.monotonic()
                since = now if since is None else since
                if not self.bears(error):
                    raise
                if self._ended.is_set() or now - since > self._give_up:
                    error.details["failing"] = now - since
                    raise
                self.hold(error, pause)
                pause = next_pause(pause)
            else:
                self.answered()
                return found

    def answered(self) -> None:
        """The origin has said something."""
        self._answered = True
        now = time.monotonic()
        with self._lock:
            beat = now - self._beat > BEAT_S
            if beat:
                self._beat = now
        if beat:
            self._told("", 0.0)

    def end(self) -> None:
        """From any thread: nobody waits any more."""
        self._ended.set()

    def bears(self, error: SourceError) -> bool:
        """Whether it waits for an end of this."""
        if error.details.get("final"):
            return False
        return self._answered or (self._helps and isinstance(error, SourceBusyError))

    def hold(self, error: SourceError, pause: float = FIRST_PAUSE_S) -> None:
        """Nobody asks anything for a while."""
        now = time.monotonic()
        asked = 0.0
        if isinstance(error, SourceBusyError):
            asked = DEFAULT_RETRY_AFTER_S if error.retry_after is None else error.retry_after
        until = now + max(pause, asked)
        with self._lock:
            longer = until > self._until + FIRST_PAUSE_S
            self._until = max(self._until, until)
            self._beat = now - BEAT_S  # that it goes on is told at once
        if longer:
            self._told(str(error), asked)

    def _wait(self) -> None:
        while not self._ended.is_set() and (left := self._until - time.monotonic()) > 0:
            self._ended.wait(left)
