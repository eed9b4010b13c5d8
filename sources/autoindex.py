"""Folders as web servers list them: walked, page by page, within bounds."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dragonfly_ray.errors import SourceUnsupportedError
from dragonfly_ray.model import Entry, Manifest, Source
from dragonfly_ray.sources.base import Seen, Share, chosen
from dragonfly_ray.sources.index_page import Listed, parse
from dragonfly_ray.versions import LISTED

if TYPE_CHECKING:
    from dragonfly_ray.sources.http_resolving import HttpResolver

MAX_DEPTH = 64
MAX_LISTING = 256 * 1024 * 1024
"""Characters of all pages of a folder and those below."""


@dataclass(frozen=True, slots=True)
class IndexPage:
    """A page of a listing. `address`: where it was found in the end."""

    text: str
    address: str


def list_folder(
    folders: HttpResolver, source: Source, page: IndexPage, share: Share, max_entries: int
) -> tuple[tuple[Entry, ...], bool] | None:
    """The entries of the folder and all below, and whether its files can be read in ranges; None for a
    page that is no listing.

    Two kinds of files are looked at one by one, through `share`: those whose size the page does not
    tell, and those of several pieces, whose own version every range is compared with. What a listing
    tells of a version is in other words than the file's own answer.
    """
    top = parse(page.text, page.address, max_entries)
    if top is None:
        return None
    found = _Walk(folders, max_entries, len(page.text)).all(top)
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


def _entry(path: str, listed: Listed) -> Entry:
    if listed.folder:
        return Entry(path, kind="dir")
    return Entry(path, listed.size or 0, f"{LISTED}{listed.stamp}" if listed.stamp else "")


def _long(entries: dict[str, Entry], looked: dict[str, Seen]) -> list[str]:
    """Files of several pieces of which only the listing is known."""
    leaf = Manifest(tuple(entries.values()), directory=True).leaf
    return [path for path, entry in entries.items() if entry.size > leaf and path not in looked]


class _Walk:
    """Through the folders below one, until too much is listed."""

    def __init__(self, folders: HttpResolver, max_entries: int, listed: int) -> None:
        self._folders = folders
        self._max_entries = max_entries
        self._listed = listed

    def all(self, top: list[Listed]) -> dict[str, Listed]:
        """By path. Raises `SourceUnsupportedError` where there is no end of it."""
        found: dict[str, Listed] = {}
        for path, each in self._walk(top, "", 1):
            found[path] = each
            if len(found) > self._max_entries:
                raise SourceUnsupportedError(
                    f"{self._folders.name}: more than {self._max_entries:,} names are listed (origin.max_entries)"
                )
        return found

    def _walk(self, listed: list[Listed], base: str, depth: int) -> Iterator[tuple[str, Listed]]:
        for each in listed:
            path = posixpath.join(base, each.name)
            yield path, each
            if each.folder:
                yield from self._walk(self._folder(path, depth), path, depth + 1)

    def _folder(self, path: str, depth: int) -> list[Listed]:
        name = f"{self._folders.name}{path}/"
        if depth > MAX_DEPTH:
            raise SourceUnsupportedError(f"{name}: folders are nested more than {MAX_DEPTH} deep")
        page = self._folders.folder(path)
        self._listed += len(page.text)
        if self._listed > MAX_LISTING:
            raise SourceUnsupportedError(
                f"{name}: with this listing there are more than {MAX_LISTING:,} bytes"
            )
        found = parse(page.text, page.address, self._max_entries)
        if found is None:
            raise SourceUnsupportedError(
                f"{name}: is a page, not a listing; have the server list the folder, or leave it out (exclude)"
            )
        return found
