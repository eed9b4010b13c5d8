"""Symlinks of a listing: where the kernel would end up by way of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dragonfly_ray.errors import UnsafePathError
from dragonfly_ray.model import Entry, Manifest
from dragonfly_ray.names import shown
from dragonfly_ray.storage.manifest_paths import folded

_TOP, _ELSEWHERE = 0, -1
"""The folder itself; a place that no link is at or below."""
GoOn = Callable[[], None]
"""Raises to end a long look."""


def check_links(manifest: Manifest, go_on: GoOn = lambda: None) -> None:
    """Raises `UnsafePathError` naming the first symlink that leads out of the folder."""
    for link in outward(manifest.entries, go_on):
        raise UnsafePathError(
            f"the symlink '{shown(link.path)}' points outside its folder, to '{shown(link.target)}'; "
            "nothing was written; exclude it"
        )


def outward(entries: Sequence[Entry], go_on: GoOn = lambda: None) -> Iterator[Entry]:
    """The symlinks on whose way the kernel would leave the folder, in order."""
    links = [entry for entry in entries if entry.kind == "symlink"]
    if links:
        walk = _Walk(links, go_on)
        yield from (link for link in links if walk.leaves(link))


class _Walk:
    """Each link is followed once: what others find on their way is remembered, so all take as long as their text.

    `a/..` is the folder above what `a` points to, which the text alone does not tell. Whatever is no link of the
    listing is taken for a folder. Names are folded, for a file system that cannot tell them apart, unless two links
    have one folded name: no such file system holds them.
    """

    def __init__(self, links: Sequence[Entry], go_on: GoOn) -> None:
        self._go_on = go_on
        exact = len({folded(link.path) for link in links}) < len(links)
        self._fold: Callable[[str], str] = str if exact else folded
        self._below: dict[tuple[int, str], int] = {}
        """(place, name) -> the place of that name there, of links and of the folders above them."""
        self._links: dict[int, Entry] = {}
        self._above: dict[str, tuple[int, ...]] = {}
        """Link -> the places from the top to its folder."""
        for link in links:
            *folders, name = link.path.split("/")
            way = [_TOP]
            for folder in folders:
                way.append(self._place(way[-1], folder))
            self._links[self._place(way[-1], name)] = link
            self._above[link.path] = tuple(way)
        self._ends: dict[str, tuple[int, ...] | None] = {}
        """Link -> the places from the top to where it leads; None: outside, or nowhere (a circle)."""
        self._outside: set[str] = set()

    def _place(self, folder: int, name: str) -> int:
        return self._below.setdefault((folder, self._fold(name)), len(self._below) + 1)

    def leaves(self, link: Entry) -> bool:
        if link.path not in self._ends:
            self._follow(link)
        return link.path in self._outside

    def _follow(self, first: Entry) -> None:
        stack = [_Step(first, self._above[first.path])]
        under_way = {first.path}
        while stack:
            self._go_on()
            step = stack[-1]
            met = self._next(step)
            if met is not None and met.path not in self._ends and met.path not in under_way:
                under_way.add(met.path)
                stack.append(_Step(met, self._above[met.path]))
                step.ahead.append(step.name)  # met again when it is known where it leads
                continue
            if met is not None and (end := self._ends.get(met.path)) is not None:
                step.at = list(end)
                continue
            outside = step.outside or (met is not None and met.path in self._outside)
            self._ends[step.link.path] = tuple(step.at) if met is None and not outside else None
            if outside:
                self._outside.add(step.link.path)
            under_way.discard(step.link.path)
            stack.pop()

    def _next(self, step: _Step) -> Entry | None:
        """The next link on the way of one, or None at its end."""
        while step.ahead and not step.outside:
            step.name = step.ahead.pop()
            if step.name == "..":
                step.at.pop()
                step.outside = not step.at
            elif step.name not in ("", "."):
                place = self._below.get((step.at[-1], self._fold(step.name)), _ELSEWHERE)
                if place in self._links:
                    return self._links[place]
                step.at.append(place)
        return None


class _Step:
    """A link that is being followed. `at`: the places from the top to where it is; `ahead`: names, the next at the end."""

    __slots__ = ("ahead", "at", "link", "name", "outside")

    def __init__(self, link: Entry, above: tuple[int, ...]) -> None:
        self.link = link
        self.at = list(above)
        self.ahead = link.target.split("/")[::-1]
        self.name = ""
        self.outside = link.target.startswith("/")
