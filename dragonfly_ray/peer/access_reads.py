"""Reads a little of each file of a task at its origin, with the credentials of whoever wants the cluster's copy."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import msgspec

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.backoff import DEFAULT_RETRY_AFTER_S
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import ClusterError, DragonflyError, SourceBusyError
from dragonfly_ray.model import Manifest, PieceTable, Segment, digest
from dragonfly_ray.peer.distributed_stat import SharedWork, answer_of
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from dragonfly_ray.sources import Stop, range_reader
from dragonfly_ray.storage.task_store import TaskStore

log = logging.getLogger(__name__)

SPAN = 1024
"""Bytes that are read of each file."""
CHUNK = 256
"""Files of one request to a helper."""

W = TypeVar("W")
R = TypeVar("R")


class Span(NamedTuple):
    """A few bytes of one entry, in one piece. `at`: where they begin in the piece."""

    segment: Segment
    piece: int
    at: int


def choose(
    manifest: Manifest,
    table: PieceTable,
    held: Sequence[int],
    *,
    most: int = 0,
    rng: random.Random | None = None,
) -> list[Span]:
    """Where to read: at a random place of each file, or of `most` of them.

    It lies in a piece of the first bitmap of `held` that has any of the file; in none of them, anywhere.
    """
    rng = rng or secrets.SystemRandom()
    files = [number for number, entry in enumerate(manifest.entries) if entry.size]
    if most and len(files) > most:
        files = sorted(rng.sample(files, most))
    return [_place(manifest, table, number, held, rng) for number in files]


def _place(
    manifest: Manifest, table: PieceTable, number: int, held: Sequence[int], rng: random.Random
) -> Span:
    pieces = table.of_entry(number)
    first = table.starts[number]
    # Where the origin has no ranges, everything before the place would have to be read, too.
    index = _piece(pieces, held, rng) if manifest.ranges else pieces.start
    start, stop = max(first, table.cuts[index]), min(table.starts[number + 1], table.cuts[index + 1])
    length = min(SPAN, stop - start)
    offset = start + (rng.randrange(stop - start - length + 1) if manifest.ranges else 0)
    return Span(Segment(number, offset - first, length), index, offset - table.cuts[index])


def _piece(pieces: range, held: Sequence[int], rng: random.Random) -> int:
    everything = bitset.full(len(pieces))
    for bits in held:
        here = bits >> pieces.start & everything
        if here == everything:
            break
        if here:
            return pieces.start + bitset.any_of(here, rng)
    return rng.choice(pieces)


class AccessReader:
    """One proof; for one call. The origin's refusals are raised as they are."""

    def __init__(
        self,
        ask: m.Prove,
        store: TaskStore,
        link: SchedulerLink,
        settings: OriginSettings,
        stop: Stop,
        host_id: str,
    ) -> None:
        self._ask, self._store, self._link = ask, store, link
        self._settings, self._stop, self._host_id = settings, stop, host_id

    def __call__(self) -> m.Proved:
        ask, store = self._ask, self._store
        pieces = len(store.table)
        everywhere = bitset.from_bytes(ask.held, pieces) if ask.held else bitset.full(pieces)
        own = bitset.from_bytes(store.have(), pieces)
        spans = choose(store.manifest, store.table, (own, everywhere), most=self._settings.proof_sample)
        started = time.monotonic()
        with self._reading() as read:
            work = SharedWork[Span, bytes](ask.helpers, read, self._asked, largest=CHUNK)
            digests = work(spans)
        samples = [
            m.Sample(s.segment.entry, s.piece, s.at, s.segment.length, found)
            for s, found in zip(spans, digests, strict=True)
        ]
        log.info(
            "task %.12s: %d files sampled at the origin in %.2f s",
            ask.task.id, len(spans), time.monotonic() - started,
        )  # fmt: skip
        found = compare(store, m.CompareSamples("", ask.task.id, tuple(samples)))
        if found.wrong:
            names = ", ".join(store.manifest.entries[number].path for number in found.wrong[:3])
            text = (
                f"{ask.task.url}: with these credentials the origin returns other bytes of {names}"
                " than the cached copy of this version has"
            )
            return m.Proved(ask.task.id, kind="source-changed", message=text, differs=True)
        missing = set(found.missing)
        return m.Proved(ask.task.id, tuple(s for s in samples if s.entry in missing))

    @contextmanager
    def _reading(self) -> Iterator[Callable[[Sequence[Span]], list[bytes]]]:
        ask = self._ask
        settings = self._settings.sparing(ask.connections, ask.rate)
        manifest = self._store.manifest
        with range_reader(ask.source, ask.credentials, settings, manifest, ask.policy, self._stop) as read:

            def digests(spans: Sequence[Span]) -> list[bytes]:
                return [digest(data) for data in self._patiently(read, [s.segment for s in spans])]

            yield digests

    def _asked(self, helper: str, spans: Sequence[Span]) -> list[bytes]:
        ask, manifest = self._ask, self._store.manifest
        entries = tuple(manifest.entries[s.segment.entry] for s in spans)
        look = m.Stat(
            helper,
            ask.source,
            ask.credentials,
            connections=ask.connections,
            rate=ask.rate,
            policy=ask.policy,
            spec_id=ask.spec_id,
            run=ask.run,
            part=msgspec.structs.replace(manifest, entries=entries),
            spans=tuple((at, s.segment.offset, s.segment.length) for at, s in enumerate(spans)),
        )
        answer = self._patiently(lambda each: answer_of(self._link, each), look)
        if len(answer.digests) != len(spans):
            raise ClusterError(f"host {helper}: {len(answer.digests)} answers to {len(spans)} samples")
        return list(answer.digests)

    def _patiently(self, do: Callable[[W], R], work: W) -> R:
        """Backs off after HTTP 429 or 503, and has everybody else back off, too."""
        deadline = time.monotonic() + self._settings.give_up
        while True:
            try:
                return do(work)
            except SourceBusyError as busy:
                pause = DEFAULT_RETRY_AFTER_S if busy.retry_after is None else busy.retry_after
                if time.monotonic() + pause > deadline:
                    raise
                try:
                    self._link.call(m.Throttled(self._host_id, self._ask.task.id, pause))
                except DragonflyError as error:
                    log.info("task %.12s: scheduler not reached: %s", self._ask.task.id, error)
                if self._stop.wait(pause):
                    raise


def compare(store: TaskStore, ask: m.CompareSamples) -> m.SamplesCompared:
    """Whether these bytes are those in the store."""
    wrong, missing = [], []
    for sample in ask.samples:
        data = (
            store.peek(sample.piece, sample.offset, sample.length)
            if sample.piece < len(store.table)
            else None
        )
        if data is None:
            missing.append(sample.entry)
        elif digest(data) != sample.digest:
            wrong.append(sample.entry)
    return m.SamplesCompared(ask.host, ask.task_id, tuple(wrong), tuple(missing))
