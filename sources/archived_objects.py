"""Objects that an object store keeps but does not give out until they are restored: what it tells of them.

Google's archive class is read at once, as are the "instant" ones of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dragonfly_ray.errors import SourceArchivedError

_CLASSES = frozenset(("GLACIER", "DEEP_ARCHIVE"))
_STATES = frozenset(("ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"))
"""Of S3's intelligent tiering."""
_S3_CODE = "InvalidObjectState"
"""So do OSS, OBS and COS call it."""
_AZURE_CODES = {"BlobArchived": False, "BlobBeingRehydrated": True}
"""Whether it is on its way back."""
_TAG = re.compile(rb"<(Code|StorageClass|AccessTier)>\s*([A-Za-z_]{1,40})\s*</")


class Archived(NamedTuple):
    """How it is kept, in the store's own words. `restoring`: somebody has asked for it already."""

    storage_class: str
    restoring: bool = False

    def error(self, name: str) -> SourceArchivedError:
        """`name`: of the object, for people."""
        kept = f"{name}: archived (storage class {self.storage_class or 'unknown'})"
        if self.restoring:
            return SourceArchivedError(f"{kept}, restore in progress; retry when it has finished")
        how = "change its tier" if self.storage_class == "Archive" else "restore-object"
        return SourceArchivedError(f"{kept}; restore it first ({how}), or exclude it")


def may_be_archived(info: Mapping[str, Any]) -> bool:
    """Whether a listing says so. It does not say what has been restored for a while."""
    return str(info.get("StorageClass") or "") in _CLASSES


def in_s3_head(answer: Mapping[str, Any]) -> Archived | None:
    """From S3's answer to HeadObject; None for what can be read."""
    kept = str(answer.get("ArchiveStatus") or answer.get("StorageClass") or "")
    if kept not in _CLASSES | _STATES:
        return None
    restore = str(answer.get("Restore") or "")
    if 'ongoing-request="false"' in restore:
        return None
    return Archived(kept, restoring='ongoing-request="true"' in restore)


def in_error(error: BaseException) -> Archived | None:
    """From what boto or Azure's library raised, or from what that caused."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, Mapping):
            told = response.get("Error")
            if isinstance(told, Mapping) and told.get("Code") == _S3_CODE:
                return Archived(str(told.get("StorageClass") or told.get("AccessTier") or ""))
        code = str(getattr(each, "error_code", "") or "")
        code = code.rpartition(".")[2]
        if code in _AZURE_CODES:
            return Archived("Archive", restoring=_AZURE_CODES[code])
    return None


def in_refusal(headers: Mapping[str, str], body: bytes) -> Archived | None:
    """From the answer to a plain HTTP request."""
    code = headers.get("x-ms-error-code", "")
    if code in _AZURE_CODES:
        return Archived("Archive", restoring=_AZURE_CODES[code])
    told = {name: value.decode() for name, value in _TAG.findall(body)}
    if told.get(b"Code") != _S3_CODE:
        return None
    return Archived(told.get(b"StorageClass") or told.get(b"AccessTier") or "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
