"""The ends of a task at this peer: each distribution that wants it gets its output and an outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from dragonfly_ray import logs
from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.names import from_os, shown
from dragonfly_ray.peer.engine import Engine
from dragonfly_ray.peer.output_job import OutputJob
from dragonfly_ray.peer.reporter import Reporter
from dragonfly_ray.peer.verification import RecordCheck
from dragonfly_ray.storage.task_store import TaskStore

log = logging.getLogger(__name__)

LOOK_AGAIN = 1.0
"""Seconds after which whoever waits for another node's output asks, told or not."""
FIRST_PAUSE = 0.1


class OutputJobs:
    """Of one download, changed under its lock. `closed`: it takes no more. `check` compares the content with the digest
    that a caller expects."""

    def __init__(
        self,
        engine: Engine,
        first: m.Deliver,
        record: RecordCheck,
        reporter: Reporter,
        check: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._record = record
        self._reporter = reporter
        self._check = check
        self._all: dict[str, OutputJob] = {first.spec.id: OutputJob(first)}
        self._settled = False
        """An output that another node was at may be there."""
        self.closed = False
        self.dropped = False
        """What the origin gave is not what it offers: nothing of it is kept here."""

    @property
    def over(self) -> bool:
        """Nobody waits any more."""
        return all(d.over for d in self._all.values())

    def open(self) -> list[OutputJob]:
        """Those without an outcome."""
        return [d for d in list(self._all.values()) if not d.over]

    def carried(self) -> tuple[tuple[str, str], ...]:
        """(spec id, run) of those."""
        return tuple((d.spec.id, d.message.spec.run) for d in self.open())

    def wanted_digest(self) -> str:
        """What a caller says that the content is, if any does."""
        return next((d.spec.digest for d in list(self._all.values()) if d.spec.digest), "")

    def add(self, deliver: m.Deliver) -> None:
        """Another one, or one that is known: told again, or another run of an id that is over here."""
        known = self._all.get(deliver.spec.id)
        if known is None or known.over:
            self._all[deliver.spec.id] = OutputJob(deliver)
        else:
            known.message = deliver

    def knows(self, spec_id: str) -> bool:
        return spec_id in self._all

    def cancel(self, spec_id: str) -> None:
        if delivery := self._all.get(spec_id):
            delivery.over = True

    def settled(self) -> None:
        """The scheduler says that another node's output may be there."""
        with self._engine.lock:
            self._settled = True
            self._engine.changed.notify_all()

    def refuse(self, store: TaskStore) -> None:
        """Outputs that are not allowed here, before anything is fetched for them."""
        for delivery in self.open():
            try:
                delivery.refuse(self._engine.context, store)
            except DragonflyError as error:
                self._fail(delivery, error)

    def _fail(self, delivery: OutputJob, error: DragonflyError) -> None:
        """Unless it was cancelled, which is why its work has ended."""
        if not delivery.over:
            self._end(delivery, error)

    def see_through(self, store: TaskStore) -> None:
        """All pieces are here: makes every output, waiting for other nodes where they write it."""
        engine = self._engine
        while True:
            with engine.lock:
                waiting = self.open()
                if engine.error and waiting:
                    raise engine.error
                if not waiting:
                    self.closed = True
                    return
            for delivery in waiting:
                self._deliver(delivery, store)
            if any(not d.over for d in waiting):
                if engine.stopping.is_set():
                    return
                self._reporter.begin()
                self._wait_for_turn()

    def fail(self, error: DragonflyError) -> None:
        with self._engine.lock:
            self.closed = True
        for delivery in self.open():
            self._end(delivery, error)

    def places(self) -> tuple[tuple[str, str], ...]:
        """(spec id, place) of the outputs that other nodes may write too, as long as that is open."""
        engine = self._engine
        with engine.lock:
            due = [d for d in self.open() if d.checked]
        return tuple((d.spec.id, place) for d in due if (place := d.undecided(engine.context)))

    def placed(self, places: Iterable[tuple[str, str]], answer: m.Verified) -> None:
        """The scheduler has said who writes these."""
        other = {e.spec_id: e for e in answer.elsewhere}
        for spec_id, _ in places:
            self._all[spec_id].decided(other.get(spec_id))

    def _wait_for_turn(self) -> None:
        """Until another node may have written what is due here."""
        engine = self._engine
        with engine.lock:
            if all(d.told for d in self.open()) and not self._settled:
                engine.changed.wait(max(LOOK_AGAIN, 10 * self._reporter.interval))
            self._settled = False
            if engine.stopping.is_set() or self.over:
                return
        if not self._record.ask_for_places(self):
            engine.stopping.wait(FIRST_PAUSE)

    def _deliver(self, delivery: OutputJob, store: TaskStore) -> None:
        engine = self._engine
        try:
            if not delivery.checked:
                self._check(delivery.spec.digest)
                delivery.checked = True
            with engine.context.turns.of(delivery.spec.id):
                # Superseded meanwhile, it would replace what came after it.
                if not delivery.over and delivery.publish(engine.context, store):
                    self._end(delivery, None)
        except DragonflyError as error:
            self._fail(delivery, error)

    def _end(self, delivery: OutputJob, error: DragonflyError | None) -> None:
        engine = self._engine
        delivery.over = True
        if delivery.helper:
            return
        if error is None:
            with engine.lock:
                engine.state.ended_well()
        outcome = f"failed ({error.kind})" if error else f"at {shown(str(delivery.path))}"
        log.info(
            "task %.12s: %s after %.2f s", engine.task.id, outcome, engine.elapsed(),
            extra=logs.about_spec(delivery.spec.id, engine.task.id),
        )  # fmt: skip
        figures = self._reporter.figures()
        engine.context.ended(
            m.Ended(
                host_id=engine.context.host_id,
                spec_id=delivery.spec.id,
                task_id=engine.task.id,
                ok=error is None,
                path=from_os(str(delivery.path or "")),
                size=engine.task.size,
                seconds=engine.elapsed(),
                bytes_origin=figures.bytes_origin,
                bytes_peers=engine.state.bytes.peers,
                bytes_cache=engine.state.bytes.cache,
                bytes_small=engine.state.bytes.small,
                bytes_audit=figures.bytes_audit,
                merged=delivery.merged,
                kind=error.kind if error else "",
                dropped=self.dropped,
                message=str(error) if error else "",
                place=delivery.place,
                stamp=delivery.stamp,
                written_by=delivery.written_by,
                run=delivery.message.spec.run,
                report=self._reporter.rest(),
            )
        )
