"""URLs as names and as text for people: canonical form, and one without secrets."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlencode, urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB = frozenset({"http", "https"})
_PLAIN = "/%:@!$&'()*+,;=~-._"
_KEPT_ESCAPES = re.compile(r"(%2f|%25)", re.IGNORECASE)
"""Escapes that are no spelling of the character itself: `a%2Fb` is one name, `a/b` are two."""
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::))")
"""Between the links of a chained fsspec URL."""
_OPAQUE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!//).*@", re.DOTALL)
"""A URL without `//` that has something before an `@`."""
_INNER_USERINFO = re.compile(r"://[^/@]*@")
_PARAMETER = re.compile(r";([^/=;]*=)?[^/;]*")


def scheme(url: str) -> str:
    """`https` of `https://…`, `file` of a plain path."""
    head, found, _ = url.partition("://")
    return head.lower() if found else "file"


def canonical(url: str, filtered_query_params: Collection[str] = ()) -> str:
    """The spelling under which a URL is filed: equal for equal content, without password and fragment.

    Without user, too, for http and https: there the origin's own answer tells whether the content is the same.
    """
    if scheme(url) not in _WEB:
        return _without_password(url)
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    netloc = host if port in (None, _DEFAULT_PORTS.get(parts.scheme.lower())) else f"{host}:{port}"
    fields = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape")
    query = [(k, v) for k, v in fields if k not in filtered_query_params]
    query.sort(key=lambda field: field[0])  # of one name, the order may matter
    path = "".join(_canonical_part(part) for part in _KEPT_ESCAPES.split(parts.path)) or "/"
    return urlunsplit((parts.scheme.lower(), netloc, path, urlencode(query, errors="surrogateescape"), ""))


def _canonical_part(part: str) -> str:
    if _KEPT_ESCAPES.fullmatch(part):
        return part.upper()
    return quote(unquote_to_bytes(part), safe=_PLAIN)


def _without_password(url: str) -> str:
    head, found, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    userinfo, at, host = netloc.rpartition("@")
    return f"{head}{found}{userinfo.partition(':')[0]}{at}{host}{slash}{path}"


def redacted(url: str) -> str:
    """`url` for logs, errors and screens: no userinfo, no values of query or path parameters, no fragment."""
    return "::".join(_redacted(link) for link in _CHAIN.split(url))


def _redacted(url: str) -> str:
    if _OPAQUE.match(url):
        return f"{url.partition(':')[0].lower()}://…"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # an odd character in a password may end the host early
        return f"{scheme(url)}://…"
    path = _INNER_USERINFO.sub("://***@", _PARAMETER.sub(_hidden, parts.path))
    query = "&".join(map(_redacted_field, parts.query.split("&"))) if parts.query else ""
    return urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, query=query, fragment="")
    )


def _hidden(parameter: re.Match[str]) -> str:
    return f";{parameter[1] or ''}***"


def _redacted_field(field: str) -> str:
    name, found, _ = field.partition("=")
    return f"{quote(unquote(name.replace('+', ' ')))}=***" if found else "***"


def basename(url: str) -> str:
    """The last name in the path, decoded; `index` where there is none."""
    path = urlsplit(url).path if scheme(url) != "file" else url.removeprefix("file://")
    name = posixpath.basename(path.rstrip("/"))
    return (unquote(name) if scheme(url) in _WEB else name) or "index"


def origin(url: str) -> str:
    """`scheme://host:port` (or `scheme://bucket`): what a request budget is kept for."""
    parts = urlsplit(url if "://" in url else f"file://{url}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
