"""Checksums of whole files that origins offer beside them: in headers of HTTP, and in what fsspec tells of a file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dragonfly_ray.checksums import spelled, strongest

_NAMES = {"sha-256": "sha256", "sha-512": "sha512", "sha": "sha1", "sha-1": "sha1"}
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
"""An ETag that may be an MD5. That of an object in several parts has a dash in it, and is none."""
_S3_CHECKSUMS = ("sha256", "sha1", "crc32c", "crc32")
_OTHER_ETAGS = ("aws:kms", "aws:kms:dsse", "aws:fsx")
"""Encryption under which S3's ETag is no MD5; so it is with keys of the customer."""


def in_headers(headers: Mapping[str, str], status: int) -> str:
    """`algorithm:hex` of the whole file, from an answer to GET or HEAD; empty if nothing is offered."""
    low = {name.lower(): value for name, value in headers.items()}
    return strongest([*_standard(low, status), *_s3_headers(low), *_cloud(low)])


def in_s3_head(answer: Mapping[str, Any]) -> str:
    """The same, from S3's own answer to HeadObject."""
    whole = answer.get("ChecksumType") != "COMPOSITE"
    named = [_decoded(n, str(answer.get(f"Checksum{n.upper()}") or "")) for n in _S3_CHECKSUMS if whole]
    etag = _s3_etag(
        str(answer.get("ETag") or ""),
        str(answer.get("ServerSideEncryption") or ""),
        bool(answer.get("SSECustomerAlgorithm")),
        str(answer.get("StorageClass") or ""),
    )
    return strongest([*named, etag])


def in_info(info: Mapping[str, Any]) -> str:
    """The same, from what gcsfs or adlfs tell of a file; of S3 see `in_s3_head`."""
    found = [
        _decoded("md5", str(info.get("md5Hash") or "")),
        _decoded("crc32c", str(info.get("crc32c") or "")),
    ]
    settings = info.get("content_settings")
    md5 = (
        settings.get("content_md5")
        if isinstance(settings, Mapping)
        else getattr(settings, "content_md5", None)
    )
    if isinstance(md5, (bytes, bytearray)):
        found.append(spelled("md5", bytes(md5)))
    return strongest(found)


def _standard(headers: Mapping[str, str], status: int) -> Iterator[str]:
    """RFC 9530, RFC 3230, and the older Content-MD5, which in an answer to a range is the range's."""
    for name in ("repr-digest", "digest"):
        yield from _listed(headers.get(name, ""))
    if status == 200:
        yield _decoded("md5", headers.get("content-md5", ""))


def _s3_headers(headers: Mapping[str, str]) -> Iterator[str]:
    if "x-amz-request-id" not in headers and "x-amz-id-2" not in headers:
        return
    if headers.get("x-amz-checksum-type", "").upper() != "COMPOSITE":
        for name in _S3_CHECKSUMS:
            yield _decoded(name, headers.get(f"x-amz-checksum-{name}", ""))
    yield _s3_etag(
        headers.get("etag", ""),
        headers.get("x-amz-server-side-encryption", ""),
        "x-amz-server-side-encryption-customer-algorithm" in headers,
        headers.get("x-amz-storage-class", ""),
    )


def _s3_etag(etag: str, encryption: str, customer_key: bool, storage_class: str) -> str:
    match = _MD5.fullmatch(etag)
    if not match or customer_key or encryption in _OTHER_ETAGS or storage_class == "EXPRESS_ONEZONE":
        return ""
    return spelled("md5", match[1])


def _cloud(headers: Mapping[str, str]) -> Iterator[str]:
    """Google's, Azure's, and Artifactory's."""
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    if stored == headers.get("content-encoding", "identity"):
        yield from _listed(headers.get("x-goog-hash", ""))
    yield _decoded("md5", headers.get("x-ms-blob-content-md5", ""))
    for name in ("sha256", "sha1", "md5"):
        yield spelled(name, headers.get(f"x-checksum-{name}", ""))


def _listed(text: str) -> Iterator[str]:
    """`name=base64` or `name=:base64:`, with commas between them."""
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        name = name.strip().lower()
        yield _decoded(_NAMES.get(name, name), value.strip().strip(":"))


def _decoded(algorithm: str, text: str) -> str:
    try:
        return spelled(algorithm, base64.b64decode(text, validate=True)) if text else ""
    except (binascii.Error, ValueError):
        return ""
