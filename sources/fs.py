"""Every other protocol: whatever fsspec filesystem is installed for it."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import posixpath
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import msgspec
from fsspec.asyn import AsyncFileSystem

from dragonfly_ray.ambient import own_options
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceTruncatedError,
    SourceUnreachableError,
    SourceUnsupportedError,
)
from dragonfly_ray.model import Credentials, Entry, Manifest, Segment, Source
from dragonfly_ray.policy import HOST_OPTIONS, UrlPolicy, rules
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
)
from dragonfly_ray.sources.gcs import bound_look_ups
from dragonfly_ray.sources.guard import forbidden_in, guarded_loop
from dragonfly_ray.sources.offered import in_info, in_s3_head
from dragonfly_ray.urls import basename, redacted, scheme

log = logging.getLogger(__name__)

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure",
          "hdfs": "hdfs"}  # fmt: skip
_VERSION_KEYS = ("ETag", "etag", "version_id", "VersionId", "generation", "md5Hash", "md5", "ino")
_TIME_KEYS = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
STEP = 8 * 1024 * 1024
"""Bytes that one request asks for. fsspec hands out whole answers, so this is what each connection holds
in memory; and each may cost one more request, for the version."""


class FsspecAdapter(Adapter):
    """One URL on one filesystem instance of its own.

    Under a policy of URLs, storage options that name hosts are checked by their text. Filesystems that
    fsspec runs on asyncio (S3, Google and Azure storage among them) then connect on a loop that asks for
    every address, after every look-up; what these libraries do beside it, such as a synchronous renewal
    of a token, is not seen. The node's own credentials are not looked for, see `ambient`. Others (HDFS by
    way of Java, and whatever brings sockets of its own) cannot be made to ask: what their host's name
    stands for is looked up and checked once, here, and may be another when they connect. Names of hosts
    behind a redirect are not compared with the patterns of the policy, only their addresses are.
    """

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
        self._waiting: set[Future[Any]] = set()
        self._waiting_lock = threading.Lock()
        self._aborted = False
        options: Any = {
            **credentials.storage_options,
            "skip_instance_cache": True,
            "use_listings_cache": False,
        }
        protocol = scheme(source.url)
        try:
            if policy is not None:
                options |= own_options(source.url, credentials.storage_options, policy, os.environ)
                options |= _guard(source.url, credentials.storage_options, policy, self._name)
            self._fs, self._path = fsspec.core.url_to_fs(source.url, **options)
            bound_look_ups(self._fs, guarded=policy is not None)
        except (ImportError, ValueError) as error:
            extra = EXTRAS.get(protocol)
            hint = f"; pip install 'dragonfly-ray[{extra}]'" if extra else "; install a filesystem for it"
            raise SourceUnsupportedError(
                f"{self._name}: protocol {protocol!r} is not installed on this node{hint}"
            ) from (None if isinstance(error, ImportError) else error)
        except TypeError as error:
            raise SourceUnsupportedError(f"{self._name}: storage_options do not fit: {error}") from None

    @property
    def _is_s3(self) -> bool:
        return scheme(self._source.url) in ("s3", "s3a")

    # --- resolving --------------------------------------------------------------------------

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        with _Errors(self._name):
            info = self._call("info", self._path)
            if info.get("type") == "directory":
                found = counted(self._walk(), self._name, self._settings.max_entries)
                entries = self._own_versions(chosen(self._source, found))
                return Resolution(Manifest(entries, directory=True))
            size = info.get("size")
            if size is None:
                raise SourceUnsupportedError(f"{self._name}: does not say how long it is")
            size = check_size(size, self._name)
            offered = self._offered(info) if size else ""
            name = basename(self._source.url)
            entry = Entry(name, size, _version(info), mode=_mode(info), checksum=offered)
            manifest = Manifest((entry,), directory=False)
            if size > small_limit:
                return Resolution(manifest)
            content = self._call("cat_file", self._path) if size else b""
            if len(content) != size:
                raise SourceTruncatedError(f"{self._name}: ended too early")
            return Resolution(manifest, bytes(content))

    def _offered(self, info: Mapping[str, Any]) -> str:
        """The checksum of the one file that is meant. S3 tells of its encryption, on which it depends what an ETag is,
        only when asked for the file itself; whether that is allowed or not."""
        if not self._is_s3:
            return in_info(info)
        if not self._settings.checksums or not hasattr(self._fs, "_call_s3"):
            return ""
        bucket, key, version = self._fs.split_path(self._path)
        pinned = {"VersionId": version} if version else {}
        try:
            with _Errors(self._name):
                answer = self._sync(
                    self._fs._call_s3, "head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED", **pinned
                )
        except SourceError as error:
            if self._aborted:
                raise
            log.info("no checksum is offered: %s", error)
            return ""
        return in_s3_head(answer) if str(answer.get("ETag")) == str(info.get("ETag")) else ""

    def _walk(self) -> Iterator[Entry]:
        root = self._path.rstrip("/")
        most = self._settings.max_entries + 1
        bounds = {"max_items": most} if self._is_s3 else {}
        if hasattr(self._fs, "_do_list_objects"):  # gcsfs; the instance is ours alone
            self._fs._do_list_objects = partial(self._fs._do_list_objects, max_results=most)
        for path, info in self._call("find", root, withdirs=True, detail=True, **bounds).items():
            relative = posixpath.relpath(path, root)
            # An object store's placeholder for a folder has the folder's name and no bytes.
            if relative == "." or path.rstrip("/") == root:
                continue
            if info.get("type") == "directory" or path.endswith("/"):
                yield Entry(relative, kind="dir", mode=_mode(info))
            else:
                size = check_size(info["size"] or 0, f"{self._name} ({relative})")
                offered = "" if self._is_s3 else in_info(info)
                yield Entry(relative, size, _version(info), mode=_mode(info), checksum=offered)

    def _own_versions(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Files of several pieces are compared with what `info` says: where a listing spells versions in
        another way, they are looked at one by one."""
        leaf = Manifest(entries, directory=True).leaf
        long = [entry for entry in entries if entry.size > leaf]
        if not long or self._condition(long[0]) or self._look(long[0]).version == long[0].version:
            return entries
        pool = ThreadPoolExecutor(self._settings.small_connections, thread_name_prefix="look")
        try:
            found = {entry.path: entry for entry in pool.map(self._look, long)}
        finally:
            pool.shutdown(cancel_futures=True)
        return tuple(found.get(entry.path, entry) for entry in entries)

    def _look(self, entry: Entry) -> Entry:
        info = self._call("info", f"{self._path.rstrip('/')}/{entry.path}")
        size = check_size(info.get("size") or 0, f"{self._name} ({entry.path})")
        return msgspec.structs.replace(entry, size=size, version=_version(info))

    # --- reading ----------------------------------------------------------------------------

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        entry = manifest.entries[number]
        path = f"{self._path.rstrip('/')}/{entry.path}" if manifest.directory else self._path
        return _Ranges(self, path, entry, offset, length)

    def abort(self) -> None:
        """What runs on asyncio is cancelled; what does not, ends with the request that is under way."""
        with self._waiting_lock:
            self._aborted = True
            waiting = list(self._waiting)
        for each in waiting:
            each.cancel()

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        """A method of the filesystem; `abort` ends it where the filesystem runs on asyncio."""
        if isinstance(self._fs, AsyncFileSystem):
            return self._sync(getattr(self._fs, f"_{name}"), *args, **options)
        return getattr(self._fs, name)(*args, **options)

    def _sync(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The answer of a coroutine function, run where the filesystem runs."""
        work = asyncio.run_coroutine_threadsafe(ask(*args, **options), self._fs.loop)
        with self._waiting_lock:
            self._waiting.add(work)
            aborted = self._aborted
        if aborted:
            work.cancel()
        try:
            return work.result()
        except CancelledError:
            raise SourceError(f"{self._name}: not wanted any more") from None
        finally:
            with self._waiting_lock:
                self._waiting.discard(work)

    def range_of(self, manifest: Manifest, span: Segment) -> bytes:
        """Of a file that is read whole otherwise, the listing may spell the version in another way: see
        `_own_versions`. What is read here is compared with what is held."""
        entry = manifest.entries[span.entry]
        path = f"{self._path.rstrip('/')}/{entry.path}" if manifest.directory else self._path
        spelt = not manifest.directory or entry.size > manifest.leaf
        return self.range(path, entry, span.offset, span.offset + span.length, check=spelt)

    def range(self, path: str, entry: Entry, start: int, end: int, *, check: bool = True) -> bytes:
        """The bytes [start, end) of the version in the manifest.

        Raises `SourceChangedError` for another. An entry that comes whole in one answer cannot be mixed,
        and is taken as it is.
        """
        name = f"{self._name} ({entry.path})"
        part = end - start < entry.size
        etag = self._condition(entry)
        with _Errors(name):
            same = part and etag
            data = (
                self._matching(path, etag, start, end)
                if same
                else self._call("cat_file", path, start=start, end=end)
            )
        if part and not etag and check:
            self._check(path, entry)
        if len(data) != end - start:
            raise SourceTruncatedError(f"{name}: sent {len(data)} bytes instead of {end - start}")
        return data

    def _condition(self, entry: Entry) -> str:
        """The ETag, where one request can read and compare it: s3fs. Otherwise empty."""
        conditional = self._is_s3 and hasattr(self._fs, "_call_s3")
        key, _, etag = comparable(entry).partition("=")
        return etag if conditional and key == "ETag" else ""

    def _matching(self, path: str, etag: str, start: int, end: int) -> bytes:
        bucket, key, version = self._fs.split_path(path)
        pinned = {"VersionId": version} if version else {}
        answer = self._sync(
            self._fs._call_s3,
            "get_object",
            Bucket=bucket,
            Key=key,
            Range=f"bytes={start}-{end - 1}",
            IfMatch=f'"{etag}"',
            **pinned,
        )
        # Not every store that speaks S3 heeds the condition.
        same = str(answer.get("ETag", "")).strip('"') == etag
        data: bytes = self._sync(_body, answer["Body"], same)
        if not same:
            raise SourceChangedError(f"{self._name}: has changed since it was looked at")
        return data

    def _check(self, path: str, entry: Entry) -> None:
        """After bytes have come: raises `SourceChangedError` if they may be of another version."""
        with _Errors(self._name):
            info = self._call("info", path)
        wanted = comparable(entry)
        if (wanted and _version(info) != wanted) or int(info.get("size") or 0) != entry.size:
            raise SourceChangedError(f"{self._name} ({entry.path}): has changed since it was looked at")


def _guard(url: str, given: Mapping[str, object], policy: UrlPolicy, name: str) -> dict[str, Any]:
    """Options that make a filesystem ask the policy; for one that cannot, its host is looked up once."""
    if issubclass(fsspec.get_filesystem_class(scheme(url)), AsyncFileSystem):
        return {"loop": guarded_loop(policy)}
    if HOST_OPTIONS.intersection(each.lower() for each in given):
        raise SourceForbiddenError(f"{name}: its host must be named in the URL, not in storage_options")
    host = urlsplit(url).hostname
    if host:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise SourceUnreachableError(f"{name}: no such host; check its name") from None
        for each in found:
            rules(policy).address(str(each[4][0]), name)
    return {}


async def _body(body: Any, wanted: bool) -> bytes:
    """All of an answer's body, or none."""
    try:
        return await body.read() if wanted else b""
    finally:
        body.close()


class _Ranges(Stream):
    """A request for each few MiB; none is handed out before its version is known to be the manifest's."""

    def __init__(self, adapter: FsspecAdapter, path: str, entry: Entry, offset: int, length: int) -> None:
        self._adapter, self._path, self._entry = adapter, path, entry
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
            self._data = memoryview(self._adapter.range(self._path, self._entry, self._at, stop))
            self._at = stop
        count = min(len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def _version(info: Mapping[str, Any]) -> str:
    for key in (*_VERSION_KEYS, *_TIME_KEYS):
        value = info.get(key)
        if value:
            shown = value.isoformat() if isinstance(value, datetime.datetime) else str(value)
            return f"{key}={shown.strip(chr(34))}"
    return ""


def _mode(info: Mapping[str, Any]) -> int | None:
    mode = info.get("mode")
    return stat.S_IMODE(mode) if isinstance(mode, int) else None


class _Errors:
    """Turns what filesystems raise into this package's errors, without their texts: those may hold secrets."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, SourceError) or not isinstance(error, Exception):
            return
        raise self._typed(error) from None

    def _typed(self, error: Exception) -> SourceError:
        refused = forbidden_in(error)
        if refused:
            return SourceForbiddenError(f"{self._name}: {refused}")
        status = _status(error)
        if isinstance(error, FileNotFoundError) or status == 404:
            return SourceNotFoundError(f"{self._name}: not found")
        if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
            return SourceAuthError(f"{self._name}: not allowed; check storage_options")
        if status in (429, 503):
            return SourceBusyError(f"{self._name}: {status}, asks for patience", retry_after=None)
        if status == 412:
            return SourceChangedError(f"{self._name}: has changed since it was looked at")
        if isinstance(error, TypeError):
            return SourceUnsupportedError(
                f"{self._name}: does not take these storage_options; check their names"
            )
        if isinstance(error, (ImportError, NotImplementedError)):
            return SourceUnsupportedError(f"{self._name}: {type(error).__name__}")
        return SourceUnreachableError(f"{self._name}: could not be read ({type(error).__name__})")


def _status(error: BaseException | None) -> int | None:
    """An HTTP status in the error or in what caused it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(found, int):
                return found
        for name in ("status", "status_code", "code"):
            found = getattr(error, name, None)
            if isinstance(found, int):
                return found
        error = error.__cause__
    return None
