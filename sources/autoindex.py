"""Folders as web servers list them: nginx (HTML and JSON), Apache, Python's own, and what looks alike."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.model import Entry, Manifest, Source
from dragonfly_ray.sources.base import LISTED, Seen, Share, chosen

if TYPE_CHECKING:
    from dragonfly_ray.sources.http import HttpAdapter

MOST_DEPTH = 64
_EXACT = re.compile(r"\s*(\d{2}-\w{3}-\d{4} \d{2}:\d{2})\s+(\d+)\s*$")
_TITLE = re.compile(r"<(?:title|h1)>\s*(?:Index of|Directory listing for)", re.IGNORECASE)


class Listed(NamedTuple):
    """One name of a page. `size` is None where the page does not tell it to the byte."""

    name: str
    folder: bool
    size: int | None
    stamp: str


def looks_like_index(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in ("text/html", "application/json")


def parse(page: str) -> list[Listed] | None:
    """The names in a listing; None if it is none."""
    if page.lstrip().startswith("["):
        return _parse_json(page)
    if not _TITLE.search(page):
        return None
    parser = _Links()
    parser.feed(page)
    parser.close()
    return parser.listed()


def _parse_json(page: str) -> list[Listed] | None:
    try:
        rows = json.loads(page)
        return [
            Listed(r["name"], r["type"] == "directory", r.get("size"), str(r.get("mtime", "")))
            for r in rows
            if r["type"] in ("file", "directory")
        ]
    except (ValueError, KeyError, TypeError):
        return None


class _Links(HTMLParser):
    """Anchors, and the text that follows each."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[str, list[str]]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            self._found.append((href, []))
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._found and not self._inside:
            self._found[-1][1].append(data)

    def listed(self) -> list[Listed]:
        found: dict[str, Listed] = {}
        for href, after in self._found:
            name = unquote(href.removeprefix("./").partition("#")[0])
            folder = name.endswith("/")
            name = name.rstrip("/")
            # Links to elsewhere, to the parent and to other orders of the same page.
            if "?" in href or ":" in href.partition("/")[0] or not name or "/" in name or name in (".", ".."):
                continue
            match = _EXACT.match("".join(after).splitlines()[0]) if "".join(after).strip() else None
            size = int(match[2]) if match and not folder else None
            found[name] = Listed(name, folder, size, match[1] if match else "")
        return list(found.values())


def list_folder(
    adapter: HttpAdapter, source: Source, page: str, share: Share
) -> tuple[tuple[Entry, ...], bool] | None:
    """The entries of the folder and all below, and whether its files can be read in ranges; None for a
    page that is no listing.

    Two kinds of files are looked at one by one, through `share`: those whose size the page does not
    tell, and those of several pieces, whose own version every range is compared with. What a listing
    tells of a version is in other words than the file's own answer.
    """
    top = parse(page)
    if top is None:
        return None
    found = dict(_walk(adapter, top, "", 0))
    entries = {entry.path: entry for entry in chosen(source, map(_entry, found, found.values()))}
    looked: dict[str, Seen] = {}
    todo = [path for path, entry in entries.items() if entry.kind == "file" and found[path].size is None]
    while todo or (todo := _long(entries, looked)):
        for path, seen in zip(todo, share(adapter.look, todo), strict=True):
            looked[path] = seen
            entries[path] = Entry(path, seen.size, seen.version or entries[path].version)
        todo = []
    leaf = Manifest(tuple(entries.values()), directory=True).leaf
    return tuple(entries.values()), all(seen.ranges for seen in looked.values() if seen.size > leaf)


def _entry(path: str, listed: Listed) -> Entry:
    if listed.folder:
        return Entry(path, kind="dir")
    return Entry(path, listed.size or 0, f"{LISTED}{listed.stamp}" if listed.stamp else "")


def _long(entries: dict[str, Entry], looked: dict[str, Seen]) -> list[str]:
    """Files of several pieces of which only the listing is known."""
    leaf = Manifest(tuple(entries.values()), directory=True).leaf
    return [path for path, entry in entries.items() if entry.size > leaf and path not in looked]


def _walk(adapter: HttpAdapter, listed: list[Listed], base: str, depth: int) -> Iterator[tuple[str, Listed]]:
    if depth > MOST_DEPTH:
        raise SourceUnsupportedError(f"{base}: folders are nested more than {MOST_DEPTH} deep")
    for each in listed:
        path = posixpath.join(base, each.name)
        yield path, each
        if each.folder:
            yield from _walk(adapter, parse(adapter.folder(path)) or [], path, depth + 1)
