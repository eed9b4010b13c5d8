"""One URL on fsspec's filesystems: opened within the policy of URLs, called from any thread, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import AsyncFileSystem

from dragonfly_ray.ambient_credentials import own_options
from dragonfly_ray.backoff import PASSING
from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import (
    SourceError,
    SourceForbiddenError,
    SourceUnreachableError,
    SourceUnsupportedError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.names import to_os
from dragonfly_ray.policy import HOST_OPTIONS, UrlPolicy, rules
from dragonfly_ray.sources import gcs
from dragonfly_ray.sources.archives import archive_version
from dragonfly_ray.sources.chained_filesystems import inside, on_asyncio
from dragonfly_ray.sources.content_encoding import reads_stored
from dragonfly_ray.sources.fs_defaults import with_defaults
from dragonfly_ray.sources.fs_errors import Errors
from dragonfly_ray.sources.fs_info import version_of
from dragonfly_ray.sources.fs_instances import Instances, Opened, open_filesystem
from dragonfly_ray.sources.guarded_connect import guarded_loop
from dragonfly_ray.sources.stat_retry import Retry
from dragonfly_ray.urls import chain_parts, redacted, scheme

log = logging.getLogger(__name__)

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure",
          "hdfs": "hdfs"}  # fmt: skip


class FsClient:
    """Instances of one URL, and questions to them.

    Under a policy of URLs, storage options that name hosts are checked by their text. Filesystems that
    fsspec runs on asyncio (S3, Google and Azure storage among them) then connect on a loop that asks for
    every address, after every look-up; what these libraries do beside it, such as a synchronous renewal
    of a token, is not seen. The node's own credentials are not looked for, see `ambient`. Others (HDFS by
    way of Java, and whatever brings sockets of its own) cannot be made to ask: what their host's name
    stands for is looked up and checked once, here, and may be another when they connect. Names of hosts
    behind a redirect are not compared with the patterns of the policy, only their addresses are.
    """

    def __init__(
        self, source: Source, credentials: Credentials, settings: OriginSettings, policy: UrlPolicy | None
    ) -> None:
        self._source = source
        self._settings = settings
        self._name = redacted(source.url)
        self._waiting: set[Future[Any]] = set()
        self._waiting_lock = threading.Lock()
        self._aborted = False
        self.patience: Retry | None = None
        """With an origin that fails in the middle of a look."""
        self._options: dict[str, Any] = dict(credentials.storage_options)
        for protocol in map(scheme, chain_parts(source.url)):
            _check_installed(protocol, self._name)
        self._guarded = policy is not None
        if policy is not None:
            self._options |= own_options(source.url, credentials.storage_options, policy, os.environ)
            self._options |= _guard(source.url, credentials.storage_options, policy, self._name)
        self._options = with_defaults(source.url, self._options, settings, guarded=self._guarded)
        self._loop: Any = None
        self._instances = Instances(self._open)

    def _open(self) -> Opened:
        with Errors(self._name):
            opened = open_filesystem(self._source.url, self._options, self._settings.answer_timeout)
        for each in inside(opened.fs):
            gcs.bound_look_ups(each, guarded=self._guarded)
        self._loop = getattr(opened.fs, "loop", self._loop)
        return opened

    @property
    def any_fs(self) -> Any:
        """An instance to look at; only those of object stores may be called without having it to oneself."""
        with self.lend() as lent:
            return lent.fs

    @property
    def is_s3(self) -> bool:
        return scheme(self._source.url) in ("s3", "s3a")

    @contextlib.contextmanager
    def lend(self) -> Iterator[Opened]:
        """An instance to call, by nobody else unless threads can share it. Not to be asked for while one is held:
        there may be one only."""
        with self._instances.lend() as lent:
            yield lent

    def abort(self) -> None:
        """What runs on asyncio is cancelled; what does not, ends with the request that is under way."""
        if self.patience:
            self.patience.end()
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

    def look_at(self, below: str) -> tuple[Mapping[str, Any], str]:
        """What the filesystem tells of a path below the one that the URL names, and the version by that."""
        with self._instances.lend() as lent:
            info = self.ask(lent.fs, "info", join(lent.path, below))
            held = archive_version(lent.fs, version_of)
        return info, version_of(info) if held is None else held

    def s3_head(self, below: str, **more: str) -> Mapping[str, Any] | None:
        """What S3 tells of one file; None where it does not, which says nothing of the file."""
        with self._instances.lend() as lent:
            fs, path = lent.fs, join(lent.path, below)
        if not hasattr(fs, "_call_s3"):
            return None
        bucket, key, version = fs.split_path(path)
        pinned = {"VersionId": version} if version else {}
        try:
            with Errors(self._name):
                answer: Mapping[str, Any] = self.sync(
                    fs._call_s3, "head_object", Bucket=bucket, Key=key, **more, **pinned
                )
        except SourceError as error:
            if self._aborted:
                raise
            log.info("HEAD request failed: %s", error)
            return None
        return answer

    def ask(self, fs: Any, name: str, *args: Any, **options: Any) -> Any:
        """A method of an instance; `abort` ends it where the filesystem runs on asyncio."""
        if on_asyncio(fs):
            return self.sync(getattr(fs, f"_{name}"), *args, **options)
        return getattr(fs, name)(*args, **options)

    def read(self, lent: Opened, path: str, start: int | None, end: int | None) -> bytes:
        """As they are stored."""
        stored = reads_stored(lent.fs)
        data: bytes
        if stored:
            data = self.sync(stored, lent.fs, path, start, end)
        else:
            data = self.ask(lent.fs, "cat_file", path, start=start, end=end)
        return data

    def sync(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The answer of a coroutine function, run where the filesystem runs; in a look, as soon as the origin is well."""
        if self.patience is None:
            return self._answer(ask, *args, **options)
        return self.patience.ask(lambda: self._passing(ask, *args, **options))

    def _passing(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Errors that waiting may cure come as this package's."""
        try:
            return self._answer(ask, *args, **options)
        except Exception as error:
            found = error if isinstance(error, SourceError) else Errors(self._name).typed(error)
            if isinstance(found, PASSING):
                raise found from None
            raise

    def _answer(self, ask: Callable[..., Any], *args: Any, **options: Any) -> Any:
        work = asyncio.run_coroutine_threadsafe(ask(*args, **options), self._loop)
        with self._waiting_lock:
            self._waiting.add(work)
            aborted = self._aborted
        if aborted:
            work.cancel()
        try:
            return work.result()
        except CancelledError:
            raise SourceError(f"{self._name}: read cancelled") from None
        finally:
            with self._waiting_lock:
                self._waiting.discard(work)


def join(root: str, below: str) -> str:
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
        raise SourceForbiddenError(f"{name}: set the host in the URL, not in storage_options")
    host = urlsplit(url).hostname
    if host:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise SourceUnreachableError(f"{name}: no such host; check its name") from None
        for each in found:
            rules(policy).address(str(each[4][0]), name)
    return {}
