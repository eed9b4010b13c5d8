"""What a scheduler has a peer ask of an origin: what is there, and whether a caller may have it. Nothing is fetched."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.checksums import UNFORGEABLE
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import DragonflyError, NotRunningError, SourceBusyError
from dragonfly_ray.model import Manifest, PieceTable, Segment, Task, digest, digest_of
from dragonfly_ray.peer.access_reads import AccessReader, compare
from dragonfly_ray.peer.distributed_stat import DistributedStat, telling
from dragonfly_ray.peer.scheduler_links import Links
from dragonfly_ray.sources import Resolution, Retry, Stop, look, range_reader, resolve
from dragonfly_ray.storage.store import PieceStore
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.urls import redacted
from dragonfly_ray.validators import validator_of

log = logging.getLogger(__name__)


class OriginQueries:
    """Of one peer. `announce` tells the scheduler what is here of a task that was read whole while it was looked at."""

    def __init__(
        self,
        host_id: str,
        store: PieceStore,
        links: Links,
        settings: Settings,
        announce: Callable[[TaskStore], None],
    ) -> None:
        self._host_id = host_id
        self._store = store
        self._links = links
        self._settings = settings
        self._announce = announce
        self._lock = threading.Lock()
        self.looks: dict[tuple[str, str], Stop] = {}
        """(spec id, run) -> what ends the looks at the origin for it."""
        self.looking: Counter[tuple[str, str]] = Counter()

    def stop(self, spec_id: str, run: str) -> None:
        with self._lock:
            found = [stop for (spec, of), stop in self.looks.items() if spec == spec_id and run in ("", of)]
        for stop in found:
            stop.stop()

    @contextlib.contextmanager
    def _stoppable(self, ask: m.Resolve | m.Stat | m.Prove) -> Iterator[Stop]:
        """Looks at the origin for a run of a distribution, which its `Cancel` ends."""
        key = ask.spec_id, ask.run
        with self._lock:
            stop = self.looks.setdefault(key, Stop())
            self.looking[key] += 1
        try:
            yield stop
        finally:
            with self._lock:
                self.looking[key] -= 1
                if not self.looking[key]:
                    del self.looking[key], self.looks[key]

    def resolve(self, ask: m.Resolve) -> m.Resolved:
        """Looks at the origin; the answer carries an error as its kind and message."""
        started = time.monotonic()
        try:
            with self._stoppable(ask) as stop:
                found = self._resolve(ask, stop)
            shown = redacted(ask.source.url)
            log.info("%s resolved after %.2f s", shown, time.monotonic() - started)
            return found
        except DragonflyError as error:
            return m.Resolved(
                kind=error.kind,
                message=str(error),
                retry_after=error.details.get("retry_after") or 0.0,
                failing=error.details.get("failing") or 0.0,
                final=bool(error.details.get("final")),
            )
        except Exception as error:
            log.exception("resolving %s failed", redacted(ask.source.url))
            shown = redacted(ask.source.url)
            return m.Resolved(kind="source", message=f"{shown}: {type(error).__name__}")

    def _resolve(self, ask: m.Resolve, stop: Stop) -> m.Resolved:
        source = ask.source
        transport = self._settings.transport
        limit = transport.small_object if ask.small else 0
        found = resolve(
            source,
            ask.credentials,
            self._settings.origin.sparing(ask.connections, ask.rate),
            small_limit=limit,
            spool=self._store.path / "spool",
            share=DistributedStat(ask, self._links.of(source.id)),
            policy=ask.policy,
            stop=stop,
            room=self._store,
            patience=self._patience(ask),
        )
        try:
            return self._resolved(ask, found, limit, stop)
        finally:
            if found.spooled is not None:
                found.spooled.unlink(missing_ok=True)

    def _patience(self, ask: m.Resolve | m.Stat, *, helps: bool = False) -> Retry:
        """With an origin that fails in the middle of a look; the scheduler is told."""
        told = telling(self._links.of(ask.source.id), self._host_id, ask)
        return Retry(self._settings.origin.give_up, told, helps=helps)

    def _resolved(self, ask: m.Resolve, found: Resolution, limit: int, stop: Stop) -> m.Resolved:
        source = ask.source
        seen = _seen(found)
        # What was seen whole is named by what it is: the next look may see something else under the same version.
        manifest = found.manifest.marked(seen or ask.nonce, seen or ask.generation)
        encoded = manifest.encode()
        table = PieceTable.of(manifest)
        task = Task(
            id=manifest.task_id(source.id),
            source_id=source.id,
            url=redacted(source.url),
            tenant=source.tenant,
            manifest_digest=digest(encoded),
            manifest_size=len(encoded),
            size=table.size,
            pieces=len(table),
            entries=len(manifest.entries),
            directory=manifest.directory,
            ranges=manifest.ranges,
            validator=validator_of(manifest),
        )
        content, digests = b"", b""
        if found.spooled is not None:
            with found.spooled.open("rb") as spooled, self._store.hold(task, manifest, stop.go_on) as store:
                for piece in table:
                    data = spooled.read(piece.length)
                    store.put(piece.index, memoryview(data), digest(data))
            self._announce(store)
        else:
            self._store.open(task, manifest, stop.go_on)
        if found.spooled is None and ask.small and table.size <= limit and found.content is not None:
            content = found.content
            digests = b"".join(digest(content[p.offset : p.offset + p.length]) for p in table)
        return m.Resolved(
            task=task,
            units=_units(manifest, table),
            manifest=encoded,
            content=content,
            digests=digests,
            requests=_requests(manifest, table),
            covered=_covered(manifest, table),
            whole=found.spooled is not None,
        )

    def look(self, ask: m.Stat) -> m.StatReply:
        """At files of a folder that another peer resolves, or samples; an error as in `resolve`."""
        try:
            settings = self._settings.origin.sparing(ask.connections, ask.rate)
            with self._stoppable(ask) as stop:
                if ask.part is not None:
                    spans = [Segment(*span) for span in ask.spans]
                    reader = range_reader(ask.source, ask.credentials, settings, ask.part, ask.policy, stop)
                    with reader as read:
                        return m.StatReply(digests=tuple(digest(data) for data in read(spans)))
                patience = self._patience(ask, helps=True)
                found = look(ask.source, ask.credentials, settings, ask.paths, ask.policy, stop, patience)
        except SourceBusyError as error:
            after = error.retry_after
            return m.StatReply(kind=error.kind, message=str(error), retry_after=after or 0.0)
        except DragonflyError as error:
            return m.StatReply(kind=error.kind, message=str(error))
        except Exception as error:
            shown = redacted(ask.source.url)
            log.exception("stat of files of %s failed", shown)
            return m.StatReply(kind="error", message=f"{shown}: {type(error).__name__}")
        return m.StatReply(
            tuple(s.size for s in found),
            tuple(s.version for s in found),
            tuple(s.ranges for s in found),
            checksums=tuple(s.checksum for s in found) if any(s.checksum for s in found) else (),
        )

    def ask(self, ask: m.Message) -> m.Message:
        """What a scheduler wants to know of the origin or of the store."""
        match ask:
            case m.Resolve():
                return self.resolve(ask)
            case m.Stat():
                return self.look(ask)
            case m.Prove():
                return self._prove(ask)
            case m.CompareSamples():
                store = self._store.get(ask.task_id)
                if store is None:
                    return m.SamplesCompared(
                        ask.host, ask.task_id, missing=tuple(s.entry for s in ask.samples)
                    )
                return compare(store, ask)
            case _:
                return m.Unsupported(type(ask).__name__)

    def _prove(self, ask: m.Prove) -> m.Proved:
        """Reads samples at the origin for whoever may not have what is held otherwise; an error as in `resolve`."""
        try:
            manifest = Manifest.decode(ask.manifest) if ask.manifest else None
            link, settings = self._links.of(ask.source.id), self._settings.origin
            with self._stoppable(ask) as stop:
                opened = self._store.open(ask.task, manifest, stop.go_on) if manifest else None
                store = opened or self._store.get(ask.task.id)
                if store is None:
                    raise NotRunningError(
                        f"host {self._host_id}: task {ask.task.id[:12]} is not in its store"
                    )
                with store.using():
                    return AccessReader(ask, store, link, settings, stop, self._host_id)()
        except DragonflyError as error:
            after = error.details.get("retry_after") or 0.0
            return m.Proved(ask.task.id, kind=error.kind, message=str(error), retry_after=after)
        except Exception as error:
            shown = redacted(ask.source.url)
            log.exception("sampling %s failed", shown)
            return m.Proved(ask.task.id, kind="source", message=f"{shown}: {type(error).__name__}")


def _seen(found: Resolution) -> str:
    """The digest of all of the content, where the look brought it along; else empty."""
    if found.spooled is not None:
        with found.spooled.open("rb") as file:
            return digest_of(file).hex()
    return digest(found.content).hex() if found.content else ""


def _covered(manifest: Manifest, table: PieceTable) -> bytes:
    """The pieces in which every file has a checksum of the origin's that every peer compares."""
    strong = [entry.checksum.partition(":")[0] in UNFORGEABLE for entry in manifest.entries]
    if not any(strong):
        return b""
    pieces = (i for i in range(len(table)) if all(strong[s.entry] for s in table.segments(i)))
    return bitset.to_bytes(bitset.of(pieces), len(table))


def _requests(manifest: Manifest, table: PieceTable) -> tuple[int, ...]:
    """How many requests each piece costs at the origin. A stream that runs through several is one."""
    if not manifest.directory:
        return ()
    if manifest.ranges:
        return tuple(len(table.segments(index)) for index in range(len(table)))
    return tuple(sum(not s.offset for s in table.segments(index)) for index in range(len(table)))


def _units(manifest: Manifest, table: PieceTable) -> tuple[int, ...]:
    """Where the origin has no ranges: the first pieces of the entries that span several."""
    if manifest.ranges:
        return ()
    starts = {0}
    for entry in range(len(manifest.entries)):
        pieces = table.of_entry(entry)
        if len(pieces) > 1:
            starts.add(pieces.start)
            starts.add(pieces.stop)
    return tuple(sorted(s for s in starts if s < len(table)))
