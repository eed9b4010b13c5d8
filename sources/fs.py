"""Every other protocol: whatever fsspec filesystem is installed for it."""

from __future__ import annotations

import asyncio
import datetime
import ftplib
import logging
import os
import posixpath
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import chain
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
from dragonfly_ray.names import from_os, to_os
from dragonfly_ray.policy import HOST_OPTIONS, UrlPolicy, rules
from dragonfly_ray.sources import failures, gcs, storage_class
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
from dragonfly_ray.sources.fs_defaults import with_defaults
from dragonfly_ray.sources.ftp import DEAD_LINK, FOLDER_LINK
from dragonfly_ray.sources.guard import forbidden_in, guarded_loop
from dragonfly_ray.sources.instances import Instances, Opened, open_filesystem
from dragonfly_ray.sources.layers import inside, on_asyncio
from dragonfly_ray.sources.object_listing import Listed, below, check_names, is_flat, is_plain, list_objects
from dragonfly_ray.sources.offered import in_info, in_s3_head
from dragonfly_ray.sources.stored_bytes import reads_stored
from dragonfly_ray.urls import basename, links, named_link, redacted, scheme

log = logging.getLogger(__name__)

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure",
          "hdfs": "hdfs"}  # fmt: skip
_VERSION_KEYS = ("ETag", "etag", "version_id", "VersionId", "generation", "md5Hash", "md5", "ino")
_TIME_KEYS = (
    "LastModified",
    "Last-Modified",
    "last_modified",
    "mtime",
    "modified",
    "modify",
    "updated",
    "created",
)
LINK = "link"
"""The type that fsspec gives to a link that it tells of by itself."""
STEP = 8 * 1024 * 1024
"""Bytes that one request asks for. fsspec hands out whole answers, so this is what each connection holds
in memory; and each may cost one more request, for the version."""


class FsspecAdapter(Adapter):
    """One URL on filesystem instances of its own: one, or one for each thread where threads cannot share it.

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
        self._measured: tuple[Manifest, int] | None = None
        self._options: dict[str, Any] = dict(credentials.storage_options)
        for protocol in map(scheme, links(source.url)):
            _check_installed(protocol, self._name)
        self._guarded = policy is not None
        if policy is not None:
            self._options |= own_options(source.url, credentials.storage_options, policy, os.environ)
            self._options |= _guard(source.url, credentials.storage_options, policy, self._name)
        self._options = with_defaults(source.url, self._options, settings, guarded=self._guarded)
        self._loop: Any = None
        self._instances = Instances(self._open)

    def _open(self) -> Opened:
        with _Errors(self._name):
            opened = open_filesystem(self._source.url, self._options, self._settings.answer_timeout)
        for each in inside(opened.fs):
            gcs.bound_look_ups(each, guarded=self._guarded)
        self._loop = getattr(opened.fs, "loop", self._loop)
        return opened

    @property
    def _fs(self) -> Any:
        """An instance to look at; only those of object stores may be called without having it to oneself."""
        with self._instances.lend() as lent:
            return lent.fs

    @property
    def _is_s3(self) -> bool:
        return scheme(self._source.url) in ("s3", "s3a")

    # --- resolving --------------------------------------------------------------------------

    def resolve(self, small_limit: int, spool: Path | None, share: Share, room: Room) -> Resolution:
        with _Errors(self._name):
            entries = self._folder_of_objects() if is_flat(self._fs) else self._folder()
            if entries is not None:
                return Resolution(Manifest(entries, directory=True))
            return self._file(small_limit)

    @property
    def _slash(self) -> bool:
        return named_link(self._source.url).endswith("/")

    def _folder(self) -> tuple[Entry, ...] | None:
        """None where it is a file."""
        info, _ = self._look_at("")
        if info.get("type") != "directory":
            if self._slash:
                raise SourceNotFoundError(f"{self._name}: is a file; leave out the slash at its end")
            return None
        found = counted(self._walk(), self._name, self._settings.max_entries)
        return self._own_versions(chosen(self._source, found))

    def _folder_of_objects(self) -> tuple[Entry, ...] | None:
        """None where it is an object. A slash at the end decides; without it, an object is meant if there is one,
        unless it is empty and others lie below it."""
        try:
            info: Mapping[str, Any] = {} if self._slash else self._look_at("")[0]
        except FileNotFoundError:
            info = {}
        if info and info.get("type") != "directory" and info.get("size"):
            return None
        listed = self._listed()
        if not listed.found:
            info = info or self._look_at("")[0]
            if info.get("type") != "directory":
                if self._slash:
                    raise SourceNotFoundError(
                        f"{self._name}: is an object, with none below it; leave out the slash at its end"
                    )
                return None
        folders = (path for path in listed.folders - listed.files.keys() if is_plain(path))
        entries = [Entry(path, kind="dir") for path in folders]
        found = chosen(self._source, chain(entries, map(self._entry, listed.files, listed.files.values())))
        check_names(found, self._name)
        kept_away = {path for path, info in listed.files.items() if storage_class.may_be_archived(info)}
        self._refuse_archived([entry.path for entry in found if entry.path in kept_away])
        return self._own_versions(found)

    def _listed(self) -> Listed:
        most = self._settings.max_entries + 1
        with self._instances.lend() as lent:
            found = self._sync(list_objects, lent.fs, lent.path, most)
            listed = below(found, lent.path, self._name)
        if len(listed.files) + len(listed.folders) > self._settings.max_entries:
            raise SourceUnsupportedError(
                f"{self._name}: has more than {self._settings.max_entries:,} entries (origin.max_entries)"
            )
        return listed

    def _file(self, small_limit: int) -> Resolution:
        info, version = self._look_at("")
        if info.get("size") is None:
            raise SourceUnsupportedError(f"{self._name}: does not say how long it is")
        size = check_size(info["size"], self._name)
        if storage_class.may_be_archived(info):
            self._refuse_archived([""])
        offered = self._offered(info) if size else ""
        entry = Entry(basename(self._source.url), size, version, mode=_mode(info), checksum=offered)
        manifest = Manifest((entry,), directory=False)
        if size > small_limit:
            return Resolution(manifest)
        with self._instances.lend() as lent:
            content = self._read(lent, lent.path, None, None) if size else b""
        if len(content) != size:
            raise SourceTruncatedError(f"{self._name}: ended too early")
        return Resolution(manifest, bytes(content))

    def _offered(self, info: Mapping[str, Any]) -> str:
        """The checksum of the one file that is meant. S3 tells of its encryption, on which it depends what an ETag is,
        only when asked for the file itself; whether that is allowed or not."""
        if not self._is_s3:
            return in_info(info)
        answer = self._s3_head("", ChecksumMode="ENABLED") if self._settings.checksums else None
        return in_s3_head(answer) if answer and str(answer.get("ETag")) == str(info.get("ETag")) else ""

    def _s3_head(self, below: str, **more: str) -> Mapping[str, Any] | None:
        """What S3 tells of one file; None where it does not, which says nothing of the file."""
        with self._instances.lend() as lent:
            fs, path = lent.fs, _join(lent.path, below)
        if not hasattr(fs, "_call_s3"):
            return None
        bucket, key, version = fs.split_path(path)
        pinned = {"VersionId": version} if version else {}
        try:
            with _Errors(self._name):
                answer: Mapping[str, Any] = self._sync(
                    fs._call_s3, "head_object", Bucket=bucket, Key=key, **more, **pinned
                )
        except SourceError as error:
            if self._aborted:
                raise
            log.info("no answer to HEAD: %s", error)
            return None
        return answer

    def _refuse_archived(self, paths: Sequence[str]) -> None:
        """Of files that a listing tells to be archived; what has been restored can be read, which S3 tells of the file
        alone. Raises `SourceArchivedError`, which names one."""

        def look(path: str) -> None:
            answer = self._s3_head(path)
            if answer and (archived := storage_class.in_s3_head(answer)):
                raise archived.error(f"{self._name} ({path})" if path else self._name)

        if paths:
            together(self._settings.small_connections, paths, look)

    def _walk(self) -> Iterator[Entry]:
        with self._instances.lend() as lent:
            root = lent.path.rstrip("/") or lent.path
            found = self._ask(lent.fs, "find", root, withdirs=True, detail=True)
            held = archive_version(lent.fs, _version)
        for path, info in found.items():
            relative = from_os(_relative(path.strip("/"), root.strip("/")))
            if not relative:
                continue
            if info.get("type") == LINK:
                info = self._led_to(path, info)
            if info.get("type") == "directory" or path.endswith("/"):
                yield Entry(relative, kind="dir", mode=_mode(info))
            elif info.get("type") == LOOSE_LINK:
                target = from_os(info["linkname"])
                yield Entry(relative, kind="symlink", target=target, version=target)
            elif info.get("type") in (FOLDER_LINK, DEAD_LINK):
                if is_chosen(self._source, relative):
                    raise SourceUnsupportedError(
                        f"{self._name}: {relative!r} is a link to a folder, or to nothing; leave it out with exclude"
                    )
            elif info.get("type") == "other":
                log.warning("%s: %r is left out, being neither a file nor a folder", self._name, relative)
            else:
                yield self._entry(relative, info, held)

    def _led_to(self, path: str, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """A listing that tells of links themselves, and of their lengths."""
        try:
            with self._instances.lend() as lent:
                led: Mapping[str, Any] = self._ask(lent.fs, "info", path)
        except FileNotFoundError:
            return {**info, "type": DEAD_LINK}
        return {**led, "type": FOLDER_LINK} if led.get("type") == "directory" else led

    def _entry(self, path: str, info: Mapping[str, Any], held: str | None = None) -> Entry:
        """`held`: the version of the archive that it is in."""
        size = check_size(info["size"] or 0, f"{self._name} ({path})")
        version = _version(info) if held is None else held
        offered = "" if self._is_s3 else in_info(info)
        return Entry(path, size, version, mode=_mode(info), checksum=offered)

    def _own_versions(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Files of several pieces are compared with what `info` says: where a listing spells versions in
        another way, they are looked at one by one."""
        leaf = Manifest(entries, directory=True).leaf
        long = [entry for entry in entries if entry.size > leaf]
        if not long or self._condition(self._fs, long[0]) or self._look(long[0]).version == long[0].version:
            return entries
        pool = ThreadPoolExecutor(self._settings.small_connections, thread_name_prefix="look")
        try:
            found = {entry.path: entry for entry in pool.map(self._look, long)}
        finally:
            pool.shutdown(cancel_futures=True)
        return tuple(found.get(entry.path, entry) for entry in entries)

    def _look(self, entry: Entry) -> Entry:
        name = f"{self._name} ({entry.path})"
        with _Errors(name):
            info, version = self._look_at(entry.path)
        if info.get("type") == "directory" or info.get("size") is None:
            raise SourceUnsupportedError(
                f"{name}: is listed as a file, but not opened as one; rename it, or leave it out (exclude)"
            )
        size = check_size(info["size"], name)
        return msgspec.structs.replace(entry, size=size, version=version)

    def _look_at(self, below: str) -> tuple[Mapping[str, Any], str]:
        """What the filesystem tells of a path below the one that the URL names, and the version by that."""
        with self._instances.lend() as lent:
            info = self._ask(lent.fs, "info", _join(lent.path, below))
            held = archive_version(lent.fs, _version)
        return info, _version(info) if held is None else held

    # --- reading ----------------------------------------------------------------------------

    def stream(self, manifest: Manifest, number: int, offset: int, length: int) -> Stream:
        entry = manifest.entries[number]
        return _Ranges(self, entry.path if manifest.directory else "", entry, offset, length)

    def abort(self) -> None:
        """What runs on asyncio is cancelled; what does not, ends with the request that is under way."""
        self._instances.abort()
        with self._waiting_lock:
            self._aborted = True
            waiting = list(self._waiting)
        for each in waiting:
            each.cancel()

    def rest(self) -> None:
        self._instances.rest()

    def close(self) -> None:
        self._instances.close()

    def _ask(self, fs: Any, name: str, *args: Any, **options: Any) -> Any:
        """A method of an instance; `abort` ends it where the filesystem runs on asyncio."""
        if on_asyncio(fs):
            return self._sync(getattr(fs, f"_{name}"), *args, **options)
        return getattr(fs, name)(*args, **options)

    def _read(self, lent: Opened, path: str, start: int | None, end: int | None) -> bytes:
        """As they are stored."""
        stored = reads_stored(lent.fs)
        data: bytes
        if stored:
            data = self._sync(stored, lent.fs, path, start, end)
        else:
            data = self._ask(lent.fs, "cat_file", path, start=start, end=end)
        return data

    def _sync(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The answer of a coroutine function, run where the filesystem runs."""
        work = asyncio.run_coroutine_threadsafe(ask(*args, **options), self._loop)
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
        with _Errors(name), self._instances.lend() as lent:
            etag = self._condition(lent.fs, entry)
            path = _join(lent.path, below)
            if part and etag:
                data = self._matching(lent.fs, path, etag, start, end)
            else:
                data = self._read(lent, path, start, end)
            held = archive_version(lent.fs, _version)
        if held is not None:
            _compare(held, entry, name)
        elif part and not etag and check:
            self._check(below, entry)
        if len(data) != end - start:
            raise SourceTruncatedError(f"{name}: sent {len(data)} bytes instead of {end - start}")
        return data

    def _condition(self, fs: Any, entry: Entry) -> str:
        """The ETag, where one request can read and compare it: s3fs, and a strong one (RFC 9110, 13.1.1). Otherwise empty."""
        conditional = self._is_s3 and hasattr(fs, "_call_s3")
        key, _, etag = comparable(entry).partition("=")
        return etag if conditional and key == "ETag" and not etag.startswith("W/") else ""

    def _matching(self, fs: Any, path: str, etag: str, start: int, end: int) -> bytes:
        bucket, key, version = fs.split_path(path)
        pinned = {"VersionId": version} if version else {}
        answer = self._sync(
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
        data: bytes = self._sync(_body, answer["Body"], same)
        if not same:
            raise SourceChangedError(f"{self._name}: has changed since it was looked at")
        return data

    def _check(self, below: str, entry: Entry) -> None:
        """After bytes have come: raises `SourceChangedError` if they may be of another version."""
        with _Errors(self._name):
            info, version = self._look_at(below)
        _compare(version, entry, f"{self._name} ({entry.path})")
        if int(info.get("size") or 0) != entry.size:
            raise SourceChangedError(f"{self._name} ({entry.path}): has changed since it was looked at")


def _compare(version: str, entry: Entry, name: str) -> None:
    wanted = comparable(entry)
    if wanted and version != wanted:
        raise SourceChangedError(f"{name}: has changed since it was looked at")


def _relative(path: str, root: str) -> str:
    """Empty for the root itself; both without slashes at their ends."""
    if not root or path.startswith(f"{root}/"):
        return path[len(root) :].removeprefix("/")
    return "" if path == root else posixpath.relpath(path, root)


def _join(root: str, below: str) -> str:
    """`below`: as the path of an entry."""
    return f"{root.rstrip('/')}/{to_os(below)}" if below else root.rstrip("/") or root


def _check_installed(protocol: str, name: str) -> None:
    """Raises `SourceUnsupportedError`."""
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError):
        extra = EXTRAS.get(protocol)
        hint = f"; pip install 'dragonfly-ray[{extra}]'" if extra else "; install a filesystem for it"
        raise SourceUnsupportedError(
            f"{name}: protocol {protocol!r} is not installed on this node{hint}"
        ) from None


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


def _version(info: Mapping[str, Any]) -> str:
    for key in (*_VERSION_KEYS, *_TIME_KEYS):
        value = info.get(key)
        if value:
            shown = value.isoformat() if isinstance(value, datetime.datetime) else str(value)
            if key == "ino" and info.get("mtime"):  # the number alone stays when the file is written again
                shown = f"{shown}-{info['mtime']}"
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
        archived = storage_class.in_error(error)
        if archived:
            return archived.error(self._name)
        if gcs.wants_payer(error):
            return SourceAuthError(f"{self._name}: its requester pays; set requester_pays in storage_options")
        status = 403 if gcs.is_forbidden(error) else _status(error)
        if isinstance(error, FileNotFoundError) or status == 404:
            return SourceNotFoundError(f"{self._name}: not found")
        if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
            return SourceAuthError(f"{self._name}: not allowed; check storage_options")
        if status in (429, 503):
            after = failures.retry_after_in(error)
            told = "" if after is None else f", Retry-After {after:g} s"
            return SourceBusyError(f"{self._name}: HTTP {status}{told}", retry_after=after)
        if status == 412:
            return SourceChangedError(f"{self._name}: has changed since it was looked at")
        if isinstance(error, TypeError):
            return SourceUnsupportedError(
                f"{self._name}: does not take these storage_options; check their names"
            )
        if isinstance(error, ftplib.error_perm) and str(error)[:3] in ("530", "532"):
            return SourceAuthError(f"{self._name}: not allowed; check user and password")
        if isinstance(error, ftplib.error_temp) and str(error)[:3] == "421":
            return SourceBusyError(f"{self._name}: 421, grants no more connections", retry_after=None)
        if isinstance(error, (tarfile.TarError, zipfile.BadZipFile)):
            return SourceUnsupportedError(f"{self._name}: is no archive that can be read")
        if isinstance(error, ValueError) and "seek" in str(error):
            return SourceUnsupportedError(
                f"{self._name}: the archive's server has no ranges; name it as '…::simplecache::https://…'"
            )
        if isinstance(error, (ImportError, NotImplementedError)):
            return SourceUnsupportedError(f"{self._name}: {type(error).__name__}")
        lasts = failures.final(error) or (
            status is not None and 400 <= status < 500 and status not in failures.AGAIN
        )
        final = {"final": True} if lasts else {}
        return SourceUnreachableError(f"{self._name}: could not be read ({type(error).__name__})", **final)


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
