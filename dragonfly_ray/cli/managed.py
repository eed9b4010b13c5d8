"""The commands that only a manager can carry out."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from dragonfly_ray.cli import backend, show
from dragonfly_ray.cli.common import (
    EPILOG,
    Json,
    LinksOption,
    Nodes,
    Secret,
    Tag,
    Timeout,
    Urls,
    emit,
    finish,
    selector,
)


def add_to(app: typer.Typer) -> None:
    for command in (preheat, jobs, retry):
        app.command(epilog=EPILOG)(command)


def preheat(
    urls: Urls,
    nodes: Nodes = None,
    digest: Annotated[Optional[str], typer.Option(help="`sha256:…`, `blake3:…` of the content.")] = None,  # noqa: UP045
    include: Annotated[Optional[list[str]], typer.Option(help="Pattern for names. Repeatable.")] = None,  # noqa: UP045
    exclude: Annotated[Optional[list[str]], typer.Option(help="Pattern for names. Repeatable.")] = None,  # noqa: UP045
    secret: Secret = None,
    tag: Tag = None,
    application: Tag = None,
    links: LinksOption = "refuse",
    detach: Annotated[bool, typer.Option(help="Print the id and leave; it goes on.")] = False,
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Warm the stores of nodes (the seeds, unless --nodes says otherwise), through a manager."""
    submission = backend.manager().preheat(
        urls,
        selector(nodes) if nodes else "seeds",
        digest=digest,
        include=include,
        exclude=exclude,
        secret=secret,
        tag=tag,
        application=application,
        links=links,
    )
    finish(submission, timeout, detach=detach, json_=json_)


def jobs(
    state: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="queued, running, succeeded, partial, failed, cancelled."),
    ] = None,
    most: Annotated[int, typer.Option(help="So many, the latest first.", min=1)] = 50,
    json_: Json = False,
) -> None:
    """A manager's distributions and preheats."""
    rows = backend.manager().jobs(state=state, most=most)
    emit(rows, json_, lambda: show.jobs(rows))


def retry(
    id: str,
    node: Annotated[
        list[str] | None, typer.Option(help="A node id; none: all that failed. Repeatable.")
    ] = None,
    detach: Annotated[bool, typer.Option(help="Print the id and leave; it goes on.")] = False,
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Try a manager's job again on the nodes that failed."""
    finish(backend.manager().retry(id, node or ()), timeout, detach=detach, json_=json_)
