"""URLs as names and as text for people: canonical form, and one without secrets."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit

from dragonfly_ray.names import from_bytes, from_os
from dragonfly_ray.presigned import SIGNATURE_NAMES, signing

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB = frozenset({"http", "https"})
_PATHS = frozenset({"file", "local"})
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""RFC 3986: of these alone an escape is another spelling. `a%2Fb` is one name, `a/b` are two; `a%3Bb` is no `a;b`."""
_IN_PATH = "/%[]:@!$&'()*+,;="
_IN_QUERY = _IN_PATH + "?"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_NO_NAME = re.compile(r"(%2f|%00)", re.IGNORECASE)
"""Escapes of what no file's name has in it."""
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::))")
"""Between the parts of a chained fsspec URL."""
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|::)")
_OPAQUE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!//).*@", re.DOTALL)
"""A URL without `//` that has something before an `@`."""
_INNER_USERINFO = re.compile(r"://[^/@]*@")
_PARAMETER = re.compile(r";([^/=;]*=)?[^/;]*")


def scheme(url: str) -> str:
    """`https` of `https://…`, `file` of a plain path."""
    head, found, _ = url.partition("://")
    return head.lower() if found else "file"


def canonical(url: str, filtered_query_params: Collection[str] = ()) -> str:
    """The spelling under which a URL is filed: equal for equal content, without password, signature and fragment.

    Without user, too, for http and https: there the origin's own answer tells whether the content is the same.
    """
    if scheme(url) not in _WEB:
        return "::".join(
            _without_password(_unsigned(each, filtered_query_params)) for each in chain_parts(url)
        )
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    netloc = host if port in (None, _DEFAULT_PORTS.get(parts.scheme.lower())) else f"{host}:{port}"
    fields = _fields(parts.query)
    left_out = signing({name for name, _ in fields}) | set(filtered_query_params)
    kept = [(name, field) for name, field in fields if name not in left_out]
    kept.sort(key=lambda field: field[0])  # of one name, the order may matter
    query = "&".join(_respelled(field, _IN_QUERY) for _, field in kept)
    path = _respelled(parts.path, _IN_PATH) or "/"
    return urlunsplit((parts.scheme.lower(), netloc, path, query, ""))


def chosen_filters(url: str, filtered_query_params: Collection[str]) -> list[str]:
    """Those of a caller's own filters that leave out more than signatures: a source's identity tells of them."""
    signs = SIGNATURE_NAMES
    if filtered_query_params and scheme(url) in _WEB:
        signs |= signing({name for name, _ in _fields(urlsplit(url).query)})
    return sorted(set(filtered_query_params) - signs)


def chain_parts(url: str) -> list[str]:
    """The URLs that a chained fsspec URL is made of, the outermost first; of any other itself."""
    return _CHAIN.split(url) if _is_chain(url) else [url]


def named_part(url: str) -> str:
    """The part of a chained URL that names what is meant: others stand before it, as `simplecache::` does, or
    are whole, as `tar://::` is."""
    chain = chain_parts(url)
    return next((each for each in chain if each.partition("://")[2]), chain[-1])


def is_path(url: str) -> bool:
    """Whether it is a file or folder of one machine, or lies in one, as what `tar://…::file://…` names does."""
    return scheme(chain_parts(url)[-1]) == "file"


def _is_chain(url: str) -> bool:
    """A path of a node may hold anything, `::https://` too."""
    protocol = _PROTOCOL.match(url)
    return protocol is not None and protocol[1].lower() not in _PATHS


def _unsigned(part: str, filtered: Collection[str]) -> str:
    """A part of a chained URL as it is spelled, but for what signs it."""
    if scheme(part) not in _WEB:
        return part
    head, found, rest = part.partition("?")
    query, hash_sign, fragment = rest.partition("#")
    fields = _fields(query)
    left_out = signing({name for name, _ in fields}) | set(filtered)
    kept = "&".join(field for name, field in fields if name not in left_out)
    return f"{head}{found if kept else ''}{kept}{hash_sign}{fragment}"


def _fields(query: str) -> list[tuple[str, str]]:
    """Of a query: the name of each, decoded, and all of it as it is spelled."""
    fields = [field for field in query.split("&") if field]
    return [
        (unquote(field.partition("=")[0].replace("+", " "), errors="surrogateescape"), field)
        for field in fields
    ]


def _respelled(text: str, legal: str) -> str:
    """What may not stand in a URL is escaped; escapes are in capitals, and there are none of unreserved characters."""
    return _ESCAPE.sub(_capital, quote(text, safe=legal))


def _capital(escape: re.Match[str]) -> str:
    code = int(escape[1], 16)
    return chr(code) if code in _UNRESERVED else escape[0].upper()


def _without_password(url: str) -> str:
    head, found, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    userinfo, at, host = netloc.rpartition("@")
    return f"{head}{found}{userinfo.partition(':')[0]}{at}{host}{slash}{path}"


def redacted(url: str) -> str:
    """`url` for logs, errors and screens: no userinfo, no values of query or path parameters, no fragment."""
    return "::".join(_redacted(part) for part in _CHAIN.split(url))


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
    shown = urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, query=query, fragment="")
    )
    # Of `tar://` it leaves the slashes out.
    return shown.replace(":", "://", 1) if shown == f"{parts.scheme}:" and "://" in url else shown


def _hidden(parameter: re.Match[str]) -> str:
    return f";{parameter[1] or ''}***"


def _redacted_field(field: str) -> str:
    name, found, _ = field.partition("=")
    return f"{quote(unquote(name.replace('+', ' ')))}=***" if found else "***"


def basename(url: str) -> str:
    """The last name in the path, decoded as far as it stays one name; `index` where there is none."""
    part = named_part(url)
    if scheme(part) == "file":
        path = part.removeprefix("file://")
    elif part != chain_parts(url)[-1]:
        path = part.partition("://")[2]  # all of it is a path within the next
    else:
        path = urlsplit(part).path
    name = posixpath.basename(path.rstrip("/"))
    if scheme(part) not in _PATHS:  # a path has its names as entries have them
        name = from_os(_decoded(name) if scheme(part) in _WEB else name)
    return name or "index"


def unquoted(path: str) -> str:
    """A path of a URL as the names of entries are spelled."""
    return from_bytes(unquote_to_bytes(path)) if "%" in path else path


def local_url(path: str) -> str:
    """The URL of an absolute path as `os` has it. Nothing is escaped: a percent sign may be part of a name."""
    return f"file://{from_os(path)}"


def _decoded(name: str) -> str:
    try:
        return "".join(
            part if _NO_NAME.fullmatch(part) else unquote(part, errors="strict")
            for part in _NO_NAME.split(name)
        )
    except UnicodeDecodeError:
        return name


def origin(url: str) -> str:
    """`scheme://host:port` (or `scheme://bucket`): what a request budget is kept for."""
    parts = urlsplit(url if "://" in url else f"file://{url}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
