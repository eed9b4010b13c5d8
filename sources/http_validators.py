"""What answers over HTTP tell of a file's version, and when two of them tell of the same (RFC 9110, 8.8).

Weak comparison tells whether a file has changed, strong comparison whether parts of two answers may be put together.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from typing import Literal

from dragonfly_ray.validators import DATE

Match = Literal["same", "weakly", "other"]
"""`same`: parts of both may be put together. `weakly`: one may stand for the other, as a whole."""
_WEAK = "W/"
_STAMPED = re.compile(r'W/("[^"]*") (.+)')
CLOCK_S = 1
"""A Last-Modified that is so many seconds older than the answer is a strong validator."""


def version_of(headers: Mapping[str, str]) -> str:
    """The ETag, or else Last-Modified; empty if the server tells neither.

    A weak ETag (`W/"v"`) comes with a blank and Last-Modified behind it, where that is a strong validator.
    """
    etag, modified = headers.get("ETag") or "", headers.get("Last-Modified") or ""
    if etag.startswith(_WEAK) and _is_strong(modified, headers.get("Date") or ""):
        return f"{etag} {modified}"
    return etag or modified


def compared(version: str, etag: str, modified: str, *, part: bool) -> Match:
    """A file's version, as `version_of` has it, with what another answer tells: of all of it, or of a `part`.

    Where one of them tells nothing they are the same.
    """
    if not version or not (etag or modified):
        return "same"
    tag, stamp = _parts(version)
    if not tag or not etag:
        return "same" if (stamp or tag) == modified else "other"
    if tag != etag.removeprefix(_WEAK):
        return "other"
    if not etag.startswith(_WEAK) or (stamp and stamp == modified):
        return "same"
    return "other" if part and stamp and modified else "weakly"


def tells_parts(version: str) -> bool:
    """Whether parts of answers of this version may be put together."""
    return bool(version) and (not version.startswith(_WEAK) or bool(_parts(version)[1]))


def _parts(version: str) -> tuple[str, str]:
    """The ETag without its weakness, and Last-Modified; one may be empty."""
    if stamped := _STAMPED.fullmatch(version):
        return stamped[1], stamped[2]
    if DATE.match(version):
        return "", version
    return version.removeprefix(_WEAK), ""


def _is_strong(modified: str, date: str) -> bool:
    try:
        age = email.utils.parsedate_to_datetime(date) - email.utils.parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return False
    return age.total_seconds() >= CLOCK_S
