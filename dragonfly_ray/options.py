"""What `distribute` and its kin may be told, written once: each option's name, type, default and meaning.

The Python calls, the client of a manager and the command line take them from here; the REST API's bodies, which bound
them, are checked against it. A call declares `**options: Unpack[...]`, which is what editors and type checkers read, and
is decorated with `takes`, which shows each in `help()`, fills in what was left out, and refuses what does not fit.
"""

from __future__ import annotations

import functools
import inspect
import os
import textwrap
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from dragonfly_ray.checksums import parse_digest
from dragonfly_ray.distribution import Progress
from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import Credentials, Links, Source
from dragonfly_ray.names import from_os
from dragonfly_ray.output_names import check_outputs
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.targets import check_dest

MAX_ID = 128
HELP_WIDTH = 100
F = TypeVar("F", bound=Callable[..., object])


def _check_id(id: str) -> None:
    if not id.replace("-", "").replace("_", "").isalnum() or len(id) > MAX_ID:
        raise InvalidRequestError(f"id {id!r}: letters, digits, '-' and '_' only, at most {MAX_ID} of them")


def _check_timeout(timeout: float) -> None:
    if not timeout >= 0:
        raise InvalidRequestError(f"timeout {timeout}: must be 0 seconds or more")


@dataclass(frozen=True, slots=True)
class Option:
    doc: str
    """Its first sentence stands for itself, on the command line and in the REST API."""
    default: Any = None
    check: Callable[[Any], object] = lambda value: None
    """Of what is given and has the right type. Raises `InvalidRequestError`."""

    @property
    def brief(self) -> str:
        return f"{self.doc.partition('. ')[0].rstrip('.')}."


class _OutputOptions(TypedDict, total=False):
    dest: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "Absolute path on each node; `{name}` and `{node}` stand for the source's base name and the node id. "
            "Without it the content stays in the node's store, and the path in the outcome is valid until it is "
            "evicted. Of nodes that share its file system one writes. A link to a folder means that folder. Several "
            "URLs need `{name}` in it, and names of their own.",
            check=lambda dest: checked_dest(dest),
        ),
    ]
    link: Annotated[
        bool,
        Option(
            "Whether outputs may share their blocks with the store (read-only then). Either way they are readable to "
            "nobody who could not read the source, nor beyond the umask of the node's peer (the caller's own, where "
            "its node is the only one).",
            True,
        ),
    ]


class _IdentityOptions(TypedDict, total=False):
    include: Annotated[
        Sequence[str] | str | None, Option("Glob patterns: deliver only matching names of a directory.")
    ]
    exclude: Annotated[
        Sequence[str] | str | None, Option("Glob patterns: leave matching names of a directory out.")
    ]
    tag: Annotated[str | None, Option("Part of the task's identity. As in Dragonfly.")]
    application: Annotated[str | None, Option("Part of the task's identity. As in Dragonfly.")]
    filtered_query_params: Annotated[
        Sequence[str] | str | None,
        Option("Query parameters that are not part of the task's identity. Those that sign a URL never are."),
    ]
    links: Annotated[
        Links,
        Option(
            "Symlinks in a folder: refuse those that lead out of it, follow them all, or keep them as links. "
            '`"refuse"`: those that stay inside it are links, one that leads out is an error that names it. '
            '`"follow"`: what they lead to takes their place; one that leads nowhere or round in a circle is an '
            'error. `"keep"`: all are links, wherever they lead.',
            "refuse",
        ),
    ]


class _OpeningOptions(TypedDict, total=False):
    storage_options: Annotated[
        Mapping[str, object] | None, Option("fsspec options and credentials of the source.")
    ]
    headers: Annotated[
        Mapping[str, str] | None, Option("HTTP request headers and credentials of the source.")
    ]


class SourceOptions(_IdentityOptions, _OpeningOptions, total=False):
    """What makes a URL a source of its own: give the same again to name what was fetched with it."""

    shared: Annotated[bool, Option("A `file` source that every node sees at the same path (NFS).", False)]


class _DigestOptions(TypedDict, total=False):
    digest: Annotated[
        str | None,
        Option(
            "`algorithm:hex` of the whole content, as in `sha256:…` or `blake3:…`. Nothing is visible unless it "
            "matches. Of one URL, and no directory.",
            check=parse_digest,
        ),
    ]


class SubmitOptions(_OutputOptions, _DigestOptions, SourceOptions, total=False):
    """Of `submit`."""

    detached: Annotated[
        bool, Option("Keep running when this process exits. `attach(id)` finds it again.", False)
    ]
    id: Annotated[
        str | None,
        Option(
            "The distribution's id; submitting an active one attaches to it. Once it has ended it runs again "
            "(`attach` finds what has ended, for ten minutes).",
            check=_check_id,
        ),
    ]


class WaitOptions(TypedDict, total=False):
    """Of whatever waits for the end."""

    timeout: Annotated[
        float | None,
        Option(
            "Timeout in seconds for the whole distribution. Then it is cancelled and `DeadlineError` raised.",
            check=_check_timeout,
        ),
    ]
    on_failure: Annotated[
        Literal["raise", "return"],
        Option('`"raise"` `DistributionFailedError` after all nodes have ended, or `"return"`.', "raise"),
    ]
    progress: Annotated[Callable[[Progress], None] | None, Option("Called about five times a second.")]


class DistributeOptions(SubmitOptions, WaitOptions, total=False):
    """Of `distribute`."""


class _SecretOptions(TypedDict, total=False):
    secret: Annotated[str | None, Option("Name of a secret: credentials stored by the manager.")]


class RemoteSourceOptions(_IdentityOptions, _OpeningOptions, _SecretOptions, total=False):
    """What makes a URL a source of its own, where a manager keeps its credentials."""


class PreheatOptions(_DigestOptions, _IdentityOptions, _SecretOptions, total=False):
    """Of a manager's preheats."""

    name: Annotated[str | None, Option("Display name, shown instead of the URL.")]
    id: Annotated[
        str | None,
        Option("Idempotency key: the manager starts it once, the same key returns the same job."),
    ]


class JobOptions(_OutputOptions, PreheatOptions, total=False):
    """Of a manager's distributions."""


class RemoteDistributeOptions(JobOptions, WaitOptions, total=False):
    """Of a manager's distributions that are waited for."""


# --- what is taken from them ---------------------------------------------------------------------


@functools.cache
def options_of(definition: type) -> Mapping[str, tuple[Any, Option]]:
    """Name -> type, and what else is known of it, in the order of the definition."""
    hints = get_type_hints(definition, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}


def takes(definition: type) -> Callable[[F], F]:
    """For a function with `**options: Unpack[definition]`: it gets all of them, each found good.

    A line `{options}` in its docstring becomes what is known of each.
    """
    known = options_of(definition)
    defaults = {name: option.default for name, (_, option) in known.items()}

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        allowed = known.keys() | {p.name for p in own}

        @functools.wraps(function)
        def filled(*args: Any, **given: Any) -> object:
            for name, value in given.items():
                if name not in allowed:
                    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
                if name in known:
                    _check(name, value, *known[name])
            return function(*args, **(defaults | given))

        shown = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hint)
            for name, (hint, option) in known.items()
        ]
        filled.__signature__ = signature.replace(parameters=[*own, *shown])  # type: ignore[attr-defined]
        if function.__doc__:  # none with python -OO
            entries = (f"{name}: {option.doc}" for name, (_, option) in known.items())
            wrapped = (textwrap.fill(e, HELP_WIDTH, subsequent_indent=" " * 4) for e in entries)
            text = textwrap.indent("\n".join(wrapped), " " * 8).lstrip()
            filled.__doc__ = function.__doc__.replace("{options}", text)
        return filled  # type: ignore[return-value]

    return decorate


def takes_many(name: str, definition: type = JobOptions) -> bool:
    """Whether there may be several of it, and not only one."""
    return Sequence[str] in get_args(options_of(definition)[name][0])


def waiting(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of whoever waits, and the others."""
    known = options_of(WaitOptions)
    return (
        {name: value for name, value in options.items() if name in known},
        {name: value for name, value in options.items() if name not in known},
    )


# --- checks --------------------------------------------------------------------------------------


def _check(name: str, value: object, hint: Any, option: Option) -> None:
    if not _fits(value, hint):
        # Not the value itself: it may hold a password.
        shown = inspect.formatannotation(hint).replace("collections.abc.", "").replace("typing.", "")
        raise InvalidRequestError(f"{name}: must be {shown}, not {type(value).__name__}")
    if value is not None:
        option.check(value)


def _fits(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return value in args
    if origin is Sequence:
        return (
            isinstance(value, Collection)
            and not isinstance(value, str | bytes | Mapping)
            and all(isinstance(each, args[0]) for each in value)
        )
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            isinstance(k, args[0]) and isinstance(v, args[1]) for k, v in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def texts(value: Sequence[str] | str | None) -> tuple[str, ...]:
    """Of patterns or names: one alone may be given by itself."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def checked_dest(dest: str | os.PathLike[str] | None) -> str:
    """As it is sent; empty: none. Raises `InvalidRequestError`."""
    return "" if dest is None else check_dest(from_os(os.fspath(dest)))


def check_together(urls: Sequence[str], dest: str = "", digest: str | None = None, what: str = "url") -> None:
    """What does not fit together. Raises `InvalidRequestError`."""
    if not urls:
        raise InvalidRequestError(f"{what}: at least one is required")
    if len(set(urls)) != len(urls):
        raise InvalidRequestError(f"{what}: duplicates are not allowed")
    if digest and len(urls) > 1:
        raise InvalidRequestError("digest: allowed for a single URL only")
    if dest:
        check_outputs(dest, urls)


def credentials_of(options: _OpeningOptions) -> Credentials:
    return Credentials(dict(options["storage_options"] or {}), dict(options["headers"] or {}))


def source_for(url: str, options: SourceOptions | RemoteSourceOptions, node: str) -> Source:
    """`node`: the only one that can read it; empty: any. Raises `InvalidRequestError`."""
    return source_of(
        url,
        credentials_of(options),
        tag=options["tag"] or "",
        application=options["application"] or "",
        filtered_query_params=texts(options["filtered_query_params"]),
        include=texts(options["include"]),
        exclude=texts(options["exclude"]),
        node=node,
        links=options["links"],
    )
