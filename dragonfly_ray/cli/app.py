"""Commands, options and exit codes. Everything that they do is in `dragonfly_ray.api`, or in a manager's `Client`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.text import Text

from dragonfly_ray import __version__, errors
from dragonfly_ray.cli import backend, managed, show
from dragonfly_ray.cli.common import (
    EPILOG,
    FAILED,
    INTERRUPTED,
    Detach,
    Json,
    Node,
    Nodes,
    Timeout,
    Url,
    Urls,
    emit,
    err,
    exit_code,
    finish,
    follow,
    heed_interrupts,
    out,
    place_here,
    selector,
    takes_flags,
    telling_of_cancelled,
)
from dragonfly_ray.cli.simulate import simulate
from dragonfly_ray.config import CONFIG_VARIABLE
from dragonfly_ray.names import shown
from dragonfly_ray.options import JobOptions, RemoteSourceOptions, SourceOptions, SubmitOptions
from dragonfly_ray.remote.credentials import CA_VARIABLE, MANAGER_VARIABLE, TOKEN_VARIABLE

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


def run() -> None:
    """Runs the command, and turns errors into one line and an exit code."""
    heed_interrupts()
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        err.print("interrupted; running distributions were cancelled", style="yellow")
        _leave(INTERRUPTED)
    except errors.DragonflyError as error:
        err.print(f"dragonfly: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        _leave(exit_code(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(FAILED)


def _leave(code: int) -> None:
    raise SystemExit(code)


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"dragonfly-ray {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _global(
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(envvar="RAY_ADDRESS", help="Address of the Ray cluster; default: the local one."),
    ] = None,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(envvar=CONFIG_VARIABLE, exists=True, dir_okay=False, help="A YAML file with settings."),
    ] = None,
    namespace: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Ray namespace of the actors; each namespace is a cluster of its own."),
    ] = None,
    manager: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            envvar=MANAGER_VARIABLE,
            help=f"URL of a manager to go through, with the token in {TOKEN_VARIABLE} or ~/.config/dragonfly/token; "
            "default: the Ray cluster itself.",
        ),
    ] = None,
    ca: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            envvar=CA_VARIABLE, exists=True, dir_okay=False, help="CA certificate of the manager (PEM file)."
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    backend.choose(manager, ca)
    if address:
        os.environ["RAY_ADDRESS"] = address
    if config:
        os.environ[CONFIG_VARIABLE] = str(config)
    if namespace:
        os.environ["DRAGONFLY_NAMESPACE"] = namespace


@app.command(epilog=EPILOG)
def up(
    with_manager: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--with-manager/--no-manager",
            help="Start the REST API and console too; default: if the extra `serve` is installed.",
        ),
    ] = None,
    manager_host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Listen address of the manager: 127.0.0.1, or 0.0.0.0 for all interfaces."),
    ] = None,
    manager_port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Listen port of the manager; default 8000, 0: any free port.", min=0, max=65535),
    ] = None,
    json_: Json = False,
) -> None:
    """Start the actors and the manager on the cluster, or find them running."""
    from dragonfly_ray import api

    started = api.up(manager=_manager_settings(with_manager, manager_host, manager_port))
    found = started.manager
    password = found.password.get_secret_value() if found and found.password else None
    lines = [f"{len(started)} peers are ready"]
    if found:
        lines.append(f"console and API: {found.url}")
    if password:
        lines.append(f"sign in as admin with the password {password}   (shown this once; change it)")
    answer = {
        "peers": started,
        "manager": found and {"url": found.url, "user": "admin", "password": password},
    }
    emit(answer, json_, lambda: Text("\n".join(lines)))


def _manager_settings(wanted: bool | None, host: str | None, port: int | None) -> Any:
    """What `api.up` takes: settings, or False for none."""
    asked: dict[str, Any] = {k: v for k, v in (("http_host", host), ("http_port", port)) if v is not None}
    if wanted is False:
        if asked:
            raise errors.InvalidRequestError(
                "--manager-host, --manager-port: cannot be combined with --no-manager"
            )
        return False
    try:
        from dragonfly_ray.serve import launch  # noqa: F401, whether all that it needs is there
        from dragonfly_ray.serve.settings import ManagerSettings
    except ImportError as error:
        if wanted or asked:
            raise errors.InvalidRequestError(
                f"the manager needs the extra `serve` ({error.name} is missing): pip install 'dragonfly-ray[serve]'"
            ) from None
        return False
    return ManagerSettings(**asked)


@app.command(epilog=EPILOG)
def down(json_: Json = False) -> None:
    """Stop the manager and the actors. What they stored stays."""
    from dragonfly_ray import api

    stopped = api.down()
    emit({"stopped": stopped}, json_, lambda: "stopped" if stopped else "nothing was running")


@app.command(epilog=EPILOG)
@takes_flags(SubmitOptions, JobOptions, but=("detached",))
def distribute(
    urls: Urls,
    nodes: Nodes = None,
    *,
    detach: Detach = False,
    timeout: Timeout = None,
    json_: Json = False,
    **options: Any,
) -> None:
    """Put files or directories on nodes, and wait until all have them.

    [b]Examples[/b]

    dragonfly distribute https://host/weights.bin -d /models/weights.bin

    dragonfly distribute s3://bucket/data/ -n pool=gpu -d /data -o anon=true

    dragonfly distribute ./model -n 3 -n 10.0.0.7
    """
    submission = backend.submit(urls, selector(nodes), detached=detach, **options)
    finish(submission, timeout, detach=detach, json_=json_)


@app.command(epilog=EPILOG)
@takes_flags(SubmitOptions, but=("dest", "detached", "id", "shared"))
def get(
    url: Url,
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--output", "-O", help="Output path; default: print the path in the store."),
    ] = None,
    *,
    timeout: Timeout = None,
    json_: Json = False,
    **options: Any,
) -> None:
    """Get one file or directory onto this node, from peers where they have it."""
    backend.refuse("get: downloads to the node that it runs on; with --manager use distribute -n NODE")
    from dragonfly_ray import api
    from dragonfly_ray.actors.nodes import current_node

    api.nodes()
    dest = None if output is None else place_here(output)
    submission = api.submit(url, [current_node()], dest=dest, **options)
    done = follow(submission, timeout, quiet=json_)
    done.raise_for_failures()
    emit(done.to_dict(), json_, lambda: shown(str(next(iter(done.paths.values())))))


@app.command(epilog=EPILOG)
def attach(id: str, timeout: Timeout = None, json_: Json = False) -> None:
    """Follow a distribution that somebody else submitted."""
    submission = backend.cluster().attach(id)
    try:
        with show.Live(err, quiet=json_) as live:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not submission.wait(0.2):
                live.update(submission.progress())
                if deadline is not None and time.monotonic() > deadline:
                    raise errors.DeadlineError(
                        f"timed out waiting for distribution {id}; it is still running"
                    )
        with telling_of_cancelled(json_=json_):
            done = submission.result(0)
    finally:
        submission.close()
    emit(done.to_dict(), json_, lambda: done)
    done.raise_for_failures()


@app.command(epilog=EPILOG)
def cancel(id: str, json_: Json = False) -> None:
    """Stop a distribution everywhere; outputs that are there already stay."""
    submission = backend.cluster().attach(id)
    submission.cancel()
    submission.close()
    emit({"cancelled": id}, json_, lambda: f"{id} cancelled")


@app.command(epilog=EPILOG)
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """Hosts, what is under way, and rates."""
    cluster = backend.cluster()
    if not watch:
        found = cluster.status()
        emit(found, json_, lambda: show.status(found))
        return
    from rich.live import Live

    with Live(show.status(cluster.status()), console=out, refresh_per_second=4) as live:
        while True:
            time.sleep(1.0)
            live.update(show.status(cluster.status()))


@app.command(epilog=EPILOG)
def ls(json_: Json = False) -> None:
    """What is cached where."""
    rows = backend.cached()
    emit(rows, json_, lambda: show.listing(rows))


@app.command(epilog=EPILOG)
@takes_flags(SourceOptions, RemoteSourceOptions, but=("include", "exclude"))
def rm(url: Url, nodes: Nodes = None, *, json_: Json = False, **identity: Any) -> None:
    """Drop a URL from the stores of nodes; outputs stay. Options as it was distributed with."""
    freed = backend.evict(url, selector(nodes), **identity)
    emit({"freed": freed}, json_, lambda: f"{show.size(freed)} freed")


@app.command(epilog=EPILOG)
def nodes(json_: Json = False) -> None:
    """The cluster's nodes, as `--nodes` may name them."""
    found = backend.cluster().nodes()
    rows = [{"node_id": m.node_id, "address": m.address, "name": m.name, "alive": m.alive, "seed": m.seed,
             "cordoned": m.cordoned, "labels": dict(m.labels)} for m in found]  # fmt: skip
    emit(rows, json_, lambda: show.nodes(rows))


@app.command(epilog=EPILOG)
def cordon(node: Node, json_: Json = False) -> None:
    """Choose nodes for nothing new, unless they are named."""
    chosen = backend.cluster().cordon(selector(node))
    emit({"cordoned": chosen}, json_, lambda: f"{len(chosen)} cordoned")


@app.command(epilog=EPILOG)
def uncordon(node: Node, json_: Json = False) -> None:
    """Undo `cordon` and `drain`."""
    chosen = backend.cluster().uncordon(selector(node))
    emit({"uncordoned": chosen}, json_, lambda: f"{len(chosen)} uncordoned")


@app.command(epilog=EPILOG)
def drain(
    node: Node,
    wait: Annotated[bool, typer.Option(help="Wait until the nodes are drained.")] = True,
    timeout: Timeout = None,
    json_: Json = False,
) -> None:
    """Let nodes end what they have begun, and send nobody there for what others have."""
    chosen = backend.cluster().drain(selector(node), wait=wait, timeout=timeout)
    emit({"drained" if wait else "draining": chosen}, json_,
          lambda: f"{len(chosen)} {'drained' if wait else 'draining'}")  # fmt: skip


@app.command("rotate-keys", epilog=EPILOG)
def rotate_keys(json_: Json = False) -> None:
    """Sign grants with a new key, once every peer accepts it; content that is under way goes on.

    The former key is accepted until the grants that it signed have expired (`scheduler.grant_ttl`). Without this a new
    one takes over every `scheduler.signing_key_days`.
    """
    backend.refuse("rotate-keys: not available with --manager; run it on a node of the cluster")
    from dragonfly_ray import api

    begun = api.rotate_keys()
    emit({"begun": begun}, json_,
         lambda: "key rotation started: the new key signs once every peer accepts it" if begun else "a key rotation is already in progress")  # fmt: skip


managed.add_to(app)
app.command(epilog=EPILOG)(simulate)
