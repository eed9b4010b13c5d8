"""What a task tells its scheduler, in batches, and what comes back: leases, and how often to report."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from dragonfly_ray.scheduling.download.report_buffer import ReportPart

log = logging.getLogger(__name__)

QUIET = 0.5
"""Seconds after which a report is made without any news, as a sign of life."""
LONGEST_PAUSE = 1.0
MAX_UNTOLD = 100
"""Messages kept for a scheduler that is away; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a report says beside the engine's news. The fields are those of `messages.Report`."""

    bytes_origin: int
    bytes_audit: int
    carried: tuple[tuple[str, str], ...]
    awaiting: float
    answer: float


class Reporter:
    """One for each task under way. Nothing is lost while the scheduler cannot be reached.

    `answered` takes the answer of a scheduler that knows the task.
    """

    def __init__(
        self,
        engine: Engine,
        link: SchedulerLink,
        interval: float,
        figures: Callable[[], Figures],
        answered: Callable[[m.ReportReply], None],
    ) -> None:
        self._engine = engine
        self._link = link
        self.figures = figures
        self._answered = answered
        self.interval = interval
        """Seconds between reports, as the scheduler wants it."""
        self._begun = False
        self._reporting = threading.Lock()
        self._grant_refused = False
        self._untold: list[tuple[float, m.Message]] = []
        """When it was to be told, and what."""

    @property
    def pending(self) -> bool:
        """Whether there is anything that the scheduler does not know yet."""
        return bool(self._engine.state.report or self._untold)

    def grant_refused(self) -> None:
        """A parent does not take the grant: another one is asked for with the next report, which comes soon."""
        self._grant_refused = True

    def begin(self) -> None:
        """Not before it is of use: where all came with the delivery, the outcome says enough."""
        if not self._begun:
            self._begun = True
            self._engine.spawn("report", self._run)

    def _run(self) -> None:
        """Until the task stops."""
        engine, said, pause = self._engine, time.monotonic(), 0.0
        while not engine.stopping.is_set():
            engine.report_now.wait(timeout=max(self.interval, pause))
            engine.report_now.clear()
            if engine.stopping.is_set():
                return
            now = time.monotonic()
            if not (now - said > QUIET or self._due(now, now - said < self.interval)):
                continue
            try:
                self.report()
                said, pause = now, 0.0
            except DragonflyError as error:
                pause = min(LONGEST_PAUSE, pause * 2 or 0.1)
                log.info("task %.12s: scheduler not reached: %s", engine.task.id, error)
                engine.stopping.wait(pause)

    def _due(self, now: float, early: bool) -> bool:
        answer = self.figures().answer
        with self._engine.lock:
            return self._engine.state.report_due(now, answer, early)

    def report_rest(self) -> None:
        """Whatever is left to say, before an outcome; that does not fail for it."""
        if not self.pending:
            return
        try:
            self.report(claim=False)
        except DragonflyError as error:
            log.info("task %.12s: last report not delivered: %s", self._engine.task.id, error)
        except Exception:
            log.exception("task %.12s: last report not delivered", self._engine.task.id)

    def report(self, *, claim: bool = True) -> None:
        """One report and what follows from the answer. Raises `ClusterError`."""
        with self._reporting:
            self._tell_again()
            part, report = self._part(last=not claim)
            reply = self._exchange(part, report)
            if isinstance(reply, m.ReportReply) and not self._heard(part, report, reply):
                self._engine.context.announce(self._engine.task.source_id)

    def ask(self, message: m.Verify) -> m.Message | None:
        """The scheduler's answer; everything that it must know for it goes along. Raises `ClusterError`."""
        if not self._engine.state.report.news.origin:
            return self._link.call(message)
        with self._reporting:
            self._tell_again()
            part, report = self._part(last=True)
            answer = self._exchange(part, msgspec.structs.replace(message, report=report))
            if isinstance(answer, m.Verified) and answer.reply is not None:
                self._heard(part, report, answer.reply)
        return answer

    def _part(self, *, last: bool) -> tuple[ReportPart, m.Report]:
        """What to report now."""
        figures = self.figures()
        with self._engine.lock:
            part = self._engine.state.take_report(time.monotonic(), figures.answer, last)
        return part, self._message(part, figures)

    def _exchange(self, part: ReportPart, message: m.Message) -> m.Message | None:
        """The answer to what tells this part. Raises `ClusterError`: it will be told again."""
        try:
            return self._link.call(message)
        except DragonflyError:
            with self._engine.lock:
                self._engine.state.untold(part.taken, False)
            raise

    def _heard(self, part: ReportPart, report: m.Report, reply: m.ReportReply) -> bool:
        """What follows from the answer. False: the scheduler is new, and has to be told what is here."""
        if reply.known:
            self.interval = reply.interval
            if reply.grant:
                self._grant_refused = False
            self._answered(reply)
        elif not self._engine.stopping.is_set() and report.carried:
            with self._engine.lock:
                self._engine.state.untold(part.taken, True)
            return False
        return True

    def rest(self) -> m.Report | None:
        """Whatever is left to say, for an outcome to carry, which is told until it is heard; None: nothing is."""
        if self._untold:
            self.report_rest()
        with self._reporting:
            return self._part(last=True)[1] if self._engine.state.report else None

    def _message(self, part: ReportPart, figures: Figures) -> m.Report:
        engine, news, moved = self._engine, part.taken.pending, self._engine.state.bytes
        return m.Report(
            host_id=engine.context.host_id,
            task_id=engine.task.id,
            got=tuple(news.got),
            origin=tuple(news.origin),
            lost=tuple(news.lost),
            released=tuple(news.released),
            bad=tuple(news.bad),
            disputed=part.disputed,
            misled=tuple(news.misled),
            unreachable=tuple(news.unreachable),
            bytes_origin=figures.bytes_origin,
            bytes_peers=moved.peers,
            bytes_cache=moved.cache,
            bytes_small=moved.small,
            bytes_audit=figures.bytes_audit,
            audited=tuple(news.audited),
            unaudited=tuple(news.unaudited),
            claim=part.claim,
            rate=part.rate,
            urgent=part.urgent,
            parents=part.taken.fed,
            grant_refused=self._grant_refused,
            uploads=engine.context.uploads(),
            slots=engine.settings.transport.upload_threads,
            carried=figures.carried,
            awaiting=figures.awaiting,
            answer=figures.answer,
        )

    def tell(self, message: m.Message) -> None:
        """Says it now, or before the next report that reaches the scheduler."""
        try:
            self._link.call(message)
        except DragonflyError as error:
            log.info("task %.12s: scheduler not reached: %s", self._engine.task.id, error)
            with self._engine.lock:
                self._untold = [*self._untold[1 - MAX_UNTOLD :], (time.monotonic(), message)]

    def _tell_again(self) -> None:
        """What could not be told before. Raises `ClusterError`."""
        while self._untold:
            at, message = self._untold[0]
            if isinstance(message, m.Throttled):
                left = message.retry_after - (time.monotonic() - at)
                message = msgspec.structs.replace(message, retry_after=left)
            if not isinstance(message, m.Throttled) or message.retry_after > 0:
                self._link.call(message)
            with self._engine.lock:
                del self._untold[0]
