"""Every other protocol: whatever fsspec filesystem is installed for it."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceChangedError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnsupportedError,
)
from dragonfly_ray.model import Credentials, Entry, Manifest, Segment, Source
from dragonfly_ray.names import from_os
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.sources import archived_objects
from dragonfly_ray.sources.archives import LOOSE_LINK, archive_version
from dragonfly_ray.sources.base import (
    Adapter,
    Resolution,
    Room,
    Share,
    Stream,
    check_size,
    chosen,
    comparable,
    counted,
    is_chosen,
    together,
)
from dragonfly_ray.sources.fs_client import FsClient, join
from dragonfly_ray.sources.fs_errors import Errors
from dragonfly_ray.sources.fs_info import mode_of, version_of
from dragonfly_ray.sources.ftp import DEAD_LINK, FOLDER_LINK
from dragonfly_ray.sources.object_listing import Listed, below, check_names, is_flat, is_plain, list_objects
from dragonfly_ray.sources.origin_checksums import in_info, in_s3_head
from dragonfly_ray.sources.stat_retry import Retry
from dragonfly_ray.urls import basename, named_part, redacted

log = logging.getLogger(__name__)

LINK = "link"
"""The type that fsspec gives to a link that it tells of by itself."""
STEP = 8 * 1024 * 1024
"""Bytes that one request asks for. fsspec hands out whole answers, so this is what each connection holds
in memory; and each may cost one more request, for the version."""


class FsspecAdapter(Adapter):
    """One URL on filesystem instances of its own: one, or one for each thread where threads cannot share it."""

    def __init__(
        self,
        source: Source,
        credentials: Credentials,
        settings: OriginSettings,
        policy: UrlPolicy | None = None,
    ) -> None:
        self._source = source
        self._settings = settings
        self._name = redacted(source.url)
        self._measured: tuple[Manifest, int] | None = None
        self._client = FsClient(source, credentials, settings, policy)

    # --- resolving --------------------------------------------------------------------------

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        with Errors(self._name):
            entries = self._folder_of_objects() if is_flat(self._client.any_fs) else self._folder()
            if entries is not None:
                return Resolution(Manifest(entries, directory=True))
            return self._file(small_limit)

    @property
    def _slash(self) -> bool:
        return named_part(self._source.url).endswith("/")

    def _folder(self) -> tuple[Entry, ...] | None:
        """None where it is a file."""
        info, _ = self._client.look_at("")
        if info.get("type") != "directory":
            if self._slash:
                raise SourceNotFoundError(f"{self._name}: is a file; remove the trailing slash")
            return None
        found = counted(self._walk(), self._name, self._settings.max_entries)
        return self._own_versions(chosen(self._source, found))

    def _folder_of_objects(self) -> tuple[Entry, ...] | None:
        """None where it is an object. A slash at the end decides; without it, an object is meant if there is one,
        unless it is empty and others lie below it."""
        try:
            info: Mapping[str, Any] = {} if self._slash else self._client.look_at("")[0]
        except FileNotFoundError:
            info = {}
        if info and info.get("type") != "directory" and info.get("size"):
            return None
        listed = self._listed()
        if not listed.found:
            info = info or self._client.look_at("")[0]
            if info.get("type") != "directory":
                if self._slash:
                    raise SourceNotFoundError(
                        f"{self._name}: a single object with no keys below it; remove the trailing slash"
                    )
                return None
        folders = (path for path in listed.folders - listed.files.keys() if is_plain(path))
        entries = [Entry(path, kind="dir") for path in folders]
        found = chosen(self._source, chain(entries, map(self._entry, listed.files, listed.files.values())))
        check_names(found, self._name)
        kept_away = {path for path, info in listed.files.items() if archived_objects.may_be_archived(info)}
        self._refuse_archived([entry.path for entry in found if entry.path in kept_away])
        return self._own_versions(found)

    def _listed(self) -> Listed:
        most = self._settings.max_entries + 1
        with self._client.lend() as lent:
            found = self._client.sync(list_objects, lent.fs, lent.path, most)
            listed = below(found, lent.path, self._name)
        if len(listed.files) + len(listed.folders) > self._settings.max_entries:
            raise SourceUnsupportedError(
                f"{self._name}: has more than {self._settings.max_entries:,} entries (origin.max_entries)"
            )
        return listed

    def _file(self, small_limit: int) -> Resolution:
        info, version = self._client.look_at("")
        if info.get("size") is None:
            raise SourceUnsupportedError(f"{self._name}: the server does not report its size")
        size = check_size(info["size"], self._name)
        if archived_objects.may_be_archived(info):
            self._refuse_archived([""])
        offered = self._offered(info) if size else ""
        entry = Entry(basename(self._source.url), size, version, mode=mode_of(info), checksum=offered)
        manifest = Manifest((entry,), directory=False)
        if size > small_limit:
            return Resolution(manifest)
        with self._client.lend() as lent:
            content = self._client.read(lent, lent.path, None, None) if size else b""
        if len(content) != size:
            raise SourceTruncatedError(f"{self._name}: truncated, fewer bytes than announced")
        return Resolution(manifest, bytes(content))

    def _offered(self, info: Mapping[str, Any]) -> str:
        """The checksum of the one file that is meant. S3 tells of its encryption, on which it depends what an ETag is,
        only when asked for the file itself; whether that is allowed or not."""
        if not self._client.is_s3:
            return in_info(info)
        answer = self._client.s3_head("", ChecksumMode="ENABLED") if self._settings.checksums else None
        return in_s3_head(answer) if answer and str(answer.get("ETag")) == str(info.get("ETag")) else ""

    def _refuse_archived(self, paths: Sequence[str]) -> None:
        """Of files that a listing tells to be archived; what has been restored can be read, which S3 tells of the file
        alone. Raises `SourceArchivedError`, which names one."""

        def look(path: str) -> None:
            answer = self._client.s3_head(path)
            if answer and (archived := archived_objects.in_s3_head(answer)):
                raise archived.error(f"{self._name} ({path})" if path else self._name)

        if paths:
            together(self._settings.small_connections, paths, look)

    def _walk(self) -> Iterator[Entry]:
        with self._client.lend() as lent:
            root = lent.path.rstrip("/") or lent.path
            found = self._client.ask(lent.fs, "find", root, withdirs=True, detail=True)
            held = archive_version(lent.fs, version_of)
        for path, info in found.items():
            relative = from_os(_relative(path.strip("/"), root.strip("/")))
            if not relative:
                continue
            if info.get("type") == LINK:
                info = self._led_to(path, info)
            if info.get("type") == "directory" or path.endswith("/"):
                yield Entry(relative, kind="dir", mode=mode_of(info))
            elif info.get("type") == LOOSE_LINK:
                target = from_os(info["linkname"])
                yield Entry(relative, kind="symlink", target=target, version=target)
            elif info.get("type") in (FOLDER_LINK, DEAD_LINK):
                if is_chosen(self._source, relative):
                    raise SourceUnsupportedError(
                        f"{self._name}: {relative!r} is a symlink to a folder, or a dangling one; exclude it"
                    )
            elif info.get("type") == "other":
                log.warning("%s: skipping %r, not a regular file or folder", self._name, relative)
            else:
                yield self._entry(relative, info, held)

    def _led_to(self, path: str, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """A listing that tells of links themselves, and of their lengths."""
        try:
            with self._client.lend() as lent:
                led: Mapping[str, Any] = self._client.ask(lent.fs, "info", path)
        except FileNotFoundError:
            return {**info, "type": DEAD_LINK}
        return {**led, "type": FOLDER_LINK} if led.get("type") == "directory" else led

    def _entry(self, path: str, info: Mapping[str, Any], held: str | None = None) -> Entry:
        """`held`: the version of the archive that it is in."""
        size = check_size(info["size"] or 0, f"{self._name} ({path})")
        version = version_of(info) if held is None else held
        offered = "" if self._client.is_s3 else in_info(info)
        return Entry(path, size, version, mode=mode_of(info), checksum=offered)

    def _own_versions(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Files of several pieces are compared with what `info` says: where a listing spells versions in
        another way, they are looked at one by one."""
        leaf = Manifest(entries, directory=True).leaf
        long = [entry for entry in entries if entry.size > leaf]
        if (
            not long
            or self._condition(self._client.any_fs, long[0])
            or self._look(long[0]).version == long[0].version
        ):
            return entries
        looked = together(self._settings.small_connections, long, self._look)
        found = {entry.path: entry for entry in looked}
        return tuple(found.get(entry.path, entry) for entry in entries)

    def _look(self, entry: Entry) -> Entry:
        name = f"{self._name} ({entry.path})"
        with Errors(name):
            info, version = self._client.look_at(entry.path)
        if info.get("type") == "directory" or info.get("size") is None:
            raise SourceUnsupportedError(
                f"{name}: listed as a file, but cannot be opened as one; rename or exclude it"
            )
        size = check_size(info["size"], name)
        return msgspec.structs.replace(entry, size=size, version=version)

    # --- reading ----------------------------------------------------------------------------

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        entry = manifest.entries[number]
        return _Ranges(self, entry.path if manifest.directory else "", entry, offset, length)

    @property
    def patience(self) -> Retry | None:
        return self._client.patience

    @patience.setter
    def patience(self, patience: Retry | None) -> None:
        self._client.patience = patience

    def abort(self) -> None:
        self._client.abort()

    def rest(self) -> None:
        self._client.rest()

    def close(self) -> None:
        self._client.close()

    def range_of(self, manifest: Manifest, span: Segment) -> bytes:
        """Of a file that is read whole otherwise, the listing may spell the version in another way: see
        `_own_versions`. What is read here is compared with what is held."""
        entry = manifest.entries[span.entry]
        below = entry.path if manifest.directory else ""
        spelt = not manifest.directory or entry.size > self._leaf(manifest)
        return self.range(below, entry, span.offset, span.offset + span.length, check=spelt)

    def _leaf(self, manifest: Manifest) -> int:
        """It is counted from all entries, which takes too long to do for each of them."""
        measured = self._measured
        if measured is None or measured[0] is not manifest:
            measured = self._measured = manifest, manifest.leaf
        return measured[1]

    def range(self, below: str, entry: Entry, start: int, end: int, *, check: bool = True) -> bytes:
        """The bytes [start, end) of the version in the manifest. `below`: its path below the URL's.

        Raises `SourceChangedError` for another. An entry that comes whole in one answer cannot be mixed,
        and is taken as it is; but for a member of an archive, whose index may be of another version.
        """
        name = f"{self._name} ({entry.path})"
        part = end - start < entry.size
        with Errors(name), self._client.lend() as lent:
            etag = self._condition(lent.fs, entry)
            path = join(lent.path, below)
            if part and etag:
                data = self._matching(lent.fs, path, etag, start, end)
            else:
                data = self._client.read(lent, path, start, end)
            held = archive_version(lent.fs, version_of)
        if held is not None:
            _compare(held, entry, name)
        elif part and not etag and check:
            self._check(below, entry)
        if len(data) != end - start:
            raise SourceTruncatedError(f"{name}: sent {len(data)} bytes instead of {end - start}")
        return data

    def _condition(self, fs: Any, entry: Entry) -> str:
        """The ETag, where one request can read and compare it: s3fs, and a strong one (RFC 9110, 13.1.1). Otherwise empty."""
        conditional = self._client.is_s3 and hasattr(fs, "_call_s3")
        key, _, etag = comparable(entry).partition("=")
        return etag if conditional and key == "ETag" and not etag.startswith("W/") else ""

    def _matching(self, fs: Any, path: str, etag: str, start: int, end: int) -> bytes:
        bucket, key, version = fs.split_path(path)
        pinned = {"VersionId": version} if version else {}
        answer = self._client.sync(
            fs._call_s3,
            "get_object",
            Bucket=bucket,
            Key=key,
            Range=f"bytes={start}-{end - 1}",
            IfMatch=f'"{etag}"',
            **pinned,
        )
        # Not every store that speaks S3 heeds the condition; and what is before it may weaken the ETag of the answer.
        same = str(answer.get("ETag", "")).removeprefix("W/").strip('"') == etag
        data: bytes = self._client.sync(_body, answer["Body"], same)
        if not same:
            raise SourceChangedError(f"{self._name}: has changed since it was resolved")
        return data

    def _check(self, below: str, entry: Entry) -> None:
        """After bytes have come: raises `SourceChangedError` if they may be of another version."""
        with Errors(self._name):
            info, version = self._client.look_at(below)
        _compare(version, entry, f"{self._name} ({entry.path})")
        if int(info.get("size") or 0) != entry.size:
            raise SourceChangedError(f"{self._name} ({entry.path}): has changed since it was resolved")


def _compare(version: str, entry: Entry, name: str) -> None:
    wanted = comparable(entry)
    if wanted and version != wanted:
        raise SourceChangedError(f"{name}: has changed since it was resolved")


def _relative(path: str, root: str) -> str:
    """Empty for the root itself; both without slashes at their ends."""
    if not root or path.startswith(f"{root}/"):
        return path[len(root) :].removeprefix("/")
    return "" if path == root else posixpath.relpath(path, root)


async def _body(body: Any, wanted: bool) -> bytes:
    """All of an answer's body, or none."""
    try:
        return await body.read() if wanted else b""
    finally:
        body.close()


class _Ranges(Stream):
    """A request for each few MiB; none is handed out before its version is known to be the manifest's."""

    def __init__(self, adapter: FsspecAdapter, below: str, entry: Entry, offset: int, length: int) -> None:
        self._adapter, self._below, self._entry = adapter, below, entry
        self._at, self._end = offset, offset + length
        self._data = memoryview(b"")

    @property
    def asks(self) -> bool:  # type: ignore[override]
        return not self._data

    def readinto(self, view: memoryview) -> int:
        if not self._data:
            stop = min(self._end, self._at + STEP)
            if stop == self._at:
                return 0
            self._data = memoryview(self._adapter.range(self._below, self._entry, self._at, stop))
            self._at = stop
        count = min(len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count
