"""Pages that list a folder, by their structure: nginx, Apache, Python, Caddy, Jetty, Tomcat, IIS, lighttpd, Artifactory,
Nexus, and what looks alike; and listings in JSON, as nginx and Caddy write them.

A page is a listing if its heading names a folder, or if it leads to the folder above and every link to what lies
below bears the name of that. Links are resolved against the page's own address.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import NamedTuple

import msgspec

from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.names import shown, without_half
from dragonfly_ray.sources.base import check_size
from dragonfly_ray.sources.index_links import NO_NAMES, PageLinks
from dragonfly_ray.urls import redacted, unquoted

log = logging.getLogger(__name__)

MAX_ENTRIES = 1_000_000
"""Of a page, where nobody says less."""
MAX_LINKS_PER_ENTRY = 4
MAX_UNCLOSED = 64 * 1024
"""Characters of a tag or a comment that does not end: more is no page, and the parser's time grows by their square."""
FEED = 16 * 1024
SHOWN = 5
"""Links that are named where more are left out."""
MAX_TEXT = 2048
"""Characters that are kept of what stands before, in, or after a link."""
_SAID = re.compile(
    r"(?:index of|directory listing (?:for|of)|listing of|contents of|directory:)\s*(?P<path>.+)",
    re.IGNORECASE,
)
_HOST_AND_PATH = re.compile(r"\S+ - (?P<path>/.*)")
_UP = re.compile(
    r"\W*(?:\.\./?|(?:to )?parent (?:directory|folder)|parent|up|go up|up to .*)\W*", re.IGNORECASE
)
_NGINX = re.compile(r"\s*(\d{2}-\w{3}-\d{4} \d{2}:\d{2})\s+(\d{1,19})(?: bytes)?\s*")
_IIS = re.compile(r"\s*(\d[\d/.-]+\s+\d{1,2}:\d{2}(?:\s+\S{2,4})?)\s+(\d{1,19})\s*")
_BYTES = re.compile(r"\s*(\d[\d.,'\u2019 ]{0,30}) bytes\s*")
"""A number with whatever a locale puts between its digits."""
_PARENT_HREFS = frozenset(("..", "../", "./..", "./../", "../.."))
_CUT = ("..>", "...", "…")


class Listed(NamedTuple):
    """One name of a page. `size` is None where the page does not tell it to the byte."""

    name: str
    folder: bool
    size: int | None
    stamp: str


def looks_like_index(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml", "application/json")


def parse(page: str, address: str = "http://host/", limit: int = MAX_ENTRIES) -> list[Listed] | None:
    """The names in a listing that was found at `address`; None if it is none.

    Raises `SourceUnsupportedError` for one of more than `limit` names, with a size that is none, or of which every
    link leads elsewhere.
    """
    if page.lstrip()[:1] == "[":
        return _parse_json(page, limit)
    parser = _Links(limit * MAX_LINKS_PER_ENTRY)
    try:
        for at in range(0, len(page), FEED):
            parser.feed(page[at : at + FEED])
            if len(parser.rawdata) > MAX_UNCLOSED:
                return None
        parser.close()
    except AssertionError:  # what the parser says to declarations that are none
        return None
    return _Page(address, parser).listed(limit)


# --- JSON ---------------------------------------------------------------------------------------


class _Row(msgspec.Struct):
    name: str
    type: str = ""
    size: int | None = None
    mtime: str | int | float | None = None
    is_dir: bool | None = None
    """Caddy's."""
    mod_time: str | None = None


def _parse_json(page: str, limit: int) -> list[Listed] | None:
    if page.count('"name"') > limit:
        _too_many(limit)
    try:
        rows = msgspec.json.decode(page, type=list[_Row])
    except (msgspec.DecodeError, UnicodeError):
        return None
    if any(row.is_dir is None and not row.type for row in rows):
        return None
    found, left_out = [], []
    for row in rows:
        folder = row.type == "directory" if row.is_dir is None else row.is_dir
        name = row.name.rstrip("/") if folder else row.name
        odd = row.is_dir is None and row.type not in ("file", "directory")
        if odd or name in NO_NAMES or "/" in name:
            left_out.append(shown(repr(row.name)))
            continue
        size = None if folder or row.size is None else check_size(row.size, f"listing's entry {name!r}")
        found.append(Listed(name, folder, size, str(row.mod_time or row.mtime or "")))
    if left_out and not found:
        raise SourceUnsupportedError(f"directory listing without files or folders ({left_out[0]})")
    if left_out:
        log.warning(
            "skipped %d listing entries that are not files or folders, or have invalid names (%s)",
            len(left_out), ", ".join(left_out[:SHOWN]),
        )  # fmt: skip
    return found


# --- HTML ---------------------------------------------------------------------------------------


class _Link:
    """An anchor, with the text around it."""

    __slots__ = ("after", "before", "href", "size", "text", "time")

    def __init__(self, href: str, before: str) -> None:
        self.href, self.before = href, before
        self.text = self.after = ""
        self.size: int | None = None
        """From an attribute behind it, as is the time."""
        self.time = ""


class _Links(HTMLParser):
    """Headings, and anchors with the text around each."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.links: list[_Link] = []
        self.headings: list[str] = []
        self.base = ""
        self._most = most
        self._between = ""
        self.form = False
        self._inside = self._heading = self._mute = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            if len(self.links) >= self._most:
                _too_many(self._most // MAX_LINKS_PER_ENTRY)
            self.links.append(_Link((given["href"] or "").strip(), self._between))
            self._inside, self._between = True, ""
        elif tag in ("title", "h1"):
            self._heading = True
            self.headings.append("")
        elif tag == "base" and given.get("href") and not self.base:
            self.base = (given["href"] or "").strip()
        elif tag in ("br", "tr", "li"):
            self._between = ""
        elif tag in ("td", "th") and self.links and not self._inside:
            self.links[-1].after += "\n"
        elif tag in ("script", "style"):
            self._mute = True
        elif tag == "form":
            self.form = True
        size = given.get("data-size") or ""
        if self.links and size.isascii() and size.isdigit() and len(size) < 20:
            self.links[-1].size = int(size)
        if self.links and tag == "time":
            self.links[-1].time = (given.get("datetime") or "")[:MAX_TEXT]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._inside = False
        elif tag in ("title", "h1"):
            self._heading = False
        elif tag in ("script", "style"):
            self._mute = False

    def handle_data(self, data: str) -> None:
        if self._mute:
            return
        if self._heading and len(self.headings[-1]) < MAX_TEXT:
            self.headings[-1] += data[:MAX_TEXT]
        if not self._inside:
            self._between = (self._between + data)[-MAX_TEXT:]
        if not self.links:
            return
        last = self.links[-1]
        if self._inside:
            last.text += data[: max(0, MAX_TEXT - len(last.text))]
        else:
            last.after += data[: max(0, MAX_TEXT - len(last.after))]


class _Page:
    """What the links of a page mean at its address."""

    def __init__(self, address: str, parser: _Links) -> None:
        self._address = address
        self._links = parser.links
        self._form = parser.form
        self._headings = [" ".join(text.split()) for text in parser.headings]
        self._places = PageLinks(address, parser.base)
        self._path = self._places.path

    def listed(self, limit: int) -> list[Listed] | None:
        below: dict[str, list[_Link]] = {}
        folders: set[str] = set()
        elsewhere: list[_Link] = []
        up = False
        for link in self._links:
            found = self._places.below(link.href)
            if found is None:
                up = up or link.href in _PARENT_HREFS or bool(_UP.fullmatch(" ".join(link.text.split())))
                elsewhere.append(link)
                continue
            below.setdefault(found.name, []).append(link)
            if found.folder or link.text.endswith("/"):  # some tell folders by their text alone
                folders.add(found.name)
        named = any(self._names_folder(text) for text in self._headings)
        told = {n: links for n, links in below.items() if any(_is_name(link.text, n) for link in links)}
        alike = up and told and len(told) == len(below) and not self._form
        if not named and not alike:
            return None
        chosen = told or below
        if len(chosen) > limit:
            _too_many(limit)
        self._tell_left_out(elsewhere, below.keys() - chosen.keys(), some=bool(chosen))
        iis = any(_HOST_AND_PATH.fullmatch(text) for text in self._headings)
        return [_entry(name, name in folders, links, iis=iis) for name, links in chosen.items()]

    def _tell_left_out(self, elsewhere: Iterable[_Link], other: Iterable[str], *, some: bool) -> None:
        """Nothing is left out silently. Raises `SourceUnsupportedError` where that is all: it is not empty."""
        urls = {
            url: None for link in elsewhere if (url := self._places.names_elsewhere(link.href, link.text))
        }
        left_out = [*urls, *sorted(other)]
        if urls and not some:
            raise SourceUnsupportedError(
                f"every link of the directory listing points outside it "
                f"({left_out[0]}{', …' if len(left_out) > 1 else ''}); "
                "use the URL that they point to"
            )
        if left_out:
            log.warning(
                "%s: skipped %d links of the listing that point outside it, or are named otherwise (%s)",
                redacted(self._address), len(left_out), ", ".join(map(shown, left_out[:SHOWN])),
            )  # fmt: skip

    def _names_folder(self, heading: str) -> bool:
        """Whether it is the heading of a listing, and of this one rather than of a book's index."""
        if "".join(heading.split()) == "".join(self._path.split()):
            return True
        found = _SAID.match(heading) or _HOST_AND_PATH.fullmatch(heading)
        if not found:
            return False
        said = found["path"].strip()
        said = said[1:].partition("]")[0] if said.startswith("[") else said
        return said.startswith("/") or _last(said) == _last(self._path)


def _last(path: str) -> str:
    return unquoted(path).rstrip("/").rpartition("/")[2]


def _is_name(text: str, name: str) -> bool:
    """Whether a link says where it leads; long names may be cut short."""
    said = " ".join(text.split()).rstrip("/").rstrip()
    name = " ".join(name.split())
    if said == name or said.endswith(f" {name}") or said.startswith(f"{name} "):
        return True
    return any(
        said.endswith(cut) and len(said) > 6 and name.startswith(without_half(said.removesuffix(cut)))
        for cut in _CUT
    )


def _entry(name: str, folder: bool, links: list[_Link], *, iis: bool) -> Listed:
    if folder:
        return Listed(name, True, None, "")
    size, stamp = next((found for link in links if (found := _exact(link, iis=iis))), (None, ""))
    return Listed(name, False, size, stamp)


def _exact(link: _Link, *, iis: bool) -> tuple[int, str] | None:
    """Size to the byte, and time of change, where the page tells them."""
    if link.size is not None:
        return link.size, link.time
    if iis and (match := _IIS.fullmatch(link.before)):
        return int(match[2]), match[1]
    cells = [cell for line in link.after.splitlines() if (cell := line.replace("\u00a0", " ").strip())]
    if cells and (match := _NGINX.fullmatch(cells[0])):
        return int(match[2]), match[1]
    for before, cell in itertools.pairwise(["", *cells[:3]]):
        if match := _BYTES.fullmatch(cell.replace("\u202f", " ")):
            return int(re.sub(r"\D", "", match[1])), before
    return None


def _too_many(limit: int) -> None:
    raise SourceUnsupportedError(f"directory listing exceeds {limit:,} entries (origin.max_entries)")
