"""The cluster's nodes as Ray sees them: the one place that reads Ray's node table."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import ray

from dragonfly_ray.config import PeerSettings
from dragonfly_ray.model import Identity
from dragonfly_ray.targets import Member


def table() -> list[dict[str, Any]]:
    """Ray's rows, one a node, dead ones included."""
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def leaving() -> tuple[str, ...]:
    """The nodes that Ray itself drains: they are about to be terminated. There is no public call for it."""
    from ray._private.state import state

    try:
        return tuple(sorted(state.get_draining_nodes()))
    except (AttributeError, RuntimeError):
        return ()


def labels_of(row: dict[str, Any]) -> dict[str, str]:
    return {str(k): str(v) for k, v in (row.get("Labels") or {}).items()}


def is_seed(row: dict[str, Any], settings: PeerSettings) -> bool:
    """By label or by configuration."""
    named = row["NodeID"] in settings.seeds or row["NodeManagerAddress"] in settings.seeds
    return named or labels_of(row).get(settings.seed_label, "").lower() == "true"


def is_eligible(row: dict[str, Any], settings: PeerSettings) -> bool:
    """Whether the node shall have a peer."""
    return bool(row["Alive"]) and labels_of(row).get(settings.exclude_label, "").lower() != "true"


def identity(row: dict[str, Any], settings: PeerSettings) -> Identity:
    labels = labels_of(row)
    return Identity(
        node_id=row["NodeID"],
        address=row["NodeManagerAddress"],
        name=str(row.get("NodeName") or row["NodeManagerAddress"]),
        seed=is_seed(row, settings),
        idc=labels.get(settings.idc_label, ""),
        location=labels.get(settings.location_label, ""),
        labels=labels,
    )


def members(settings: PeerSettings, cordoned: Collection[str] = ()) -> list[Member]:
    """Every node that Ray knows and that is not excluded, dead ones included."""
    return members_of(table(), settings, cordoned)


def members_of(
    rows: Iterable[dict[str, Any]], settings: PeerSettings, cordoned: Collection[str] = ()
) -> list[Member]:
    """Those of Ray's rows that are not excluded."""
    return [
        Member(
            node_id=row["NodeID"],
            address=row["NodeManagerAddress"],
            name=str(row.get("NodeName") or row["NodeManagerAddress"]),
            hostname=str(row.get("NodeManagerHostname") or ""),
            labels=labels_of(row),
            alive=bool(row["Alive"]),
            seed=is_seed(row, settings),
            cordoned=row["NodeID"] in cordoned,
        )
        for row in rows
        if not row["Alive"] or is_eligible(row, settings)
    ]


def current_node() -> str:
    """The Ray node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())
