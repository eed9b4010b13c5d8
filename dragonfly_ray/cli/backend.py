"""Whom a command asks: the Ray cluster itself, or its manager."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragonfly_ray.cli import show
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.options import JobOptions, RemoteSourceOptions, SourceOptions, SubmitOptions, options_of
from dragonfly_ray.waiting import Running

if TYPE_CHECKING:
    from dragonfly_ray.remote import Client

_chosen: dict[str, str | None] = {"url": None, "ca": None}
_STRANGE: Mapping[str, str] = {
    "headers": "--header: not available with --manager; store credentials as a secret and pass --secret",
    "storage_options": "--storage-option: not available with --manager; store credentials as a secret and pass --secret",
    "shared": "--shared: not available with --manager, which accepts only URLs",
    "secret": "--secret: needs --manager; without a manager pass credentials with -H or -o",
    "name": "--name: needs --manager; only a manager's jobs are named",
}
"""What only one of the two knows, and what to do instead."""


def choose(url: str | None, ca: Path | None) -> None:
    """For all that follows; None: Ray."""
    _chosen.update(url=url or None, ca=None if ca is None else str(ca))
    _client.cache_clear()


def cluster() -> Any:
    """`dragonfly_ray.api`, or a client with the same calls."""
    if _chosen["url"]:
        return _client()
    from dragonfly_ray import api

    return api


def manager() -> Client:
    if not _chosen["url"]:
        raise InvalidRequestError(
            "this command needs a manager: pass --manager URL, or set DRAGONFLY_MANAGER"
        )
    return _client()


def refuse(why: str) -> None:
    """For what a manager cannot do."""
    if _chosen["url"]:
        raise InvalidRequestError(f"{why}; or omit --manager (unset DRAGONFLY_MANAGER)")


def submit(urls: list[str], nodes: Any, **options: Any) -> Running:
    if _chosen["url"]:
        del options["detached"]  # a manager's job always is
    found: Running = cluster().submit(urls, nodes, **_known(options, SubmitOptions, JobOptions))
    return found


def evict(url: str, nodes: Any, **identity: Any) -> int:
    """`identity`: what made it a source of its own."""
    freed: int = cluster().evict(url, nodes, **_known(identity, SourceOptions, RemoteSourceOptions))
    return freed


def _known(options: Mapping[str, Any], ray: type, manager: type) -> dict[str, Any]:
    """Without what the one that is asked does not know; where it was given, it is refused."""
    known = options_of(manager if _chosen["url"] else ray)
    for name in options.keys() - known:
        if options[name]:
            raise InvalidRequestError(_STRANGE[name])
    return {name: value for name, value in options.items() if name in known}


def cached() -> list[dict[str, Any]]:
    """A row for each task on each host."""
    return _client().cached() if _chosen["url"] else show.cached(cluster().status())


@functools.cache
def _client() -> Client:
    from dragonfly_ray.remote import connect

    url = _chosen["url"]
    assert url
    return connect(url, ca=_chosen["ca"])
