"""Pages that are made of the code each time the documentation is built, so that they cannot be out of date."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dragonfly_ray import errors, messages, options, telemetry
from dragonfly_ray.config import Settings
from dragonfly_ray.transport import negotiation, protocol, states

Row = Sequence[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _doc(thing: Any) -> str:
    """Its docstring in one line; nothing where it is a dataclass's own."""
    text = inspect.getdoc(thing) or ""
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else " ".join(text.split())


# --- settings -----------------------------------------------------------------------------------


def settings() -> str:
    parts = [
        "# Settings of the cluster\n",
        (
            "`configs/default.yaml` has them as a file to copy. `DRAGONFLY_CONFIG` names that file; a variable overrides one "
            "setting in it. *Live*: can be changed while the cluster runs, through the manager; the others count at "
            "the start.\n"
        ),
    ]
    sections = [n for n, f in Settings.model_fields.items() if _is_model(f)]
    top = [(n, f) for n, f in Settings.model_fields.items() if n not in sections]
    parts += ["## At the top\n", _fields(top, "", "DRAGONFLY_")]
    for name in sections:
        model = Settings.model_fields[name].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        parts += [
            f"## {name}\n",
            _fields(model.model_fields.items(), f"{name}.", f"DRAGONFLY_{name.upper()}__"),
        ]
    return "\n".join(parts)


def manager_settings() -> str:
    from dragonfly_ray.serve.settings import ManagerSettings

    prefix = ManagerSettings.model_config.get("env_prefix", "")
    intro = (
        "`configs/manager.env` has them as a file to copy. They are variables of the environment, read when the manager "
        "starts; what has fields of its own takes them as JSON, or one by one behind `__`.\n"
    )
    parts = [
        f"# Settings of the manager\n\n{intro}",
        _fields(ManagerSettings.model_fields.items(), "", prefix),
    ]
    for name, field in ManagerSettings.model_fields.items():
        if _is_model(field):
            model: Any = field.annotation
            own = _fields(model.model_fields.items(), f"{name}.", f"{prefix}{name.upper()}__")
            parts += [f"## {name}\n", f"{_doc(model)}\n", own]
    return "\n".join(parts)


def _is_model(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _fields(fields: Iterable[tuple[str, FieldInfo]], path: str, prefix: str) -> str:
    rows = []
    for name, field in fields:
        extra = field.json_schema_extra
        live = "live" if isinstance(extra, dict) and extra.get("live") else ""
        variable = str(field.validation_alias or f"{prefix}{name.upper()}")
        rows.append(
            (f"`{path}{name}`", f"`{_default(field)}`", live, field.description or "", f"`{variable}`")
        )
    return table(("setting", "default", "", "meaning", "variable"), rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        factory = field.default_factory
        if factory is None:
            return "required"
        if inspect.isclass(factory):
            return "see its fields"
        return "computed at the start"
    if isinstance(value, BaseModel):
        return "see its fields"
    return json.dumps(value, default=str)


# --- metrics ------------------------------------------------------------------------------------


def metrics() -> str:
    cluster = [
        (
            f"`ray_{name}{'_total' if kind == 'counter' else ''}`",
            kind,
            ", ".join(f"`{t}`" for t in tags),
            text,
        )
        for kind, found in (("counter", telemetry.COUNTERS), ("gauge", telemetry.GAUGES))
        for name, (text, tags) in found.items()
    ]
    return "\n".join(
        (
            "# Metrics\n",
            "What to watch among them, and which alerts come with it, is in [operations](../operations.md#what-to-watch).\n",
            "## Of the cluster\n",
            (
                "Counted by peers, schedulers and the controller, and exported by Ray on each node's metrics port, about once a "
                "second. Each bears the label `actor` beside those named here.\n"
            ),
            table(("metric", "kind", "labels", "meaning"), cluster),
            "## Of the manager\n",
            "At `/metrics` of each replica, for a token with the permission `metrics:read`.\n",
            table(("metric", "kind", "meaning"), _of_manager()),
        )
    )


def _of_manager() -> Iterator[Row]:
    with _manager_app() as app:
        text = app.state.metrics.text().decode()
    told: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, help_ = line.removeprefix("# HELP ").partition(" ")
            told[name] = help_
        elif line.startswith("# TYPE "):
            name, _, kind = line.removeprefix("# TYPE ").partition(" ")
            if name.startswith("dragonfly_") and not name.endswith("_created"):
                yield f"`{name}`", kind, told.get(name, "")


@contextmanager
def _manager_app() -> Iterator[Any]:
    """The manager's application over a cluster of its tests, with a database that goes with it."""
    from fastapi.testclient import TestClient

    from dragonfly_ray.serve.app import create_app
    from dragonfly_ray.serve.settings import ManagerSettings
    from dragonfly_ray.serve.testing import FakeCluster

    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {"DRAGONFLY_ADMIN_PASSWORD": "of nobody, for a moment"}
        url = f"sqlite:///{folder}/manager.db"
        app = create_app(ManagerSettings(state_dir=Path(folder), database_url=url, **given), FakeCluster())
        with TestClient(app, base_url="http://manager"):
            yield app


# --- REST ---------------------------------------------------------------------------------------


@functools.cache
def openapi() -> dict[str, Any]:
    with _manager_app() as app:
        document: dict[str, Any] = app.openapi()
    return document


def rest() -> str:
    document = openapi()
    parts = [
        "# REST API\n",
        f"{document['info'].get('description') or document['info'].get('summary', '')}\n",
        "All of it as [OpenAPI 3.1](openapi.json); a running manager serves the same at `/api/v1/openapi.json`.\n",
    ]
    tags = {tag["name"]: tag.get("description", "") for tag in document["tags"]}
    operations = [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    for tag, text in tags.items():
        mine = [each for each in operations if tag in each[2].get("tags", ())]
        if mine:
            parts += [f"## {tag}\n", f"{text}\n", *(_operation(*each) for each in mine)]
    parts += ["## Schemas\n", *_schemas(document["components"].get("schemas", {}))]
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`\n", f"{operation.get('summary', '')}\n"]
    if text := operation.get("description"):
        lines.append(f"{text}\n")
    permission = next((v for k, v in operation.items() if k.startswith("x-") and isinstance(v, str)), "")
    facts = [("permission", f"`{permission}`")] if permission else []
    body = operation.get("requestBody", {}).get("content", {})
    facts += [("body", _schema(content.get("schema", {}))) for content in body.values()]
    facts += [
        (status, " ".join(filter(None, [answer.get("description", ""), *_answers(answer)])))
        for status, answer in operation["responses"].items()
        if status.startswith("2")
    ]
    lines.append(table(("", ""), facts))
    parameters = [
        (f"`{p['name']}`", p["in"], _schema(p.get("schema", {})), p.get("description", ""))
        for p in operation.get("parameters", ())
    ]
    if parameters:
        lines.append(table(("parameter", "in", "type", "meaning"), parameters))
    return "\n".join(lines)


def _answers(answer: dict[str, Any]) -> Iterator[str]:
    for content in answer.get("content", {}).values():
        yield _schema(content.get("schema") or content.get("itemSchema") or {})


def _schema(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_schema(each) for each in schema[word]))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_schema(schema.get('items', {}))}"
    return str(schema.get("type") or schema.get("const") or "any")


def _schemas(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f"### {name} {{#{name.lower()}}}\n"
        yield f"{schema.get('description', '')}\n"
        required = schema.get("required", ())
        rows = [
            (
                f"`{each}`",
                _schema(found),
                "required" if each in required else "",
                found.get("description", ""),
            )
            for each, found in schema.get("properties", {}).items()
        ]
        if rows:
            yield table(("field", "type", "", "meaning"), rows)
        elif "enum" in schema:
            yield f"One of {_schema(schema)}.\n"


# --- command line -------------------------------------------------------------------------------


def cli() -> str:
    from dragonfly_ray.cli.app import app
    from dragonfly_ray.cli.common import EPILOG

    group: Any = typer.main.get_command(app)
    parts = ["# Command line\n", f"{EPILOG}\n", "## Options of all commands\n", _parameters(group)]
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            parts += [
                f"## dragonfly {name}\n",
                f"{inspect.cleandoc(command.help or '')}\n",
                _parameters(command),
            ]
    return "\n".join(parts)


def _parameters(command: Any) -> str:
    rows = []
    for each in command.params:
        if getattr(each, "hidden", False):
            continue
        flags = [*getattr(each, "opts", ()), *getattr(each, "secondary_opts", ())]
        named = (
            ", ".join(f"`{flag}`" for flag in flags)
            if each.param_type_name == "option"
            else f"`{each.name.upper()}`"
        )
        variable = f" (`{each.envvar}`)" if isinstance(each.envvar, str) else ""
        rows.append((named, (getattr(each, "help", "") or "") + variable))
    return table(("", "meaning"), rows) if rows else ""


# --- Python -------------------------------------------------------------------------------------

_CALLS = {
    "distribute": "DistributeOptions",
    "submit": "SubmitOptions",
    "Client.distribute": "RemoteDistributeOptions",
    "Client.preheat": "PreheatOptions",
}


def call_options() -> str:
    """Of which call, what, and what it is without."""
    rows: dict[str, list[Any]] = {}
    for call, definition in _CALLS.items():
        for name, (kind, option) in options.options_of(getattr(options, definition)).items():
            rows.setdefault(name, [option, kind, []])[2].append(call)
    return table(
        ("option", "default", "of", "meaning"),
        [
            (f"`{name}`", f"`{option.default!r}`", ", ".join(f"`{c}`" for c in calls), option.doc)
            for name, (option, kind, calls) in rows.items()
        ],
    )


def error_kinds() -> str:
    found = [
        each
        for each in vars(errors).values()
        if inspect.isclass(each)
        and issubclass(each, errors.DragonflyError)
        and not each.__name__.startswith("_")
    ]
    return table(
        ("kind", "class", "also a", "meaning"),
        [
            (f"`{e.kind}`", f"`{e.__name__}`", ", ".join(f"`{b.__name__}`" for b in e.__bases__), _doc_own(e))
            for e in found
        ],
    )


def _doc_own(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split()) if "__doc__" in vars(cls) else ""


# --- wire ---------------------------------------------------------------------------------------


def frames() -> str:
    """Of the piece protocol."""
    kinds: dict[type, int] = protocol._TYPES
    lengths: dict[type, tuple[int, int]] = protocol._LENGTHS
    return table(
        ("type", "frame", "fields", "body, bytes", "meaning"),
        [
            (
                str(number), f"`{cls.__name__}`", ", ".join(f"`{f}`" for f in cls.__annotations__),
                _span(*lengths[cls]), _doc(cls),
            )
            for cls, number in sorted(kinds.items(), key=lambda item: item[1])
        ],
    )  # fmt: skip


def _span(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def wire_constants() -> str:
    rows = []
    for name, value in vars(protocol).items():
        if (
            name.isupper()
            and not name.startswith("_")
            and isinstance(value, int)
            and not isinstance(value, bool)
        ):
            rows.append((f"`{name}`", f"{value:,}"))
    rows += [(f"`Refusal.{each.name}`", str(each.value)) for each in _refusals()]
    return table(("constant of `transport/protocol.py`", "value"), rows)


def _refusals() -> Iterable[enum.IntEnum]:
    return list(protocol.Refusal)


def versions() -> str:
    rows = [("versions of the piece protocol", f"{negotiation.LEAST_VERSION} to {negotiation.VERSION}")]
    rows += [(f"feature `{each.name}`", f"bit {each.value:#x}") for each in negotiation.Feature]
    rows.append(("versions of messages", f"{messages.LEAST_VERSION} to {messages.VERSION}"))
    return table(("spoken by this build", ""), rows)


def _states(found: states.Table) -> str:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for state, steps in found.items():
        for (done, frame), following in steps.items():
            rows.setdefault((state.value, done, following.value), []).append(f"`{frame.__name__}`")
    return table(
        ("state", "", "frames", "then"),
        [(state, done, ", ".join(frames), following) for (state, done, following), frames in rows.items()],
    )


def actor_messages() -> str:
    """Between peers, schedulers and submitters."""
    kinds = [each for each in get_args(messages.Message) if inspect.isclass(each)]
    return table(
        ("message", "fields", "meaning"),
        [(f"`{c.__name__}`", ", ".join(f"`{f}`" for f in c.__struct_fields__), _doc(c)) for c in kinds],
    )


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings,
    "reference/manager-settings.md": manager_settings,
    "reference/metrics.md": metrics,
    "reference/rest.md": rest,
    "reference/cli.md": cli,
}
"""Whole pages."""
TABLES: dict[str, Callable[[], str]] = {
    "call_options": call_options,
    "error_kinds": error_kinds,
    "frames": frames,
    "wire_constants": wire_constants,
    "versions": versions,
    "child_states": lambda: _states(states.CHILD),
    "parent_states": lambda: _states(states.PARENT),
    "actor_messages": actor_messages,
}
"""Parts: `<!-- table: NAME -->` on a line of its own stands for one in a page."""
