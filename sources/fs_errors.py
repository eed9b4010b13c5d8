"""What filesystems raise, as this package's errors."""

from __future__ import annotations

import ftplib
import tarfile
import zipfile
from collections.abc import Mapping

from dragonfly_ray.errors import (
    SourceAuthError,
    SourceBusyError,
    SourceChangedError,
    SourceError,
    SourceForbiddenError,
    SourceNotFoundError,
    SourceUnreachableError,
    SourceUnsupportedError,
)
from dragonfly_ray.sources import archived_objects, gcs, permanent_failures
from dragonfly_ray.sources.guarded_connect import forbidden_in


class Errors:
    """Turns what filesystems raise into this package's errors, without their texts: those may hold secrets."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, SourceError) or not isinstance(error, Exception):
            return
        raise self.typed(error) from None

    def typed(self, error: Exception) -> SourceError:
        """What it means."""
        refused = forbidden_in(error)
        if refused:
            return SourceForbiddenError(f"{self._name}: {refused}")
        archived = archived_objects.in_error(error)
        if archived:
            return archived.error(self._name)
        if gcs.wants_payer(error):
            return SourceAuthError(
                f"{self._name}: requester-pays bucket; set requester_pays in storage_options"
            )
        status = 403 if gcs.is_forbidden(error) else _status(error)
        if isinstance(error, FileNotFoundError) or status == 404:
            return SourceNotFoundError(f"{self._name}: not found")
        if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
            return SourceAuthError(f"{self._name}: access denied; check storage_options")
        if status in (429, 503):
            after = permanent_failures.retry_after_in(error)
            told = "" if after is None else f", Retry-After {after:g} s"
            return SourceBusyError(f"{self._name}: HTTP {status}{told}", retry_after=after)
        if status == 412:
            return SourceChangedError(f"{self._name}: has changed since it was resolved")
        if isinstance(error, TypeError):
            return SourceUnsupportedError(f"{self._name}: unsupported storage_options; check their names")
        if isinstance(error, ftplib.error_perm) and str(error)[:3] in ("530", "532"):
            return SourceAuthError(f"{self._name}: access denied; check user and password")
        if isinstance(error, ftplib.error_temp) and str(error)[:3] == "421":
            return SourceBusyError(f"{self._name}: FTP 421, too many connections", retry_after=None)
        if isinstance(error, (tarfile.TarError, zipfile.BadZipFile)):
            return SourceUnsupportedError(f"{self._name}: not a readable archive")
        if isinstance(error, ValueError) and "seek" in str(error):
            return SourceUnsupportedError(
                f"{self._name}: the archive's server does not support range requests; "
                f"use '…::simplecache::https://…'"
            )
        if isinstance(error, (ImportError, NotImplementedError)):
            return SourceUnsupportedError(f"{self._name}: {type(error).__name__}")
        lasts = permanent_failures.final(error) or (
            status is not None and 400 <= status < 500 and status not in permanent_failures.AGAIN
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
