"""What object stores say in plain HTTP when they refuse, as to whoever comes with a presigned URL.

None of their own words is passed on: they repeat what was signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dragonfly_ray.errors import SourceAuthError, SourceError
from dragonfly_ray.sources import archived_objects

STATUSES = frozenset((400, 401, 403, 409))
"""Google says 400 where others say 403."""
MAX_BODY = 4096
"""Bytes of a refusal that are looked at."""
_CODE = re.compile(rb"<Code>\s*([A-Za-z]{1,60})\s*</Code>")
_EXPIRED_CODES = frozenset((b"ExpiredToken", b"RequestExpired", b"TokenRefreshRequired"))
_EXPIRED = re.compile(
    rb"<(?:Message|AuthenticationErrorDetail)>[^<]*(?:expired|specified time frame)", re.IGNORECASE
)
_FORGED_CODES = frozenset((b"SignatureDoesNotMatch", b"InvalidAccessKeyId", b"InvalidToken"))
_FORGED = re.compile(rb"<AuthenticationErrorDetail>[^<]*did not match", re.IGNORECASE)


def refusal(name: str, status: int, headers: Mapping[str, str], body: bytes) -> SourceError | None:
    """The error that it stands for; None where it is not the like. `name`: the source, for people."""
    archived = archived_objects.in_refusal(headers, body)
    if archived:
        return archived.error(name)
    found = _CODE.search(body)
    if found is None:
        return None
    if found[1] in _EXPIRED_CODES or _EXPIRED.search(body):
        return SourceAuthError(
            f"{name}: HTTP {status}, the signature or token has expired; sign the URL again"
        )
    if found[1] in _FORGED_CODES or _FORGED.search(body):
        return SourceAuthError(
            f"{name}: HTTP {status}, the signature or token is not valid; sign the URL again"
        )
    return None
