"""Outputs of several URLs at one `dest`: each needs a name of its own, on every file system."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.urls import basename, redacted, scheme


def check_outputs(dest: str, urls: Sequence[str]) -> None:
    """Whether each URL has an output of its own at `dest`. Raises `InvalidRequestError` naming two that have not.

    As `dest` is the same for all, outputs are apart, and none lies inside another, exactly where their names are.
    """
    if "{name}" not in dest:
        if len(urls) > 1:
            raise InvalidRequestError(f"dest {dest!r}: must contain {{name}} for several URLs")
        return
    seen: dict[str, str] = {}
    for url in urls:
        name = basename(url)
        if "/" in name or _controls(url, name) or {".", ".."} & set(unquote(name).split("/")):
            raise InvalidRequestError(
                f"url {redacted(url)}: cannot derive a file name from the URL ({name!r}); set dest"
            )
        if name in seen:
            raise InvalidRequestError(
                f"dest {dest!r}: {redacted(seen[name])} and {redacted(url)} have the same file name {name!r};"
                " distribute them separately, each with its own dest"
            )
        seen[name] = url


def names_alike(urls: Sequence[str]) -> list[tuple[str, ...]]:
    """For each URL the names of others that differ from its own in case or composition alone.

    Some file systems take them for one: only the destination's own can tell.
    """
    names = [basename(url) for url in urls]
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_folded(name), []).append(name)
    return [tuple(other for other in alike[_folded(name)] if other != name) for name in names]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _controls(url: str, name: str) -> bool:
    """Whether a URL makes up a name with control characters. A path of a node has those that are there."""
    return "\0" in name or (scheme(url) != "file" and any(ord(c) < 32 for c in name))
