"""What becomes of the symlinks that a look at a source found: see `Links`."""

from __future__ import annotations

from collections.abc import Callable

from dragonfly_ray.errors import SourceUnsupportedError, UnsafePathError
from dragonfly_ray.model import Manifest, Source
from dragonfly_ray.names import shown
from dragonfly_ray.storage.symlinks import outward
from dragonfly_ray.urls import redacted, scheme


def check_links(
    manifest: Manifest, source: Source, *, bound: bool, go_on: Callable[[], None] = lambda: None
) -> None:
    """`bound`: a policy of URLs holds. `go_on` may raise to end it.

    Raises `UnsafePathError` for a link that leads out and may not, `SourceUnsupportedError` for one that was to be
    followed.
    """
    local = scheme(source.url) in ("file", "local")
    folder = (source.url.partition("://")[2] if local else redacted(source.url)).rstrip("/")
    if source.links == "follow":
        for link in manifest.entries:
            if link.kind == "symlink":
                raise SourceUnsupportedError(
                    f"{folder}/{link.path}: a symlink to '{link.target}', which this filesystem cannot follow; "
                    "links='keep' delivers the symlink itself; or exclude it"
                )
    if source.links == "keep" and not bound:
        return
    for link in outward(manifest.entries, go_on):
        where = f"{folder}/{link.path}: a symlink that points outside the folder, to '{shown(link.target)}'"
        if bound:
            raise UnsafePathError(f"{where}; the URL policy forbids following or keeping it; exclude it")
        raise UnsafePathError(
            f"{where}; links='follow' delivers its target, links='keep' the symlink itself; or exclude it"
        )
