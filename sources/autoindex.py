"""Folders as web servers list them: walked, page by page, within bounds."""

from __future__ import annotations

import posixpath
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dragonfly_ray.errors import SourceError, SourceUnsupportedError
from dragonfly_ray.model import Entry, Manifest, Source
from dragonfly_ray.sources.base import Seen, Share, chosen, may_hold, together
from dragonfly_ray.sources.index_page import Listed, parse
from dragonfly_ray.validators import LISTED

MAX_DEPTH = 64
MAX_LISTING = 256 * 1024 * 1024
"""Characters of all pages of a folder and those below."""
PARALLEL_FOLDERS = 8
"""Listings that are asked for at once: an origin that is far away takes its time for each."""
BATCHES = 8
"""Times as many are handed out together."""


@dataclass(frozen=True, slots=True)
class IndexPage:
    """A page of a listing. `address`: where it was found in the end."""

    text: str
    address: str


class FolderPages(Protocol):
    """A server's folders, from one on."""

    @property
    def name(self) -> str:
        """The URL, for people; it ends with a slash."""

    @property
    def connections(self) -> int:
        """As many requests may be under way at once."""

    def folder(self, path: str) -> IndexPage:
        """The listing of a folder below. Raises `SourceError`."""

    def look(self, paths: Sequence[str]) -> list[Seen]:
        """At files, without their bytes. Raises `SourceError`."""


def list_folder(
    folders: FolderPages, source: Source, page: IndexPage, share: Share, max_entries: int
) -> tuple[tuple[Entry, ...], bool] | None:
    """The entries of the folder and all below, and whether its files can be read in ranges; None for a
    page that is no listing.

    Two kinds of files are looked at one by one, through `share`: those whose size the page does not
    tell, and those of several pieces, whose own version every range is compared with. What a listing
    tells of a version is in other words than the file's own answer.
    """
    top = _names(page, folders.name, max_entries)
    if top is None:
        return None
    found = _Walk(folders, source, max_entries, len(page.text)).all(top)
    entries = {entry.path: entry for entry in chosen(source, map(_entry, found, found.values()))}
    looked: dict[str, Seen] = {}
    todo = [path for path, entry in entries.items() if entry.kind == "file" and found[path].size is None]
    while todo or (todo := _long(entries, looked)):
        for path, seen in zip(todo, share(folders.look, todo), strict=True):
            looked[path] = seen
            entries[path] = Entry(
                path, seen.size, seen.version or entries[path].version, checksum=seen.checksum
            )
        todo = []
    leaf = Manifest(tuple(entries.values()), directory=True).leaf
    return tuple(entries.values()), all(
        seen.ranges and seen.version for seen in looked.values() if seen.size > leaf
    )


def _names(page: IndexPage, name: str, max_entries: int) -> list[Listed] | None:
    try:
        return parse(page.text, page.address, max_entries)
    except SourceUnsupportedError as error:
        raise SourceUnsupportedError(f"{name}: {error}") from None


def _entry(path: str, listed: Listed) -> Entry:
    if listed.folder:
        return Entry(path, kind="dir")
    return Entry(path, listed.size or 0, f"{LISTED}{listed.stamp}" if listed.stamp else "")


def _long(entries: dict[str, Entry], looked: dict[str, Seen]) -> list[str]:
    """Files of several pieces of which only the listing is known."""
    leaf = Manifest(tuple(entries.values()), directory=True).leaf
    return [path for path, entry in entries.items() if entry.size > leaf and path not in looked]


class _Walk:
    """Through the folders below one, level by level, until too much is listed."""

    def __init__(self, folders: FolderPages, source: Source, max_entries: int, listed: int) -> None:
        self._folders = folders
        self._source = source
        self._max_entries = max_entries
        self._listed = self._longest = listed
        """Characters of all pages, and of the longest."""
        self._lock = threading.Lock()

    def all(self, top: list[Listed]) -> dict[str, Listed]:
        """By path. Raises `SourceUnsupportedError` where there is no end of it."""
        found: dict[str, Listed] = {}
        level = deque(self._add(found, top, ""))
        for _ in range(MAX_DEPTH):
            level = self._below(found, level)
            if not level:
                return found
        name = f"{self._folders.name}{level[0]}/"
        raise SourceUnsupportedError(f"{name}: folders are nested more than {MAX_DEPTH} deep")

    def _below(self, found: dict[str, Listed], level: deque[str]) -> deque[str]:
        """What these folders list, a few at once: the folders in them."""
        below: deque[str] = deque()
        while level:
            at_once = self._at_once()
            batch = [level.popleft() for _ in range(min(len(level), BATCHES * at_once))]
            for path, listed in zip(batch, together(at_once, batch, self._folder), strict=True):
                below.extend(self._add(found, listed, path))
        return below

    def _at_once(self) -> int:
        """As many as would still be allowed if each were as long as the longest."""
        room = (MAX_LISTING - self._listed) // max(1, self._longest)
        return max(1, min(PARALLEL_FOLDERS, self._folders.connections, room))

    def _add(self, found: dict[str, Listed], listed: list[Listed], base: str) -> list[str]:
        """The folders among them."""
        folders = []
        for each in listed:
            path = posixpath.join(base, each.name)
            found[path] = each
            if each.folder and may_hold(self._source, path):
                folders.append(path)
        if len(found) > self._max_entries:
            raise SourceUnsupportedError(
                f"{self._folders.name}: listings exceed {self._max_entries:,} entries (origin.max_entries)"
            )
        return folders

    def _folder(self, path: str) -> list[Listed]:
        name = f"{self._folders.name}{path}/"
        try:
            page = self._folders.folder(path)
        except SourceError as error:
            raise type(error)(f"{error} ({path}/)", **error.details) from None
        with self._lock:
            self._longest = max(self._longest, len(page.text))
            self._listed += len(page.text)
            too_much = self._listed > MAX_LISTING
        if too_much:
            raise SourceUnsupportedError(f"{name}: listings exceed {MAX_LISTING:,} bytes in total")
        found = _names(page, name, self._max_entries)
        if found is None:
            raise SourceUnsupportedError(
                f"{name}: an HTML page, not a directory listing; "
                f"enable directory listing on the server, or exclude it"
            )
        return found
