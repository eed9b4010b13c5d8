"""What belongs to a source's identity besides its URL: whatever chooses the server or the representation.

Whoever fetches `s3://bucket/key` from an endpoint of their own has another source than the rest, however
alike its answers look. Environment variables that choose a server (`AWS_ENDPOINT_URL`, `STORAGE_EMULATOR_HOST`)
are the nodes' own, the same for everybody, and are not part of it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import get_args

import msgspec

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import DEFAULT_TENANT, Credentials, Links, Source
from dragonfly_ray.names import from_os, is_text
from dragonfly_ray.urls import redacted, scheme

MAX_OPTION_DEPTH = 16
_WEB = frozenset({"http", "https"})
_LOCAL = frozenset({"file", "local"})

_HOP_HEADERS = frozenset(
    (
        "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
        "content-length", "expect", "max-forwards", "forwarded", "via", "range", "x-real-ip", "x-host",
        "x-http-host-override", "x-http-method", "x-http-method-override", "x-method-override",
        "x-original-host", "x-original-url", "x-original-uri", "x-rewrite-url", "x-client-ip",
        "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
    )
)  # fmt: skip
_HOP_PREFIXES = ("proxy-", "x-forwarded", "x-envoy-", "x-accel-", "if-")
"""Requests of this package bring their own ranges and conditions, so `If-…` is refused with them."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_CREDENTIAL_HEADER = re.compile(
    r"auth|token|secret|passw|credential|session|signature|cookie|api-?key|^x-jfrog-art-api$"
)
_TRACING_HEADER = re.compile(
    r"cache-control|pragma|x-request-id|x-correlation-id|traceparent|tracestate|baggage|b3|x-b3-.*|x-amzn-trace-id"
    r"|x-cloud-trace-context|date"
)

_INSTANCE_OPTIONS = frozenset(
    ("asynchronous", "loop", "skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths")
)
"""How fsspec keeps an instance, whatever the filesystem."""
_TUNING_OPTIONS = _INSTANCE_OPTIONS | frozenset(
    (
        "anon", "default_block_size", "block_size", "default_cache_type", "default_fill_cache", "fill_cache",
        "cache_type", "cache_options", "timeout", "connect_timeout", "read_timeout", "requests_timeout",
        "retries", "max_attempts", "max_concurrency", "max_pool_connections", "batch_size", "tcp_keepalive",
    )
)  # fmt: skip
_S3 = _TUNING_OPTIONS | frozenset(
    (
        "key", "secret", "token", "username", "password", "requester_pays", "aws_access_key_id",
        "aws_secret_access_key", "aws_session_token",
    )
)  # fmt: skip
_GCS = _TUNING_OPTIONS | frozenset(("token", "project", "access", "requester_pays", "secure_serialize"))
"""A bucket has one name in all projects."""
_AZURE = _TUNING_OPTIONS | frozenset(
    ("account_key", "sas_token", "client_id", "client_secret", "tenant_id", "credential")
)
_HDFS = _TUNING_OPTIONS | frozenset(("user", "kerb_ticket"))
_NOT_IDENTITY: Mapping[str, frozenset[str]] = {
    "s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS, "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE, "hdfs": _HDFS,
}  # fmt: skip
"""Names of options, at any depth, that only open or tune a filesystem. Of one that is not known here all
options count, passwords too: there they may choose whose files one sees."""
_CONNECTION_STRING = "connection_string"
_CONNECTION_SECRETS = frozenset(("accountkey", "sharedaccesssignature"))

_SALT = b"dragonfly-ray source server v1"


def source_of(
    url: str,
    credentials: Credentials,
    *,
    tenant: str = DEFAULT_TENANT,
    tag: str = "",
    application: str = "",
    filtered_query_params: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    node: str = "",
    links: Links = "refuse",
) -> Source:
    """The source that a caller means by a URL and what opens it; every `Source` of a request is built here.

    Raises `InvalidRequestError` for what cannot be asked for, before any work.
    """
    for what, text in (("url", url), ("tenant", tenant), ("tag", tag), ("application", application)):
        if "\0" in text:
            raise InvalidRequestError(f"{what}: must not contain NUL characters")
        if not is_text(text):
            raise InvalidRequestError(f"{what} {text!r}: not valid Unicode; percent-encode its bytes (%XX)")
    source = Source(
        url=url,
        tenant=tenant,
        tag=tag,
        application=application,
        filtered_query_params=tuple(filtered_query_params),
        include=tuple(map(from_os, include)),
        exclude=tuple(map(from_os, exclude)),
        node=node,
        server=server_of(url, credentials),
        links=check_links_option(url, links),
    )
    try:
        _ = source.id
    except ValueError:
        raise InvalidRequestError(f"url {redacted(url)!r}: not a valid URL; check host and port") from None
    return source


def check_links_option(url: str, links: str) -> Links:
    """`Source.links` for a URL: object stores and web servers have no symlinks, so there it chooses nothing.

    Raises `InvalidRequestError`.
    """
    for known in get_args(Links):
        if links == known:
            none = scheme(url) in _WEB or scheme(url) in _NOT_IDENTITY
            return "refuse" if none else known
    raise InvalidRequestError(f"links {links!r}: must be one of {', '.join(get_args(Links))}")


def server_of(url: str, credentials: Credentials) -> str:
    """`Source.server` for a URL that is opened so: empty where nothing but the URL chooses.

    One-way, and slow to guess: what is hashed holds no known credential, but an option that is not known may be
    one. Raises `InvalidRequestError`.
    """
    check_headers(credentials.headers)
    protocol = scheme(url)
    if protocol in _LOCAL:
        return ""
    chosen: dict[str, object]
    if protocol in _WEB:
        chosen = dict(_representation(credentials.headers))
    else:
        ignored = _NOT_IDENTITY.get(protocol, _INSTANCE_OPTIONS)
        found = _plain(credentials.storage_options, ignored, "", 0)
        chosen = found if isinstance(found, dict) else {}
    if not chosen:
        return ""
    text = msgspec.json.encode(chosen, order="deterministic")
    return hashlib.scrypt(text, salt=_SALT, n=1 << 13, r=8, p=1, dklen=32).hex()


def servers_of(urls: Sequence[str], credentials: Credentials) -> list[str]:
    """`server_of` of each; the work is done once a scheme."""
    known: dict[str, str] = {}
    for url in urls:
        if scheme(url) not in known:
            known[scheme(url)] = server_of(url, credentials)
    return [known[scheme(url)] for url in urls]


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuses headers that are for one hop, or that route the request elsewhere than the URL says."""
    seen: set[str] = set()
    for name, value in headers.items():
        low = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidRequestError(f"header {name[:80]!r}: not a valid header name")
        if not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequestError(f"header {name!r}: value contains control characters")
        if low in _HOP_HEADERS or low.startswith(_HOP_PREFIXES):
            raise InvalidRequestError(
                f"header {name!r}: not allowed, it routes or frames the request; set the server in the URL"
            )
        if low in seen:
            raise InvalidRequestError(f"header {name!r}: given twice")
        seen.add(low)


def _representation(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Headers by which a server may choose what it answers; who asks is told by the answer itself."""
    for name, value in headers.items():
        low = name.lower()
        if not _CREDENTIAL_HEADER.search(low) and not _TRACING_HEADER.fullmatch(low):
            yield low, value.strip()


def _plain(value: object, ignored: frozenset[str], name: str, depth: int) -> object:
    """`value` without ignored options and empty ones, as JSON has it; None if nothing is left."""
    if depth > MAX_OPTION_DEPTH:
        raise InvalidRequestError(f"storage option {name!r}: nested too deeply")
    if isinstance(value, Mapping):
        found = {}
        for key, inner in value.items():
            if str(key).lower() in ignored:
                continue
            if str(key).lower() == _CONNECTION_STRING and isinstance(inner, str):
                inner = _without_keys(inner)
            plain = _plain(inner, ignored, str(key), depth + 1)
            if plain is not None:
                found[str(key)] = plain
        return found or None
    if isinstance(value, (list, tuple)):
        return [_plain(each, ignored, name, depth + 1) for each in value] or None
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each, ignored, name, depth + 1) for each in value), key=repr) or None
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if value != "" else None
    raise InvalidRequestError(
        f"storage option {name!r}: must be plain data (text, numbers, lists, mappings), not {type(value).__name__}: "
        "it may choose the server, so it is part of the source's identity"
    )


def _without_keys(connection: str) -> dict[str, str] | str:
    """Of an Azure connection string: all but its secrets."""
    found = {}
    for part in filter(None, connection.split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            return connection
        if name.strip().lower() not in _CONNECTION_SECRETS:
            found[name.strip().lower()] = value
    return found
