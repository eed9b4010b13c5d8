"""What the commands share: options, exit codes, how an answer is printed and a distribution followed."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Optional, TypeVar, get_args

import typer
from rich.console import Console

from dragonfly_ray import errors
from dragonfly_ray.cli import show
from dragonfly_ray.distribution import Distribution
from dragonfly_ray.options import Option, options_of
from dragonfly_ray.signals import heed, interrupt
from dragonfly_ray.waiting import Running

OK, FAILED, USAGE, NOT_RUNNING, ORIGIN, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
EPILOG = (
    "Exit codes: 0 all nodes succeeded; 1 some node failed; 2 invalid input; 3 no cluster or manager, or nothing "
    "running on it; 4 the origin failed; 5 timed out; 130 interrupted (running distributions are cancelled)."
)
F = TypeVar("F", bound=Callable[..., None])
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


Detach = Annotated[bool, typer.Option(help="Print the id and exit; the distribution keeps running.")]
Timeout = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Timeout in seconds for the whole distribution.", min=0.001),
]


_FLAGS = {
    "dest": ("--dest", "-d"),
    "headers": ("--header", "-H"),
    "storage_options": ("--storage-option", "-o"),
    "filtered_query_params": ("--filter-query-param",),
}
"""Where they are called otherwise than in Python."""
_FORMS = {"headers": " As `Name: value`.", "storage_options": " As `key=value`; the value may be JSON."}


def takes_flags(*definitions: type, but: Collection[str] = ()) -> Callable[[F], F]:
    """For a command with `**options`: a flag for each option of these definitions, behind its own arguments."""
    known = {
        n: found for each in reversed(definitions) for n, found in options_of(each).items() if n not in but
    }

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def filled(**given: Any) -> None:
            for name, parse in (("headers", headers), ("storage_options", storage_options)):
                if name in given:
                    given[name] = parse(given[name])
            command(**given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        shown = [p for p in own if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        shown += [_flag(name, hint, option) for name, (hint, option) in known.items()]
        shown += [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        filled.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        filled.__annotations__ = {p.name: p.annotation for p in shown}
        return filled  # type: ignore[return-value]

    return decorate


def _flag(name: str, hint: Any, option: Option) -> inspect.Parameter:
    many = bool({Sequence[str], Mapping[str, str], Mapping[str, object]} & {*get_args(hint)})
    plain = Optional[list[str]] if many else Optional[str] if type(None) in get_args(hint) else hint  # noqa: UP045
    text = f"{option.brief}{_FORMS.get(name, '')}{' Repeatable.' if many else ''}"
    flag = typer.Option(
        *_FLAGS.get(name, () if hint is bool else (f"--{name.replace('_', '-')}",)), help=text
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=Annotated[plain, flag]
    )


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


def place_here(output: str) -> str:
    """An absolute path; one that ends with `/` is a folder to put something into."""
    folder = "/" if output.endswith("/") and output.strip("/") else ""
    return f"{os.path.abspath(output)}{folder}"


def emit(value: object, as_json: bool, shown: Callable[[], object]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
    else:
        out.print(shown())


def selector(nodes: list[str] | None) -> Any:
    """`label=value` options together are one selector; numbers are counts."""
    if not nodes:
        return "all"
    labels = dict(n.split("=", 1) for n in nodes if "=" in n)
    parts: list[Any] = [int(n) if n.isdigit() else n for n in nodes if "=" not in n]
    return [*parts, labels] if labels else parts


def headers(values: list[str] | None) -> dict[str, str]:
    return pairs(values, ":", "--header")


def pairs(values: list[str] | None, separator: str, what: str) -> dict[str, str]:
    found = {}
    for value in values or []:
        name, sep, rest = value.partition(separator)
        if not sep or not name.strip():
            raise errors.InvalidRequestError(f"{what} must be NAME{separator}VALUE")
        found[name.strip()] = rest.strip()
    return found


def storage_options(values: list[str] | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in pairs(values, "=", "--storage-option").items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def finish(submission: Running, timeout: float | None, *, detach: bool, json_: bool) -> None:
    """Follows what was submitted to its end, and says what became of it."""
    if detach:
        submission.wait(1.0)
        emit({"id": submission.id}, json_, lambda: submission.id)
        return
    with telling_of_cancelled(json_=json_):
        done = follow(submission, timeout, quiet=json_)
    emit(done.to_dict(), json_, lambda: done)
    if not done.ok:
        try:
            done.raise_for_failures()
        except errors.DistributionFailedError as error:
            err.print(f"dragonfly: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(exit_code(error)) from None


@contextlib.contextmanager
def telling_of_cancelled(*, json_: bool) -> Iterator[None]:
    """What nodes had when it was cancelled is shown before the error."""
    try:
        yield
    except (errors.CancelledByUserError, errors.DeadlineError) as error:
        found = error.distribution
        if found is not None:
            emit(found.to_dict(), json_, lambda: found)
        raise


def heed_interrupts() -> None:
    """`follow` hears of an interrupt in every case."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: interrupt())


def follow(submission: Running, timeout: float | None, *, quiet: bool) -> Distribution:
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with show.Live(err, quiet=quiet) as live:
            while not submission.wait(0.2):
                live.update(submission.progress())
                heed()
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
