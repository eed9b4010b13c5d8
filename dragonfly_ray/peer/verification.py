"""The last check before a task is done: do all digests agree with the scheduler's record?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.model import DIGEST_SIZE, root_digest
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.reporter import Reporter
from dragonfly_ray.scheduling.download.record_wait import RecordWait, Step

WriterElection = tuple[tuple[str, str], ...]
"""(spec id, place) of outputs that other nodes may write, too."""


class Outputs(Protocol):
    def places(self) -> WriterElection: ...

    def placed(self, places: WriterElection, answer: m.Verified) -> None: ...


class RecordCheck:
    """`doubt` has pieces read once more that nobody vouches for; `audit` reads some that others have read."""

    def __init__(
        self,
        engine: Engine,
        reporter: Reporter,
        doubt: Callable[[], None],
        audit: Callable[[Iterable[int]], None],
    ) -> None:
        self._engine = engine
        self._reporter = reporter
        self._doubt = doubt
        self._audit = audit

    def agrees(self, outputs: Outputs) -> bool:
        """Waits for the record to be whole. Pieces that do not agree with it are dropped, to be fetched again."""
        engine = self._engine
        # What has come just now, whoever reads the origin vouches for.
        wait = RecordWait(time.monotonic(), announced=not engine.was_here)
        while not engine.stopping.is_set():
            mine, places = self._digests(), outputs.places()
            if answer := self._ask(mine, places):
                self._audit(answer.audit)
                now = time.monotonic()
                for step in wait.answered(now, known=answer.known, pending=answer.pending, ok=answer.ok):
                    match step:
                        case Step.ACCEPT:
                            outputs.placed(places, answer)
                            return True
                        case Step.MEND:
                            return self._mend(mine, answer.digests)
                        case Step.ANNOUNCE:
                            wait.announced = self._introduce()
                        case Step.VOUCH:
                            self._teach(answer.gaps)
                            self._doubt()
            engine.stopping.wait(wait.pause())
            with engine.lock:
                if engine.error or not engine.picker.done:
                    return False
        return False

    def ask_for_places(self, outputs: Outputs) -> bool:
        """Asks who writes the outputs that are still due; False: there was no answer.

        The copy was found right before. A scheduler that has forgotten since is told what it needs.
        """
        places = outputs.places()
        answer = self._ask(self._digests(), places)
        if answer is None or not answer.known:
            return False
        if answer.pending:
            self._teach(answer.gaps)
            return False
        outputs.placed(places, answer)
        return True

    def _ask(self, mine: list[bytes], places: WriterElection) -> m.Verified | None:
        """None while the scheduler is away: it comes back, and is asked again."""
        engine = self._engine
        verify = m.Verify(engine.context.host_id, engine.task.id, root_digest(mine), places)
        try:
            answer = self._reporter.ask(verify)
            if not isinstance(answer, m.Verified):
                return None
            if not answer.known:
                engine.context.announce(engine.task.source_id)
        except DragonflyError:
            return None
        return answer

    def _digests(self) -> list[bytes]:
        return [d or bytes(DIGEST_SIZE) for d in self._engine.store.digests]

    def _introduce(self) -> bool:
        """The scheduler does not know what was here all the time: one root says it, and no piece is claimed to be told."""
        try:
            self._engine.context.introduce(self._engine.store)
        except DragonflyError:
            return False  # once more, when it is back
        return True

    def _teach(self, gaps: Iterable[int]) -> None:
        engine = self._engine
        with engine.lock:
            digests = engine.store.digests
            engine.state.vouched(tuple((i, d) for i in gaps if (d := digests[i]) is not None))

    def _mend(self, mine: list[bytes], record: bytes) -> bool:
        said = [record[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE] for i in range(len(mine))]
        wrong = [(i, said[i]) for i, digest in enumerate(mine) if digest != said[i]]
        self._engine.settle(wrong)
        return not wrong
