"""Query parameters that sign a URL: who asks and until when, and nothing about what is answered.

They are left out of a source's identity, so that one object by two presigned URLs is one source; requests keep them.
Names are compared as they are spelled, as Dragonfly does. What chooses the content or how it is answered (`versionId`,
`generation`, `snapshot`, `response-content-type`, `x-oss-process`, …) is not among them.
"""

from __future__ import annotations

from collections.abc import Collection

_S3 = (
    "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature",
    "X-Amz-Security-Token", "X-Amz-User-Agent", "X-Amz-Content-Sha256", "X-Amz-Region-Set", "X-Amz-S3session-Token",
    "AWSAccessKeyId",
)  # fmt: skip
_GCS = (
    "X-Goog-Algorithm", "X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders",
    "X-Goog-Signature", "GoogleAccessId",
)  # fmt: skip
_OSS = (
    "OSSAccessKeyId", "x-oss-signature-version", "x-oss-access-key-id", "x-oss-credential", "x-oss-date",
    "x-oss-expires", "x-oss-additional-headers", "x-oss-signature", "x-oss-security-token",
)  # fmt: skip
_OBS = ("X-Obs-Date", "X-Obs-Security-Token", "x-obs-security-token")
_COS = (
    "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
    "x-cos-security-token",
)  # fmt: skip
SIGNATURE_NAMES = frozenset((*_S3, *_GCS, *_OSS, *_OBS, *_COS))
"""Names that mean nothing else anywhere."""

_KEYED = "Signature"
_KEYS = frozenset(
    ("AWSAccessKeyId", "GoogleAccessId", "OSSAccessKeyId", "AccessKeyId", "Key-Pair-Id", "KeyName")
)
"""Whose key it is, beside a `Signature`: S3 (v2), GCS (v2), OSS (v1), OBS, and the CDNs of Amazon and Google."""
_WITH_KEY = _KEYS | frozenset(
    (
        "Signature", "Expires", "Policy", "Hash-Algorithm", "URLPrefix", "SecurityToken", "security-token",
        "x-amz-security-token",
    )
)  # fmt: skip
_SAS_NEEDS = frozenset(("sv", "sig"))
_SAS = frozenset(
    (
        "sv", "sig", "ss", "srt", "sr", "st", "se", "sp", "sip", "spr", "si", "sdd", "ses", "skoid", "sktid", "skt",
        "ske", "sks", "skv", "skdutid", "saoid", "suoid", "sduoid", "scid",
    )
)  # fmt: skip
"""Azure's shared access signatures. `rscc`, `rscd`, `rsce`, `rscl` and `rsct` set headers of the answer."""


def signing(names: Collection[str]) -> frozenset[str]:
    """Of the names of a query's parameters, those that sign it.

    Names that a server may use for anything (`Expires`, `sp`) count only beside those that make up a signature.
    """
    known = set(SIGNATURE_NAMES)
    if _KEYED in names and not _KEYS.isdisjoint(names):
        known |= _WITH_KEY
    if set(names) >= _SAS_NEEDS:
        known |= _SAS
    return frozenset(name for name in names if name in known)
