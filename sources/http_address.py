"""The URLs of an HTTP source: its own, those of folders below it, and those of files."""

from __future__ import annotations

import base64
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from dragonfly_ray.model import Entry
from dragonfly_ray.names import to_bytes
from dragonfly_ray.sources.index_links import content_path

_PLAIN = "/"
"""All else but unreserved characters is escaped: a name is data, and some servers take `;`, `+` or `:` for more."""


class HttpAddress:
    """Of one source. User and password go into `authorization`, and into no URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        userinfo, _, netloc = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=netloc, fragment="")
        self.url = urlunsplit(parts)
        self.authorization = _basic(userinfo) if userinfo else ""
        """The header that stands for the URL's user and password; empty without."""
        base = parts.path if parts.path.endswith("/") else f"{parts.path}/"
        self._folders = urlunsplit(parts._replace(path=base, query=""))
        """What stands before the path of a folder in its URL."""
        self._files = urlunsplit(parts._replace(path=content_path(base), query=""))
        self._query = f"?{parts.query}" if parts.query else ""

    @property
    def is_folder(self) -> bool:
        return self.url_is_folder(self.url)

    @staticmethod
    def url_is_folder(url: str) -> bool:
        return urlsplit(url).path.endswith("/")

    def folder(self, path: str) -> str:
        """The listing of a folder below; empty for the source itself."""
        return f"{self._folders}{quote(to_bytes(f'{path}/' if path else ''), safe=_PLAIN)}{self._query}"

    def file(self, path: str) -> str:
        """A file of the folder."""
        return f"{self._files}{quote(to_bytes(path), safe=_PLAIN)}{self._query}"

    def of(self, entry: Entry, *, directory: bool) -> str:
        """An entry of a manifest."""
        return self.file(entry.path) if directory else self.url


def _basic(userinfo: str) -> str:
    """As curl sends a URL's user and password: percent escapes stand for their bytes."""
    user, _, password = userinfo.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return f"Basic {base64.b64encode(pair).decode()}"
