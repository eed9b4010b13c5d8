"""What a task tells its scheduler, in batches, and what comes back: leases, and how often to report."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.scheduling.download.report_buffer import Taken

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun

log = logging.getLogger(__name__)

QUIET = 0.5
"""Seconds after which a report is made without any news, as a sign of life."""
LONGEST_PAUSE = 1.0
MAX_UNTOLD = 100
"""Messages kept for a scheduler that is away; the oldest goes first."""


class SchedulerLink(Protocol):
    """The way to the scheduler of a task. Raises `ClusterError` while it cannot be reached."""

    def call(self, message: m.Message) -> m.Message | None: ...


class Reporter:
    """One for each task under way. Nothing is lost while the scheduler cannot be reached."""

    def __init__(self, run: TaskRun, link: SchedulerLink, interval: float) -> None:
        self._run = run
        self._link = link
        self._interval = interval
        self._kick = threading.Event()
        self._reporting = threading.Lock()
        self._grant_refused = False
        self._untold: list[tuple[float, m.Message]] = []
        """When it was to be told, and what."""

    @property
    def pending(self) -> bool:
        """Whether there is anything that the scheduler does not know yet."""
        return bool(self._run.state.report or self._untold)

    @property
    def interval(self) -> float:
        """Seconds between reports, as the scheduler wants it."""
        return self._interval

    def kick(self) -> None:
        """Report now."""
        self._kick.set()

    def grant_refused(self) -> None:
        """A parent does not take the grant: another one is asked for with the next report, which comes soon."""
        self._grant_refused = True

    def run(self) -> None:
        """Until the task stops."""
        run, said, pause = self._run, 0.0, 0.0
        while not run.stopping.is_set():
            self._kick.wait(timeout=max(self._interval, pause))
            self._kick.clear()
            if run.stopping.is_set():
                return
            claim = run.origin.appetite() if run.origin else 0
            now = time.monotonic()
            if not (run.state.report.news or claim or run.state.claims.disputed or now - said > QUIET):
                continue
            try:
                self.report()
                said, pause = now, 0.0
            except DragonflyError as error:
                pause = min(LONGEST_PAUSE, pause * 2 or 0.1)
                log.info("task %.12s: scheduler not reached: %s", run.task.id, error)
                run.stopping.wait(pause)

    def report_rest(self) -> None:
        """Whatever is left to say, before an outcome; that does not fail for it."""
        if not self.pending:
            return
        try:
            self.report(claim=False)
        except DragonflyError as error:
            log.info("task %.12s: last report not delivered: %s", self._run.task.id, error)
        except Exception:
            log.exception("task %.12s: last report not delivered", self._run.task.id)

    def report(self, *, claim: bool = True) -> None:
        """One report and what follows from the answer. Raises `ClusterError`."""
        run = self._run
        with self._reporting:
            self._tell_again()
            with run.lock:
                answer = run.origin.answer if run.origin else 0.0
                part = run.state.take_report(time.monotonic(), answer, not claim)
            origin, news, moved = run.origin, part.taken.pending, run.state.bytes
            message = m.Report(
                host_id=run.context.host_id,
                task_id=run.task.id,
                got=tuple(news.got),
                origin=tuple(news.origin),
                lost=tuple(news.lost),
                released=tuple(news.released),
                bad=tuple(news.bad),
                disputed=part.disputed,
                misled=tuple(news.misled),
                unreachable=tuple(news.unreachable),
                bytes_origin=origin.bytes if origin else 0,
                bytes_peers=moved.peers,
                bytes_cache=moved.cache,
                bytes_small=moved.small,
                bytes_audit=run.audits.bytes,
                audited=tuple(news.audited),
                unaudited=tuple(news.unaudited),
                claim=part.claim,
                rate=part.rate,
                urgent=part.urgent,
                parents=part.taken.fed,
                grant_refused=self._grant_refused,
                uploads=run.context.uploads(),
                slots=run.settings.transport.upload_threads,
                carried=run.deliveries.carried(),
                awaiting=origin.awaiting if origin else 0.0,
                answer=answer,
            )
            try:
                reply = self._link.call(message)
            except DragonflyError:
                with run.lock:
                    run.state.untold(part.taken, False)
                raise
            if isinstance(reply, m.ReportReply):
                self._answered(reply, part.taken)

    def _answered(self, reply: m.ReportReply, taken: Taken) -> None:
        run = self._run
        if reply.known:
            self._interval = reply.interval
            if reply.grant:
                self._grant_refused = False
                run.granted(reply.grant)
            if reply.record:
                run.settle(reply.record)
            if run.origin:
                run.origin.answered(reply)
                run.audits.take(reply.audit)
        elif not run.idle():
            with run.lock:
                run.state.untold(taken, True)
            run.context.announce(run.task.source_id)

    def ask(self, message: m.Verify) -> m.Message | None:
        """The scheduler's answer, after everything that it must know for it. Raises `ClusterError`."""
        if self._run.state.report.news.origin:
            self.report()
        return self._link.call(message)

    def tell(self, message: m.Message) -> None:
        """Says it now, or before the next report that reaches the scheduler."""
        try:
            self._link.call(message)
        except DragonflyError as error:
            log.info("task %.12s: scheduler not reached: %s", self._run.task.id, error)
            with self._run.lock:
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
            with self._run.lock:
                del self._untold[0]
