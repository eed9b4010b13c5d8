"""Where content comes from: one interface over HTTP, local files and every fsspec filesystem."""

from __future__ import annotations

if __name__ != "dragonfly_ray.sources":
    raise ImportError("import dragonfly_ray.sources: a second copy under another name would break pickling")

import dataclasses
import errno
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dragonfly_ray.checksums import EntryChecksums, offers_any
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import IntegrityError, StorageFullError
from dragonfly_ray.model import Credentials, Manifest, PieceTable, Segment, Source
from dragonfly_ray.policy import UrlPolicy, check_url
from dragonfly_ray.source_identity import check_headers
from dragonfly_ray.sources.base import (
    Adapter,
    Boundless,
    Progress,
    Resolution,
    Room,
    Seen,
    Share,
    Stat,
    Stop,
    Take,
    alone,
    check_bounds,
)
from dragonfly_ray.sources.http import HttpAdapter  # now, or the first distribution of a peer waits for it
from dragonfly_ray.sources.reader import Reader
from dragonfly_ray.sources.stat_retry import Retry
from dragonfly_ray.sources.symlinks import check_links
from dragonfly_ray.urls import redacted, scheme

__all__ = [
    "Adapter",
    "Boundless",
    "Progress",
    "Reader",
    "Resolution",
    "Retry",
    "Room",
    "Seen",
    "Share",
    "Stat",
    "Stop",
    "Take",
    "look",
    "open_reader",
    "range_reader",
    "resolve",
]


def _adapter(
    source: Source, credentials: Credentials, settings: OriginSettings, policy: UrlPolicy | None
) -> Adapter:
    check_headers(credentials.headers)
    if policy is not None:
        check_url(source.url, policy, credentials.storage_options)
    match scheme(source.url):
        case "http" | "https":
            return HttpAdapter(source, credentials, settings, policy)
        case "file" | "local":
            from dragonfly_ray.sources.local import LocalAdapter

            return LocalAdapter(source, settings, policy)
        case _:
            from dragonfly_ray.sources.fs import FsspecAdapter

            return FsspecAdapter(source, credentials, settings, policy)


def resolve(
    source: Source,
    credentials: Credentials,
    settings: OriginSettings,
    *,
    small_limit: int = 0,
    spool: Path | None = None,
    share: Share = alone,
    policy: UrlPolicy | None = None,
    stop: Stop | None = None,
    room: Room | None = None,
    patience: Retry | None = None,
) -> Resolution:
    """Looks at the origin once: names, sizes, versions.

    Content of at most `small_limit` bytes comes along where that costs no further request. Where the
    origin does not say how long the content is, it is streamed once into a file in `spool`. Files that
    must be looked at one by one go through `share`. `policy`: what may be asked; None: anything. `stop` ends it from another thread.
    `room`: what may be written; None: anything. `patience`: with an origin that fails once something has answered;
    None: it fails at once.
    Raises `SourceError`, `StorageFullError`, `UnsafePathError`.
    """
    room, stop = room or Boundless(), stop or Stop()
    adapter = _adapter(source, credentials, settings, policy)
    adapter.patience = patience
    try:
        with stop.over(adapter):
            found = adapter.resolve(small_limit, spool, share, room)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFullError(f"{redacted(source.url)}: the disk is full ({spool})") from None
    finally:
        adapter.close()
    try:
        check_bounds(found.manifest, redacted(source.url), settings.max_entries, room)
        check_links(found.manifest, source, bound=policy is not None, go_on=stop.go_on)
        found = _compared(found, redacted(source.url), settings)
    except BaseException:
        if found.spooled is not None:
            found.spooled.unlink()
        raise
    return found


def _compared(found: Resolution, name: str, settings: OriginSettings) -> Resolution:
    """Raises `IntegrityError` where content that came along is not what the origin offers."""
    if not settings.checksums:
        plain = tuple(
            msgspec.structs.replace(e, checksum="") if e.checksum else e for e in found.manifest.entries
        )
        return dataclasses.replace(found, manifest=msgspec.structs.replace(found.manifest, entries=plain))
    content = found.content
    if not offers_any(found.manifest) or (content is None and found.spooled is None):
        return found
    table = PieceTable.of(found.manifest)
    following = EntryChecksums(found.manifest, table)
    with io.BytesIO(content) if content is not None else open(found.spooled or "", "rb") as data:
        for piece in table:
            following.feed(piece.index, data.read(piece.length))
    if following.mismatch:
        raise IntegrityError(
            f"{name} {following.mismatch}; if the origin's own checksum is wrong, set origin.checksums to false"
        )
    return found


def look(
    source: Source,
    credentials: Credentials,
    settings: OriginSettings,
    paths: Sequence[str],
    policy: UrlPolicy | None = None,
    stop: Stop | None = None,
    patience: Retry | None = None,
) -> list[Seen]:
    """Looks at files of a folder for whoever resolves it; see `resolve`. Raises `SourceError`."""
    adapter = _adapter(source, credentials, settings, policy)
    adapter.patience = patience
    try:
        with (stop or Stop()).over(adapter):
            return adapter.look(paths)
    finally:
        adapter.close()


@contextmanager
def range_reader(
    source: Source,
    credentials: Credentials,
    settings: OriginSettings,
    manifest: Manifest,
    policy: UrlPolicy | None = None,
    stop: Stop | None = None,
) -> Iterator[Callable[[Sequence[Segment]], list[bytes]]]:
    """Reads a few bytes of each of several entries, of the versions in the manifest: in order.

    The first refusal ends it: its error names the entry. `stop` as for `resolve`. Raises `SourceError`.
    """
    adapter = _adapter(source, credentials, settings, policy)
    try:
        with (stop or Stop()).over(adapter):
            yield lambda spans: adapter.ranges(manifest, spans, settings.small_connections)
    finally:
        adapter.close()


def open_reader(
    source: Source,
    credentials: Credentials,
    manifest: Manifest,
    table: PieceTable,
    settings: OriginSettings,
    policy: UrlPolicy | None = None,
) -> Reader:
    """Reads pieces of a resolved source; thread-safe."""
    return Reader(_adapter(source, credentials, settings, policy), manifest, table, settings)
