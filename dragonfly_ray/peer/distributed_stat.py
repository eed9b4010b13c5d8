"""Work on many files of a source, spread over several peers: each file is asked for by one of them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dragonfly_ray import messages as m
from dragonfly_ray.errors import ClusterError, DragonflyError, from_report
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from dragonfly_ray.sources import Seen, Stat

log = logging.getLogger(__name__)

FEW = 32
"""Up to so many files, asking others would take longer."""
LEAST_CHUNK, MOST_CHUNK, LARGE_CHUNK = 16, 64, 256
"""Files of one request to a helper; large ones where its connections are many."""
ROUNDS = 5
"""Times as many files as a helper has connections, at most, in a large chunk: it must answer in time."""
ORIGIN_SAID = frozenset(
    (
        "source",
        "source-not-found",
        "source-auth",
        "source-forbidden",
        "source-busy",
        "source-changed",
        "source-unsupported",
        "source-archived",
    )
)
"""What a helper passes on from the origin. Anything else is the helper's own trouble."""

LATE_S = 20.0
"""Seconds after which a chunk that a helper has is done by whoever has nothing else to do: the helper may be cut off,
or its way to the origin."""

W = TypeVar("W")
R = TypeVar("R")


@dataclass
class _Given(Generic[W]):
    chunk: tuple[int, Sequence[W]]
    since: float
    """When it was given out; endless: it is being done here, too."""


class SharedWork(Generic[W, R]):
    """Hands out chunks of work to helpers by `ask(helper, chunk)`, and does some by `do(chunk)`, too.

    A helper that fails gives its chunk back, and is not used again. The first refusal of the origin
    ends it, whoever met it.
    """

    def __init__(
        self,
        helpers: Sequence[str],
        do: Callable[[Sequence[W]], list[R]],
        ask: Callable[[str, Sequence[W]], list[R]],
        *,
        largest: int = MOST_CHUNK,
    ) -> None:
        self._largest = largest
        self._helpers = helpers
        self._do = do
        self._ask = ask
        self._state = threading.Condition()
        self._todo: deque[tuple[int, Sequence[W]]] = deque()
        self._out: dict[int, _Given[W]] = {}
        """By where they begin: those that somebody is at."""
        self._error: BaseException | None = None
        self._found: list[R | None] = []

    def __call__(self, work: Sequence[W]) -> list[R]:
        """One result each, in order. For one call only."""
        if len(work) <= FEW or not self._helpers:
            return self._do(work)
        size = max(LEAST_CHUNK, min(self._largest, len(work) // (2 * (len(self._helpers) + 1))))
        self._todo.extend((at, work[at : at + size]) for at in range(0, len(work), size))
        self._found = [None] * len(work)
        for helper in self._helpers[: len(self._todo)]:
            threading.Thread(target=self._have, args=(helper,), name="looking", daemon=True).start()
        while chunk := self._take(LATE_S):
            try:
                self._put(chunk, self._do(chunk[1]))
            except BaseException as error:
                self._fail(chunk, error)
                raise
        if self._error:
            raise self._error
        return [each for each in self._found if each is not None]

    def _have(self, helper: str) -> None:
        """One helper's chunks, one after the other."""
        while chunk := self._take():
            try:
                self._put(chunk, self._ask(helper, chunk[1]))
            except DragonflyError as error:
                if error.kind in ORIGIN_SAID:
                    self._fail(chunk, error)
                else:
                    log.info("helper %s failed; not retrying on it: %s", helper, error)
                    self._put_back(chunk)
                return
            except Exception:
                log.exception("helper %s failed; not retrying on it", helper)
                self._put_back(chunk)
                return

    # --- the chunks -------------------------------------------------------------------------

    def _take(self, late: float = math.inf) -> tuple[int, Sequence[W]] | None:
        """The next chunk. Waits while others are under way: they may come back; those that have been out for more
        than `late` seconds are done here, too."""
        with self._state:
            while not self._todo and self._out and not self._error:
                oldest = min(self._out.values(), key=lambda given: given.since)
                left = oldest.since + late - time.monotonic()
                if left <= 0:
                    oldest.since = math.inf
                    return oldest.chunk
                self._state.wait(None if left == math.inf else left)
            if self._error or not self._todo:
                return None
            chunk = self._todo.popleft()
            self._out[chunk[0]] = _Given(chunk, time.monotonic())
            return chunk

    def _put(self, chunk: tuple[int, Sequence[W]], found: Sequence[R]) -> None:
        """What another has done by now does not count."""
        with self._state:
            if self._out.pop(chunk[0], None):
                self._found[chunk[0] : chunk[0] + len(found)] = found
            self._state.notify_all()

    def _put_back(self, chunk: tuple[int, Sequence[W]]) -> None:
        with self._state:
            given = self._out.get(chunk[0])
            if given and given.since != math.inf:
                del self._out[chunk[0]]
                self._todo.append(chunk)
            self._state.notify_all()

    def _fail(self, chunk: tuple[int, Sequence[W]], error: BaseException) -> None:
        with self._state:
            if self._out.pop(chunk[0], None):
                self._error = self._error or error
            self._state.notify_all()


class DistributedStat:
    """A `Share`: the helpers of `ask` look at files, too."""

    def __init__(self, ask: m.Resolve, link: SchedulerLink) -> None:
        self._ask = ask
        self._link = link

    def __call__(self, look: Stat, paths: Sequence[str]) -> list[Seen]:
        ask = self._ask
        largest = MOST_CHUNK if ask.rate else min(LARGE_CHUNK, max(MOST_CHUNK, ROUNDS * ask.connections))
        return SharedWork(ask.helpers, look, self._asked, largest=largest)(paths)

    def _asked(self, helper: str, paths: Sequence[str]) -> list[Seen]:
        ask = self._ask
        answer = answer_of(
            self._link,
            m.Stat(
                helper,
                ask.source,
                ask.credentials,
                tuple(paths),
                ask.connections,
                ask.rate,
                ask.policy,
                ask.spec_id,
                run=ask.run,
            ),
        )
        checksums = answer.checksums or ("",) * len(paths)
        columns = (answer.sizes, answer.versions, answer.ranges, checksums)
        if any(len(column) != len(paths) for column in columns):
            raise ClusterError(f"host {helper}: {len(answer.sizes)} results for {len(paths)} paths")
        return [Seen(*each) for each in zip(*columns, strict=True)]


def telling(link: SchedulerLink, host_id: str, ask: m.Resolve | m.Stat) -> Callable[[str, float], None]:
    """Tells the scheduler that a look goes on, or what it waits for and for how long the origin wants to be left
    alone."""

    def told(why: str, retry_after: float) -> None:
        try:
            link.call(m.StatPending(host_id, ask.spec_id, ask.run, why, retry_after))
        except DragonflyError as error:
            log.info("distribution %s: scheduler not reached: %s", ask.spec_id, error)

    return told


def answer_of(link: SchedulerLink, look: m.Stat) -> m.StatReply:
    """Of a helper, through the scheduler. Raises what it met, `ClusterError` where it gave none."""
    answer = link.call(look)
    if not isinstance(answer, m.StatReply):
        raise ClusterError(f"host {look.host}: no response to a metadata request")
    if answer.kind:
        details = {"retry_after": answer.retry_after} if answer.retry_after else {}
        error = from_report(answer.kind, answer.message)
        error.details |= details
        raise error
    return answer
