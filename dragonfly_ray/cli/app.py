"""Commands, options and exit codes. Everything that they do is in `dragonfly_ray.api`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

import typer
from rich.console import Console

from dragonfly_ray import errors
from dragonfly_ray.cli import show
from dragonfly_ray.cli.simulate import simulate
from dragonfly_ray.config import CONFIG_VARIABLE

T = TypeVar("T")
OK, FAILED, USAGE, NOT_RUNNING, ORIGIN, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
EPILOG = (
    "Exit codes: 0 all nodes have it; 1 some node failed; 2 refused input; 3 no cluster, or nothing "
    "running on it; 4 the origin failed; 5 timed out; 130 interrupted (what was under way is cancelled)."
)
app = typer.Typer(
    name="dragonfly",
    help="Put one file or one directory on every node of a Ray cluster, peer to peer, verified.\n\n"
    "Start with `dragonfly up`, then `dragonfly distribute https://host/model.bin --dest /models/model.bin`.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(soft_wrap=False)
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Urls = Annotated[
    list[str], typer.Argument(help="Any fsspec URL or a path of this node; a directory ends with '/'.")
]
Url = Annotated[str, typer.Argument(help="Any fsspec URL, or a path of this node.")]
Nodes = Annotated[
    Optional[list[str]],  # noqa: UP045, typer reads this at run time
    typer.Option(
        "--nodes", "-n",
        help="`all`, `seeds`, a count, a share (`10%`), a node id, IP or name, or `label=value`. Repeatable.",
    ),
]  # fmt: skip
Node = Annotated[list[str], typer.Argument(help="As for --nodes; several may be given.")]
Headers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--header", "-H", help="`Name: value`, for HTTP sources. Repeatable."),
]
Options = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--storage-option", "-o", help="`key=value` for fsspec; the value may be JSON. Repeatable."),
]
Timeout = Annotated[Optional[float], typer.Option(help="Seconds for the whole.", min=0.001)]  # noqa: UP045
Tag = Annotated[Optional[str], typer.Option(help="Part of the task's identity.")]  # noqa: UP045


def run() -> None:
    """Runs the command, and turns errors into one line and an exit code."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        err.print("interrupted; what was under way is cancelled", style="yellow")
        _leave(INTERRUPTED)
    except errors.DragonflyError as error:
        err.print(f"dragonfly: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        _leave(exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(FAILED)


def _leave(code: int) -> None:
    raise SystemExit(code)


def exit_code(error: errors.DragonflyError) -> int:
    """The documented code for an error."""
    match error:
        case errors.DistributionFailedError():
            kinds = {o.error.kind for o in error.distribution.failures if o.error}
            return ORIGIN if kinds and all(k.startswith("source") for k in kinds) else FAILED
        case errors.InvalidRequestError():
            return USAGE
        case errors.SourceError():
            return ORIGIN
        case errors.DeadlineError():
            return TIMEOUT
        case errors.NotRunningError():
            return NOT_RUNNING
        case _:
            return FAILED


@app.callback()
def _global(
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(envvar="RAY_ADDRESS", help="The Ray cluster; without it, the one that runs here."),
    ] = None,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(envvar=CONFIG_VARIABLE, exists=True, dir_okay=False, help="A YAML file with settings."),
    ] = None,
    namespace: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The Ray namespace of the actors; each is a cluster of its own."),
    ] = None,
) -> None:
    if address:
        os.environ["RAY_ADDRESS"] = address
    if config:
        os.environ[CONFIG_VARIABLE] = str(config)
    if namespace:
        os.environ["DRAGONFLY_NAMESPACE"] = namespace


def _emit(value: object, as_json: bool, shown: Callable[[], object]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
    else:
        out.print(shown())


def _selector(nodes: list[str] | None) -> Any:
    """`label=value` options together are one selector; numbers are counts."""
    if not nodes:
        return "all"
    labels = dict(n.split("=", 1) for n in nodes if "=" in n)
    parts: list[Any] = [int(n) if n.isdigit() else n for n in nodes if "=" not in n]
    return [*parts, labels] if labels else parts


def _pairs(values: list[str] | None, separator: str, what: str) -> dict[str, str]:
    found = {}
    for value in values or []:
        name, sep, rest = value.partition(separator)
        if not sep or not name.strip():
            raise errors.InvalidRequestError(f"{what} must be NAME{separator}VALUE")
        found[name.strip()] = rest.strip()
    return found


def _storage_options(values: list[str] | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in _pairs(values, "=", "--storage-option").items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


@app.command(epilog=EPILOG)
def up(json_: Json = False) -> None:
    """Start the actors on the cluster, or find them running."""
    from dragonfly_ray import api

    peers = api.up()
    _emit(peers, json_, lambda: f"{len(peers)} peers are ready")


@app.command(epilog=EPILOG)
def down(json_: Json = False) -> None:
    """Stop the actors. What they stored stays."""
    from dragonfly_ray import api

    stopped = api.down()
    _emit({"stopped": stopped}, json_, lambda: "stopped" if stopped else "nothing was running")


@app.command(epilog=EPILOG)
def distribute(
    urls: Urls,
    nodes: Nodes = None,
    dest: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--dest", "-d", help="Absolute path on each node; {name} and {node} may appear."),
    ] = None,
    digest: Annotated[Optional[str], typer.Option(help="`sha256:…`, `blake3:…` of the content.")] = None,  # noqa: UP045
    include: Annotated[Optional[list[str]], typer.Option(help="Pattern for names. Repeatable.")] = None,  # noqa: UP045
    exclude: Annotated[Optional[list[str]], typer.Option(help="Pattern for names. Repeatable.")] = None,  # noqa: UP045
    header: Headers = None,
    storage_option: Options = None,
    tag: Tag = None,
    application: Tag = None,
    filter_query_param: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A query parameter that does not name the content. Repeatable."),
    ] = None,
    link: Annotated[bool, typer.Option(help="Outputs may share blocks with the store.")] = True,
    shared: Annotated[bool, typer.Option(help="Every node sees this path (NFS).")] = False,
    detach: Annotated[bool, typer.Option(help="Print the id and leave; it goes on.")] = False,
    id: Annotated[Optional[str], typer.Option(help="Of the distribution; again: attach to it.")] = None,  # noqa: UP045
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Put files or directories on nodes, and wait until all have them.

    [b]Examples[/b]

    dragonfly distribute https://host/weights.bin -d /models/weights.bin

    dragonfly distribute s3://bucket/data/ -n pool=gpu -d /data -o anon=true

    dragonfly distribute ./model -n 3 -n 10.0.0.7
    """
    from dragonfly_ray import api

    submission = api.submit(
        urls,
        _selector(nodes),
        dest=dest,
        digest=digest,
        include=include,
        exclude=exclude,
        headers=_pairs(header, ":", "--header"),
        storage_options=_storage_options(storage_option),
        tag=tag,
        application=application,
        filtered_query_params=filter_query_param,
        link=link,
        shared=shared,
        detached=detach,
        id=id,
    )
    if detach:
        submission.wait(1.0)
        _emit({"id": submission.id}, json_, lambda: submission.id)
        return
    done = _follow(submission, timeout, quiet=json_)
    _emit(done.to_dict(), json_, lambda: done)
    if not done.ok:
        try:
            done.raise_for_failures()
        except errors.DistributionFailedError as error:
            err.print(f"dragonfly: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(exit_code(error)) from None


def _follow(submission: Any, timeout: float | None, *, quiet: bool) -> Any:
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with show.Live(err, quiet=quiet) as live:
            while not submission.wait(0.2):
                live.update(submission.progress())
                if deadline is not None and time.monotonic() > deadline:
                    text = f"distribution {submission.id}: cancelled after {timeout:g} s"
                    submission.cancel("deadline", text)
                    raise errors.DeadlineError(text)
            live.update(submission.progress())
        return submission.result(0)
    except KeyboardInterrupt:
        submission.cancel()
        raise
    finally:
        submission.close()


@app.command(epilog=EPILOG)
def get(
    url: Url,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-O", help="Where to put it; without it, the path in the store is printed."),
    ] = None,
    digest: Annotated[Optional[str], typer.Option(help="`sha256:…`, `blake3:…` of the content.")] = None,  # noqa: UP045
    header: Headers = None,
    storage_option: Options = None,
    tag: Tag = None,
    application: Tag = None,
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Get one file or directory onto this node, from peers where they have it."""
    from dragonfly_ray import api
    from dragonfly_ray.actors.nodes import current_node

    api.nodes()
    submission = api.submit(
        url,
        [current_node()],
        dest=None if output is None else os.path.abspath(output),
        digest=digest,
        headers=_pairs(header, ":", "--header"),
        storage_options=_storage_options(storage_option),
        tag=tag,
        application=application,
    )
    done = _follow(submission, timeout, quiet=json_)
    done.raise_for_failures()
    _emit(done.to_dict(), json_, lambda: str(next(iter(done.paths.values()))))


@app.command(epilog=EPILOG)
def attach(id: str, timeout: Timeout = None, json_: Json = False) -> None:
    """Follow a distribution that somebody else submitted."""
    from dragonfly_ray import api

    submission = api.attach(id)
    try:
        with show.Live(err, quiet=json_) as live:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not submission.wait(0.2):
                live.update(submission.progress())
                if deadline is not None and time.monotonic() > deadline:
                    raise errors.DeadlineError(f"distribution {id} has not ended; it goes on")
        done = submission.result(0)
    finally:
        submission.close()
    _emit(done.to_dict(), json_, lambda: done)
    done.raise_for_failures()


@app.command(epilog=EPILOG)
def cancel(id: str, json_: Json = False) -> None:
    """Stop a distribution everywhere; outputs that are there already stay."""
    from dragonfly_ray import api

    submission = api.attach(id)
    submission.cancel()
    submission.close()
    _emit({"cancelled": id}, json_, lambda: f"{id} cancelled")


@app.command(epilog=EPILOG)
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """Hosts, what is under way, and rates."""
    from dragonfly_ray import api

    if not watch:
        found = api.status()
        _emit(found, json_, lambda: show.status(found))
        return
    from rich.live import Live

    with Live(show.status(api.status()), console=out, refresh_per_second=4) as live:
        while True:
            time.sleep(1.0)
            live.update(show.status(api.status()))


@app.command(epilog=EPILOG)
def ls(json_: Json = False) -> None:
    """What is cached where."""
    from dragonfly_ray import api

    found = api.status()
    rows = show.cached(found)
    _emit(rows, json_, lambda: show.listing(rows))


@app.command(epilog=EPILOG)
def rm(url: Url, nodes: Nodes = None, tag: Tag = None, application: Tag = None, json_: Json = False) -> None:
    """Drop a URL from the stores of nodes; outputs stay."""
    from dragonfly_ray import api

    identity = {k: v for k, v in (("tag", tag), ("application", application)) if v}
    freed = api.evict(url, _selector(nodes), **identity)
    _emit({"freed": freed}, json_, lambda: f"{show.size(freed)} freed")


@app.command(epilog=EPILOG)
def nodes(json_: Json = False) -> None:
    """The cluster's nodes, as `--nodes` may name them."""
    from dragonfly_ray import api

    found = api.nodes()
    rows = [{"node_id": m.node_id, "address": m.address, "name": m.name, "alive": m.alive, "seed": m.seed,
             "cordoned": m.cordoned, "labels": dict(m.labels)} for m in found]  # fmt: skip
    _emit(rows, json_, lambda: show.nodes(rows))


@app.command(epilog=EPILOG)
def cordon(node: Node, json_: Json = False) -> None:
    """Choose nodes for nothing new, unless they are named."""
    from dragonfly_ray import api

    chosen = api.cordon(_selector(node))
    _emit({"cordoned": chosen}, json_, lambda: f"{len(chosen)} cordoned")


@app.command(epilog=EPILOG)
def uncordon(node: Node, json_: Json = False) -> None:
    """Undo `cordon` and `drain`."""
    from dragonfly_ray import api

    chosen = api.uncordon(_selector(node))
    _emit({"uncordoned": chosen}, json_, lambda: f"{len(chosen)} uncordoned")


@app.command(epilog=EPILOG)
def drain(
    node: Node,
    wait: Annotated[bool, typer.Option(help="Until they have nothing to do any more.")] = True,
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Let nodes end what they have begun, and send nobody there for what others have."""
    from dragonfly_ray import api

    chosen = api.drain(_selector(node), wait=wait, timeout=timeout)
    _emit({"drained" if wait else "draining": chosen}, json_,
          lambda: f"{len(chosen)} {'drained' if wait else 'draining'}")  # fmt: skip


app.command(epilog=EPILOG)(simulate)
