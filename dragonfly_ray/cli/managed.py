"""The commands that only a manager can carry out."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from dragonfly_ray.cli import backend, show
from dragonfly_ray.cli.common import (
    EPILOG,
    Detach,
    Json,
    Nodes,
    Timeout,
    Urls,
    emit,
    finish,
    selector,
    takes_flags,
)
from dragonfly_ray.options import PreheatOptions


def add_to(app: typer.Typer) -> None:
    for command in (preheat, jobs, retry):
        app.command(epilog=EPILOG)(command)


@takes_flags(PreheatOptions)
def preheat(
    urls: Urls,
    nodes: Nodes = None,
    *,
    detach: Detach = False,
    timeout: Timeout = None,
    json_: Json = False,
    **options: Any,
) -> None:
    """Warm the stores of nodes (the seeds, unless --nodes says otherwise), through a manager."""
    submission = backend.manager().preheat(urls, selector(nodes) if nodes else "seeds", **options)
    finish(submission, timeout, detach=detach, json_=json_)


def jobs(
    state: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="queued, running, succeeded, partial, failed, cancelled."),
    ] = None,
    most: Annotated[int, typer.Option(help="Maximum number of jobs, latest first.", min=1)] = 50,
    json_: Json = False,
) -> None:
    """A manager's distributions and preheats."""
    rows = backend.manager().jobs(state=state, most=most)
    emit(rows, json_, lambda: show.jobs(rows))


def retry(
    id: str,
    node: Annotated[
        list[str] | None, typer.Option(help="A node id; default: all failed nodes. Repeatable.")
    ] = None,
    detach: Detach = False,
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Try a manager's job again on the nodes that failed."""
    finish(backend.manager().retry(id, node or ()), timeout, detach=detach, json_=json_)
