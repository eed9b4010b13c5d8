"""Settings that change while a cluster runs: which they are, whether a change is right, and how it arrives.

Every process holds settings of its own. A change is written into them in place, so that whoever
holds a section sees it at the next use; what was derived from them is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dragonfly_ray.config import Settings
from dragonfly_ray.errors import InvalidRequestError

MOST_SHOWN = 5


def _sections(settings: type[Settings] = Settings) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _is_live(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("live"))


def live_fields() -> dict[str, FieldInfo]:
    """Dotted name -> field."""
    return {
        f"{section}.{name}": field
        for section, model in _sections()
        for name, field in model.model_fields.items()
        if _is_live(field)
    }


def live_schema() -> dict[str, Any]:
    """The JSON schema of a change: an object of dotted names, none of them required.

    Each property has its type and bounds, the default and a description for people.
    """
    live = live_fields()
    properties: dict[str, Any] = {}
    for section, model in _sections():
        for name, schema in model.model_json_schema()["properties"].items():
            dotted = f"{section}.{name}"
            if dotted in live:
                shown = {key: value for key, value in schema.items() if key not in ("live", "title")}
                properties[dotted] = {"title": dotted, **shown}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def changed(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with other values for live settings, by their dotted names.

    Raises `InvalidRequestError` that names everything that is wrong.
    """
    live, wrong = live_fields(), []
    parts: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        section, _, name = dotted.partition(".")
        if dotted in live:
            parts.setdefault(section, {})[name] = value
        elif name in getattr(type(getattr(base, section, None)), "model_fields", ()):
            wrong.append(f"{dotted}: cannot be changed at runtime; restart the cluster with it")
        else:
            wrong.append(f"{dotted}: unknown setting")
    sections: dict[str, BaseModel] = {}
    for section, values in parts.items():
        model = getattr(base, section)
        try:
            text = json.dumps({**model.model_dump(mode="json"), **values})
            sections[section] = type(model).model_validate_json(text, strict=True)
        except ValidationError as error:
            wrong += [f"{'.'.join(map(str, (section, *e['loc'])))}: {e['msg']}" for e in error.errors()]
        except (TypeError, ValueError):
            wrong.append(f"{section}: values must be plain JSON")
    if wrong:
        more = f"; and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise InvalidRequestError(f"settings: {'; '.join(wrong[:MOST_SHOWN])}{more}")
    return base.model_copy(update=sections)


def follow(settings: Settings, other: Settings) -> None:
    """Takes over the live values of `other`, in place."""
    for dotted in live_fields():
        section, _, name = dotted.partition(".")
        # They are frozen for whoever only reads them; this is the one place that writes.
        getattr(settings, section).__dict__[name] = getattr(getattr(other, section), name)


def own(settings: Settings) -> Settings:
    """A copy that shares nothing with `settings`, for one that will `follow`."""
    return settings.model_copy(deep=True)
