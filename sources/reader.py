"""Pieces out of streams: one request for a run of pieces of a file, many at once for small files."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceTruncatedError
from dragonfly_ray.model import Manifest, PieceTable, Segment
from dragonfly_ray.sources.base import Adapter, Progress, Stream, Take
from dragonfly_ray.sources.first_bytes import FirstBytes
from dragonfly_ray.sources.origin_concurrency import Slots

CHUNK = 64 * 1024
"""So many bytes at a time: a slow stream is seen to move long before a piece is full."""
TOGETHER = 4
"""Pieces of small files that are fetched at once: at the end of each batch connections have nothing to do."""
BATCH_BYTES = 16 * 1024 * 1024
"""So many bytes of such pieces at once, where that is more than one: each has to have its buffer for so long."""


class Reader:
    """Thread-safe; `read` may run in several threads at once."""

    def __init__(
        self, adapter: Adapter, manifest: Manifest, table: PieceTable, settings: OriginSettings
    ) -> None:
        self._adapter = adapter
        self._manifest = manifest
        self._table = table
        self._settings = settings
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._slots = Slots(settings.connections + settings.small_connections)
        self.first_bytes = FirstBytes()
        """For how long requests wait for their answers."""

    def read(self, first: int, last: int, take: Take, progress: Progress) -> Iterator[tuple[int, memoryview]]:
        """The pieces `first` … `last - 1`, each as soon as it is full: (index, buffer).

        `take(index)` lends a buffer of the piece's length. `progress(count)` is told of bytes as they
        arrive; what it raises ends the read and closes the connection. Raises `SourceError`.
        """
        for batch, together in self._batches(first, last):
            if together:
                views = [take(number) for number in batch]
                self._gather(batch.start, views, progress)
                yield from zip(batch, views, strict=True)
            else:
                start = self._table.segments(batch.start)[0]
                yield from self._run(start, batch.start, batch.stop, take, progress)

    def buffers(self, first: int, last: int) -> list[int]:
        """The lengths of the buffers that `read` of these pieces takes at a time, if each goes back when the
        next piece is asked for."""
        table, most = self._table, [0]
        for batch, together in self._batches(first, last):
            lengths = sorted((table[number].length for number in batch), reverse=True)
            lengths = lengths if together else lengths[:1]
            most = [max(pair) for pair in itertools.zip_longest(most, lengths, fillvalue=0)]
        return most

    def _batches(self, first: int, last: int) -> Iterator[tuple[range, bool]]:
        """Pieces that are read together, with many requests; or one after the other, with one request."""
        index = first
        while index < last:
            segments = self._table.segments(index)
            stop = index + 1
            if len(segments) > 1:
                while stop < min(last, index + TOGETHER) and self._joins(index, stop):
                    stop += 1
            else:
                while stop < last and self._continues(segments[0].entry, stop):
                    stop += 1
            yield range(index, stop), len(segments) > 1
            index = stop

    def limit(self, connections: int) -> None:
        """No more than so many at once from now on; requests under way go on."""
        if self._slots.resize(connections):
            self._adapter.rest()

    def abort(self) -> None:
        """From any thread: reads under way end with an error, and nothing more is asked."""
        self._adapter.abort()

    def rest(self) -> None:
        """Closes connections that nobody uses now."""
        self._adapter.rest()

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._adapter.close()

    def _joins(self, index: int, stop: int) -> bool:
        cuts = self._table.cuts
        return len(self._table.segments(stop)) > 1 and cuts[stop + 1] - cuts[index] <= BATCH_BYTES

    def _continues(self, entry: int, index: int) -> bool:
        segments = self._table.segments(index)
        return len(segments) == 1 and segments[0].entry == entry

    def _run(
        self, start: Segment, index: int, stop: int, take: Take, progress: Progress
    ) -> Iterator[tuple[int, memoryview]]:
        """Pieces of one entry: one request."""
        with self._slots:
            yield from self._stream(start, index, stop, take, progress)

    def _stream(
        self, start: Segment, index: int, stop: int, take: Take, progress: Progress
    ) -> Iterator[tuple[int, memoryview]]:
        length = self._table.cuts[stop] - self._table.cuts[index]
        stream = self._open(start.entry, start.offset, length)
        try:
            for number in range(index, stop):
                view = take(number)
                at = 0
                while at < len(view):
                    count = self._read(stream, view[at : at + CHUNK])
                    if not count:
                        raise SourceTruncatedError(
                            f"{self._name(start.entry)}: truncated, fewer bytes than announced"
                        )
                    at += count
                    progress(count)
                yield number, view
        finally:
            stream.close()

    def _many(self, wanted: Sequence[tuple[int, memoryview]], progress: Progress) -> list[int]:
        """The entries that are left. The first to come tells how long answers take to begin."""
        with self.first_bytes.wait() as wait:
            told = False

            def moved(count: int) -> None:
                nonlocal told
                if count:
                    wait.again() if told else wait.began()
                    told = True
                progress(count)

            return self._adapter.many(self._manifest, wanted, self._slots, moved)

    def _open(self, entry: int, offset: int, length: int) -> Stream:
        with self.first_bytes.wait() as wait:
            stream = self._adapter.stream(self._manifest, entry, offset, length)
            wait.began()
        return stream

    def _read(self, stream: Stream, view: memoryview) -> int:
        if not stream.asks:
            return stream.readinto(view)
        with self.first_bytes.wait():
            return stream.readinto(view)

    def _gather(self, first: int, views: list[memoryview], progress: Progress) -> None:
        """Pieces of several small entries, from `first` on: a request each, several at once."""
        places: dict[Segment, memoryview] = {}
        for index, view in enumerate(views, first):
            at = 0
            for segment in self._table.segments(index):
                places[segment] = view[at : at + segment.length]
                at += segment.length
        whole = {s.entry: s for s in places if s.length == self._manifest.entries[s.entry].size}
        rest = [s for s in places if s.entry not in whole]
        wanted = [(number, places[s]) for number, s in whole.items()]
        rest += [whole[number] for number in self._many(wanted, progress)]
        if rest:
            self._carefully(rest, places, progress)

    def _carefully(
        self, segments: list[Segment], places: dict[Segment, memoryview], progress: Progress
    ) -> None:
        parts: list[Future[int]] = []
        pool = self._threads()
        try:
            parts += [pool.submit(self._small, segment, places[segment]) for segment in segments]
            for done in parts:
                progress(done.result())
        finally:
            # The buffer is lent: nobody may write into it after this.
            for left in parts:
                left.cancel()
            for left in parts:
                if not left.cancelled():
                    left.exception()

    def _small(self, segment: Segment, view: memoryview) -> int:
        with self._slots:
            return self._whole(segment, view)

    def _whole(self, segment: Segment, view: memoryview) -> int:
        stream = self._open(segment.entry, segment.offset, segment.length)
        try:
            at = 0
            while at < len(view):
                count = self._read(stream, view[at:])
                if not count:
                    raise SourceTruncatedError(
                        f"{self._name(segment.entry)}: truncated, fewer bytes than announced"
                    )
                at += count
        finally:
            stream.close()
        return len(view)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                count = self._settings.small_connections
                self._pool = ThreadPoolExecutor(count, thread_name_prefix="origin-small")
            return self._pool

    def _name(self, entry: int) -> str:
        return self._manifest.entries[entry].path
