"""A distribution's outcomes as a table that stays readable on a narrow terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from dragonfly_ray.figures import Figures
from dragonfly_ray.names import shown
from dragonfly_ray.outcome import Outcome, state_label

_STYLES = {"done": "green", "failed": "red", "running": "cyan", "waiting": "dim"}
_LIMITS = {
    "origin": ("reads at the origin", "reads at the origin by {}"),
    "zone": ("the links into the zones", "the links into zone {}"),
    "node": ("the nodes (link, disk or CPU)", "node {} (link, disk or CPU)"),
    "startup": ("startup", ""),
    "other": ("none of the links (waiting for the origin or a lost host)", ""),
}
"""By whatever limited, without and with its name."""
MOST_NAMED = 3
MIN_SHARED = 12
"""Characters: a shorter beginning is not worth a line of its own."""


def render(title: str, outcomes: Sequence[Outcome], figures: str = "") -> Group:
    """What all paths have in common is said once, below; the column shows what differs, and all of it. So are
    errors, each with the nodes that have it."""
    shared, rests = split([_path(o) for o in outcomes])
    cells = [f"{rest} (shared)".lstrip() if o.written_by else rest
             for o, rest in zip(outcomes, rests, strict=True)]  # fmt: skip
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("node", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("seconds", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("from")
    if any(cells):
        table.add_column("path", overflow="fold")
    for o, cell in zip(outcomes, cells, strict=True):
        row: list[str | Text] = [o.node, Text(state_label(o.state), style=_STYLES.get(o.state, "")), f"{o.seconds:.2f}",
                                 decimal(o.size), provenance(o)]  # fmt: skip
        table.add_row(*row, *([Text(cell)] if any(cells) else []))
    below = [Text(f"{'…' if any(rests) else 'path'}: {shared}", overflow="fold")] if shared else []
    if audited := sum(o.bytes_audit for o in outcomes):
        below.append(Text(f"{decimal(audited)} were read at the origin a second time (audit)"))
    if figures:
        below.append(Text(figures))
    return Group(table, *below, *(Text(line, style="red") for line in errors(outcomes)))


def figures(of: Figures, names: Mapping[str, str]) -> str:
    """All that is known, in one line. `names`: of nodes, by their ids."""
    parts = []
    if of.floor_ratio is not None and of.floor is not None:
        parts.append(f"time {of.floor_ratio:.2f} × floor ({of.floor:.2f} s)")
    if of.limited_by:
        alone, named = _LIMITS[of.limited_by]
        at = names.get(of.limited_at, of.limited_at)
        parts.append(f"limited by {named.format(at) if at and named else alone}")
    if of.p99_p50_ratio is not None:
        parts.append(f"p99 {of.p99_p50_ratio:.2f} × p50")
    if of.origin_ratio is not None:
        parts.append(f"origin read {of.origin_ratio:.2f} ×")
    if of.cross_zone_share is not None:
        parts.append(f"{100 * of.cross_zone_share:.0f} % of peer traffic across zones")
    return " · ".join(parts)


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each error: who has it, and what it is."""
    nodes: dict[str, list[str]] = {}
    for o in outcomes:
        if o.error is not None:
            names = nodes.setdefault(f"{o.error.kind}: {o.error}", [])
            names += [] if o.node in names else [o.node]
    return [
        f"{', '.join(names[:MOST_NAMED])}{f' and {len(names) - MOST_NAMED} more' * (len(names) > MOST_NAMED)}: {said}"
        for said, names in nodes.items()
    ]


def split(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Whole folders that all begin with, and of each what follows; of one path for all nothing follows.

    Nothing is taken off where that would be short; empty paths (of nodes that have none) stay empty.
    """
    there = [path for path in paths if path]
    if len(set(there)) == 1:
        return there[0], [""] * len(paths)
    parts = [path.split("/")[:-1] for path in there]
    count = 0
    while parts and all(len(p) > count and p[count] == parts[0][count] for p in parts):
        count += 1
    shared = "/".join(parts[0][:count]) if parts else ""
    if len(shared) < MIN_SHARED:
        return "", list(paths)
    return shared, [f"…{path[len(shared) :]}" if path else "" for path in paths]


def _path(o: Outcome) -> str:
    """With the node's own id as `{node}`: so it was asked for, and so it is the same on all."""
    return "" if o.error is not None or o.path is None else shown(str(o.path)).replace(o.node_id, "{node}")


def provenance(o: Outcome) -> str:
    """`origin 24 % peers 76 %`, to be broken between the two only."""
    parts = {"origin": o.bytes_origin, "peers": o.bytes_peers, "object store": o.bytes_object_store,
             "cache": o.bytes_cache}  # fmt: skip
    total = sum(parts.values())
    shares = [f"{name}\u00a0{100 * n / total:.0f}\u00a0%" for name, n in parts.items() if n]
    return " ".join(shares)
