"""URLs as names and as text for people: canonical form, and one without secrets."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB = frozenset({"http", "https"})


def scheme(url: str) -> str:
    """`https` of `https://…`, `file` of a plain path."""
    head, found, _ = url.partition("://")
    return head.lower() if found else "file"


def canonical(url: str, filtered_query_params: Collection[str] = ()) -> str:
    """The spelling under which a URL is filed: equal for equal content, without userinfo and fragment."""
    if scheme(url) not in _WEB:
        return url
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    netloc = host if port in (None, _DEFAULT_PORTS.get(parts.scheme.lower())) else f"{host}:{port}"
    query = [
        (k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k not in filtered_query_params
    ]
    path = quote(unquote(parts.path), safe="/%:@!$&'()*+,;=~-._") or "/"
    return urlunsplit((parts.scheme.lower(), netloc, path, urlencode(sorted(query)), ""))


def redacted(url: str) -> str:
    """`url` for logs, errors and screens: no userinfo, no query values, no fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme(url)}://…"
    netloc = parts.netloc.rpartition("@")[2]
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    query = "&".join(f"{quote(name)}=***" for name in names)
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def basename(url: str) -> str:
    """The last name in the path, decoded; `index` where there is none."""
    path = urlsplit(url).path if scheme(url) != "file" else url.removeprefix("file://")
    name = posixpath.basename(path.rstrip("/"))
    return (unquote(name) if scheme(url) in _WEB else name) or "index"


def origin(url: str) -> str:
    """`scheme://host:port` (or `scheme://bucket`): what a request budget is kept for."""
    parts = urlsplit(url if "://" in url else f"file://{url}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
