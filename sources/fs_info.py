"""What filesystems tell of a file beside its size."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Mapping
from typing import Any

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


def version_of(info: Mapping[str, Any]) -> str:
    """`key=value` of the first that names one; empty if none does."""
    for key in (*_VERSION_KEYS, *_TIME_KEYS):
        value = info.get(key)
        if value:
            shown = value.isoformat() if isinstance(value, datetime.datetime) else str(value)
            if key == "ino" and info.get("mtime"):  # the number alone stays when the file is written again
                shown = f"{shown}-{info['mtime']}"
            return f"{key}={shown.strip(chr(34))}"
    return ""


def mode_of(info: Mapping[str, Any]) -> int | None:
    mode = info.get("mode")
    return stat.S_IMODE(mode) if isinstance(mode, int) else None
