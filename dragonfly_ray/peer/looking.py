"""Files that a listing tells too little of: looked at by several peers, each file by one of them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from dragonfly_ray import messages as m
from dragonfly_ray.errors import ClusterError, DragonflyError, from_report
from dragonfly_ray.peer.reporter import SchedulerLink
from dragonfly_ray.sources import Look, Seen

log = logging.getLogger(__name__)

FEW = 32
"""Up to so many files, asking others would take longer."""
LEAST_CHUNK, MOST_CHUNK = 16, 64
ORIGIN_SAID = frozenset(
    (
        "source",
        "source-not-found",
        "source-auth",
        "source-forbidden",
        "source-busy",
        "source-changed",
        "source-unsupported",
    )
)
"""What a helper passes on from the origin. Anything else is the helper's own trouble."""


class SharedLook:
    """A `Share` that hands out chunks of paths to the helpers of `ask`, and looks itself, too.

    A helper that fails gives its chunk back, and is not used again. The first refusal of the origin
    ends it, whoever met it.
    """

    def __init__(self, ask: m.Resolve, link: SchedulerLink) -> None:
        self._ask = ask
        self._link = link
        self._state = threading.Condition()
        self._todo: deque[tuple[int, Sequence[str]]] = deque()
        self._out = 0
        self._error: BaseException | None = None
        self._found: list[Seen | None] = []

    def __call__(self, look: Look, paths: Sequence[str]) -> list[Seen]:
        helpers = self._ask.helpers
        if len(paths) <= FEW or not helpers:
            return look(paths)
        size = max(LEAST_CHUNK, min(MOST_CHUNK, len(paths) // (2 * (len(helpers) + 1))))
        self._todo.extend((at, paths[at : at + size]) for at in range(0, len(paths), size))
        self._found = [None] * len(paths)
        for helper in helpers[: len(self._todo)]:
            threading.Thread(target=self._have, args=(helper,), name="looking", daemon=True).start()
        while chunk := self._take():
            try:
                self._put(chunk, look(chunk[1]))
            except BaseException as error:
                self._fail(error)
                raise
        if self._error:
            raise self._error
        return [seen for seen in self._found if seen is not None]

    def _have(self, helper: str) -> None:
        """One helper's chunks, one after the other."""
        while chunk := self._take():
            try:
                self._put(chunk, self._asked(helper, chunk[1]))
            except DragonflyError as error:
                if error.kind in ORIGIN_SAID:
                    self._fail(error)
                else:
                    log.info("host %s does not look for us any more: %s", helper, error)
                    self._put_back(chunk)
                return
            except Exception:
                log.exception("host %s does not look for us any more", helper)
                self._put_back(chunk)
                return

    def _asked(self, helper: str, paths: Sequence[str]) -> list[Seen]:
        ask = self._ask
        answer = self._link.call(
            m.Look(
                helper,
                ask.source,
                ask.credentials,
                tuple(paths),
                ask.connections,
                ask.rate,
                ask.policy,
                ask.spec_id,
            )
        )
        if not isinstance(answer, m.Looked):
            raise ClusterError(f"host {helper}: no answer to a look")
        if answer.kind:
            raise from_report(answer.kind, answer.message)
        columns = (answer.sizes, answer.versions, answer.ranges)
        if any(len(column) != len(paths) for column in columns):
            raise ClusterError(f"host {helper}: {len(answer.sizes)} answers to {len(paths)} looks")
        return [Seen(*each) for each in zip(*columns, strict=True)]

    # --- the chunks -------------------------------------------------------------------------

    def _take(self) -> tuple[int, Sequence[str]] | None:
        """The next chunk. Waits while others are under way: they may come back."""
        with self._state:
            while not self._todo and self._out and not self._error:
                self._state.wait()
            if self._error or not self._todo:
                return None
            self._out += 1
            return self._todo.popleft()

    def _put(self, chunk: tuple[int, Sequence[str]], found: Sequence[Seen]) -> None:
        with self._state:
            self._found[chunk[0] : chunk[0] + len(found)] = found
            self._over()

    def _put_back(self, chunk: tuple[int, Sequence[str]]) -> None:
        with self._state:
            self._todo.append(chunk)
            self._over()

    def _fail(self, error: BaseException) -> None:
        with self._state:
            self._error = self._error or error
            self._over()

    def _over(self) -> None:
        self._out -= 1
        self._state.notify_all()
