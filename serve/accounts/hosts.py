"""Which hosts a secret may be sent to: patterns, and the hosts that URLs and storage options lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from dragonfly_ray.policy import endpoints, walk
from dragonfly_ray.urls import scheme

_ODD = re.compile(r"[\\\s\x00-\x1f\x7f]")
_IDENTITY = frozenset(
    {"auth_uri", "token_uri", "auth_provider_x509_cert_url", "client_x509_cert_url", "universe_domain"}
)
"""Of a Google key file: nothing is read from there (and where tokens are renewed is checked by the nodes)."""


def named(pattern: str) -> bool:
    """Whether the pattern names some host: one of wildcards alone would mean them all."""
    return any(character.isalnum() for character in pattern)


def allowed(hosts: Sequence[str], url: str) -> bool:
    """Whether one of the patterns is of the URL's host, host and port, or bucket; without patterns: never."""
    if _ODD.search(url) or "://" not in url:
        return False
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2].lower()
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    return bool(host) and _matches(hosts, (host, netloc))


def insecure(url: str) -> bool:
    """Whether what is sent there can be read on the way."""
    return scheme(url) == "http"


def beyond(hosts: Sequence[str], options: Mapping[str, object]) -> list[str]:
    """Names of the storage options that lead to hosts which no pattern is of."""
    found = set()
    for name, place in endpoints(options):
        url = place if "://" in place else f"https://{place}"
        if name not in _IDENTITY and not allowed(hosts, url):
            found.add(name)
    return sorted(found)


def in_clear(options: Mapping[str, object]) -> list[str]:
    """Names of the storage options that make requests go without TLS."""
    found = {name for name, place in endpoints(options) if insecure(place)}
    found |= {name for name, value in walk(options) if name == "use_ssl" and value is False}
    return sorted(found)


def _matches(patterns: Iterable[str], texts: Sequence[str]) -> bool:
    return any(_expression(p).fullmatch(text) for p in patterns if named(p) for text in texts)


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    """`*.` in front stands for one label or more, any other `*` for a part of one: `team-*` is no other domain's."""
    text = pattern.lower()
    front, text = (r"(?:[^.:/]+\.)+", text[2:]) if text.startswith("*.") else ("", text)
    return re.compile(front + r"[^.:/]*".join(map(re.escape, text.split("*"))))
