"""Where the links of a page lead: to a name right below it, or elsewhere.

Paths are compared segment by segment, so that `a%2Fb` is one name and no folder `a`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from dragonfly_ray.urls import redacted, unquoted

_NEXUS = re.compile(r"(.*/)service/rest/repository/browse/(.+)")
_PLAIN_LINK = re.compile(r"[A-Za-z0-9_~%@+,=&$!'()*.-]+/?")
"""A single name: nothing in it could be a scheme, a host, a query or parameters."""
NO_NAMES = ("", ".", "..")
"""What no file or folder is called."""
_WEB = ("http", "https")


class Below(NamedTuple):
    """A name right below a page."""

    name: str
    folder: bool


def content_path(path: str) -> str:
    """Where the files of the folder `path` are: Nexus lists them at one place and has them at another."""
    found = _NEXUS.fullmatch(path)
    return f"{found[1]}repository/{found[2]}" if found else path


class PageLinks:
    """Of a page at `address`; `base`: what it says that its links are relative to, empty where it does not."""

    def __init__(self, address: str, base: str) -> None:
        parts = urlsplit(address)
        self._host = (parts.hostname or "").lower()
        self._query = parts.query
        folder = parts.path[: parts.path.rfind("/") + 1] or "/"
        self.path = unquoted(folder)
        """Of the folder that it shows, decoded."""
        self._here = _segments(folder)[:-1]
        self._places = {self._here, _segments(content_path(folder))[:-1]}
        self._base = urljoin(address, base) if base else address
        at = self._split("")
        self._own = at is not None and self._is_here(at)
        """Whether links are relative to this very folder, as almost always."""

    def below(self, href: str) -> Below | None:
        """The name right below this page that a link leads to; None where it leads elsewhere."""
        if self._own and _PLAIN_LINK.fullmatch(href):  # most are, and to join URLs takes long
            folder = href.endswith("/")
            name = unquoted(href[:-1] if folder else href)
            if "/" not in name and name not in NO_NAMES:
                return Below(name, folder)
        parts = self._split(href)
        if parts is None or not self._on_host(parts) or parts.query not in ("", self._query):
            return None
        *parents, name = _segments(parts.path)
        folder = not name
        if folder and parents:
            name = parents.pop()
        if tuple(parents) in self._places and name not in NO_NAMES and "/" not in name:
            return Below(name, folder)
        return None

    def names_elsewhere(self, href: str, text: str) -> str:
        """Where a link leads whose text is a name, as those of a listing are: its URL for people. Empty for any
        other link, and for one to a folder above."""
        parts = self._split(href)
        if parts is None or not parts.netloc:
            return ""
        segments = _segments(parts.path)
        above = tuple(filter(None, segments))
        name = above[-1] if above else ""
        if not name or " ".join(text.split()).rstrip("/") != " ".join(name.split()):
            return ""
        if self._on_host(parts) and above == tuple(filter(None, self._here))[: len(above)]:
            return ""
        return redacted(parts.geturl())

    def _split(self, href: str) -> SplitResult | None:
        try:
            parts = urlsplit(urljoin(self._base, href))
            _ = parts.hostname
        except ValueError:
            return None
        return parts

    def _on_host(self, parts: SplitResult) -> bool:
        """Whatever the port and the scheme: what is before a server changes both, and it is asked at its own."""
        return parts.scheme in _WEB and (parts.hostname or "").lower() == self._host

    def _is_here(self, parts: SplitResult) -> bool:
        return self._on_host(parts) and _segments(parts.path)[:-1] == self._here


def _segments(path: str) -> tuple[str, ...]:
    """Of a URL's path, each decoded."""
    return tuple(map(unquoted, (path or "/").split("/")))
