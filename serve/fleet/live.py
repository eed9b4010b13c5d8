"""Which settings may change while a cluster runs, and whether a change is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dragonfly_ray.config import (
    OriginSettings,
    SchedulerSettings,
    Settings,
    StorageSettings,
    TransportSettings,
)
from dragonfly_ray.errors import InvalidRequestError

_SECTIONS: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "storage": (StorageSettings, ("quota", "high_water", "low_water", "keep_free")),
    "transport": (TransportSettings, ("upload_rate", "download_rate", "pipeline", "stall_timeout")),
    "origin": (OriginSettings, ("policy", "connections", "max_connections", "max_requests")),
    "scheduler": (SchedulerSettings, ("neighbours", "report_interval")),
}


def live_schema() -> dict[str, Any]:
    """The JSON schema of a change: an object of dotted names, none of them required."""
    properties: dict[str, Any] = {}
    for section, (model, names) in _SECTIONS.items():
        found = model.model_json_schema()["properties"]
        properties |= {f"{section}.{name}": {**found[name], "title": f"{section}.{name}"} for name in names}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def changed(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with other values. Raises `InvalidRequestError` that names everything that is wrong."""
    wrong: list[str] = []
    parts: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        section, _, name = dotted.partition(".")
        if section in _SECTIONS and name in _SECTIONS[section][1]:
            parts.setdefault(section, {})[name] = value
        else:
            wrong.append(f"{dotted}: there is no such live setting")
    sections: dict[str, BaseModel] = {}
    for section, values in parts.items():
        model = getattr(base, section)
        try:
            text = json.dumps({**model.model_dump(mode="json"), **values})
            sections[section] = type(model).model_validate_json(text, strict=True)
        except ValidationError as error:
            wrong += [f"{'.'.join(map(str, (section, *e['loc'])))}: {e['msg']}" for e in error.errors()]
    if wrong:
        raise InvalidRequestError(f"settings: {'; '.join(wrong)}")
    return base.model_copy(update=sections)
