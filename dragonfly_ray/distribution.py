"""What became of a distribution, and how far one is: values that print themselves."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group
from rich.filesize import decimal

from dragonfly_ray import result_table
from dragonfly_ray.errors import (
    CancelledByUserError,
    DeadlineError,
    DistributionFailedError,
)
from dragonfly_ray.figures import Figures, Measured, figures
from dragonfly_ray.names import shown
from dragonfly_ray.outcome import NodeOutcome, Outcome, received, state_label

MOST_NAMED = 3
SHORT_ID = 6


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Node id -> a name for people: several nodes of one name get as much of their id as tells them apart."""
    alike: dict[str, list[str]] = {}
    for node, name in names.items():
        alike.setdefault(name, []).append(node)
    shown: dict[str, str] = {}
    for name, ids in alike.items():
        length = SHORT_ID
        while len({node[:length] for node in ids}) < len(ids):
            length += 1
        shown |= {node: f"{name} ({node[:length]})" if len(ids) > 1 else name for node in ids}
    return shown


@dataclass(frozen=True)
class Distribution:
    """The end of it: an outcome for every node and URL."""

    id: str
    urls: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    seconds: float
    size: int
    """Bytes of content, all URLs together."""
    figures: Figures = field(default_factory=Figures)
    """How near it came to the least time that its links allowed, and what limited it."""

    @classmethod
    def from_views(
        cls, id: str, views: Sequence[Mapping[str, Any]], names: Mapping[str, str]
    ) -> Distribution:
        """From a scheduler's views, one a URL."""
        outcomes = tuple(
            Outcome.of(NodeOutcome.from_row(node, row), names.get(node, node[:12]), view["url"])
            for view in views
            for node, row in view["nodes"].items()
        )
        seconds = max((view["seconds"] or 0.0 for view in views), default=0.0)
        size = sum(view["size"] or 0 for view in views)
        measured = [msgspec.convert(view.get("measured"), Measured | None) for view in views]
        return cls(
            id=id,
            urls=tuple(view["url"] for view in views),
            outcomes=outcomes,
            seconds=seconds,
            size=size,
            figures=figures(
                seconds, size, [(o.node_id, o.seconds if o.ok else None) for o in outcomes], measured
            ),
        )

    @property
    def ok(self) -> bool:
        """Every node has everything."""
        return all(outcome.ok for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if not outcome.ok)

    @property
    def paths(self) -> dict[str, Path]:
        """Node id -> path, of the nodes that have it. With several URLs: of the first."""
        return self.paths_of(self.urls[0])

    def paths_of(self, url: str) -> dict[str, Path]:
        """Node id -> path of one URL, spelled as in `urls`."""
        return {o.node_id: o.path for o in self.outcomes if o.ok and o.url == url and o.path is not None}

    def raise_for_failures(self) -> None:
        """Raises `DistributionFailedError`, which carries this, unless everything went well."""
        failed = self.failures
        if not failed:
            return
        messages = list(dict.fromkeys(str(o.error) for o in failed))
        nodes = {o.node_id: o.node for o in failed}
        total = len({o.node_id for o in self.outcomes})
        which = ", ".join(list(nodes.values())[:MOST_NAMED]) + (", …" if len(nodes) > MOST_NAMED else "")
        raise DistributionFailedError(
            f"{len(nodes)} of {total} nodes failed ({which}): {'; '.join(messages[:MOST_NAMED])}",
            distribution=self,
        )

    def raise_if_cancelled(self) -> None:
        """Raises `CancelledByUserError` (or `DeadlineError`, where a timeout ended it), which carries this, if
        somebody stopped it before every node had everything."""
        for outcome in self.failures:
            if isinstance(outcome.error, CancelledByUserError | DeadlineError):
                text = f"distribution {self.id}: {outcome.error}"
                raise type(outcome.error)(text, distribution=self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "id": self.id,
            "ok": self.ok,
            "urls": list(self.urls),
            "seconds": self.seconds,
            "size": self.size,
            "figures": asdict(self.figures),
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
        }

    def __repr__(self) -> str:
        good, nodes = sum(o.ok for o in self.outcomes), len(self.outcomes)
        source = self.urls[0] if len(self.urls) == 1 else f"{len(self.urls)} URLs"
        word = "succeeded" if self.ok else f"{nodes - good} FAILED"
        return f"<Distribution {source}: {good}/{nodes} {word}, {decimal(self.size)} in {self.seconds:.1f} s>"

    def __rich__(self) -> Group:
        return result_table.render(repr(self)[1:-1], self.outcomes, self._said())

    def _said(self) -> str:
        return result_table.figures(self.figures, {o.node_id: o.node for o in self.outcomes})

    def _repr_html_(self) -> str:
        heads = (
            "node",
            "state",
            "path or error",
            "size",
            "seconds",
            "origin",
            "peers",
            "object store",
            "cache",
            "audit",
        )
        rows = []
        for o in self.outcomes:
            cells = (o.node, state_label(o.state), _path_or_error(o), decimal(o.size), f"{o.seconds:.2f}", decimal(o.bytes_origin),
                     decimal(o.bytes_peers), decimal(o.bytes_object_store), decimal(o.bytes_cache),
                     decimal(o.bytes_audit))  # fmt: skip
            rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
        head = "<tr>" + "".join(f"<th>{h}</th>" for h in heads) + "</tr>"
        said = html.escape(repr(self)[1:-1]), html.escape(self._said())
        lines = "<br>".join(filter(None, said))
        return f"<p>{lines}</p><table>{head}{''.join(rows)}</table>"


@dataclass(frozen=True)
class NodeProgress:
    """One node, all URLs together; bytes."""

    node_id: str
    node: str
    state: str
    done: int
    total: int


@dataclass(frozen=True)
class Progress:
    """How far a distribution is. `rate`: bytes a second over all nodes; `eta`: seconds, if known."""

    phase: str
    bytes_done: int
    bytes_total: int
    rate: float
    eta: float | None
    nodes: tuple[NodeProgress, ...] = field(default=(), repr=False)
    waiting: str = ""
    """Why it waits for its origin, if it does."""

    @classmethod
    def from_views(
        cls, views: Sequence[Mapping[str, Any]], names: Mapping[str, str], rate: float
    ) -> Progress:
        """From a scheduler's views, one a URL."""
        rows: dict[str, list[tuple[str, int, int]]] = {}
        for view in views:
            size = view["size"] or 0
            for node, r in view["nodes"].items():
                done = size if r["state"] == "done" else min(size, received(r))
                rows.setdefault(node, []).append((r["state"], done, size))
        nodes = tuple(
            NodeProgress(n, names.get(n, n[:12]), _state([s for s, _, _ in r]), sum(d for _, d, _ in r),
                         sum(t for _, _, t in r))
            for n, r in rows.items()
        )  # fmt: skip
        done, total = sum(n.done for n in nodes), sum(n.total for n in nodes)
        phases = {view["phase"] for view in views} or {"resolving"}
        phase = next(p for p in ("resolving", "running", "ended") if p in phases)
        left = sum(n.total - n.done for n in nodes if n.state not in ("done", "failed"))
        waiting = next((why for view in views if (why := view.get("waiting", ""))), "")
        eta = left / rate if rate > 0 and phase == "running" else None
        return cls(phase, done, total, rate, eta, nodes, waiting)

    def __str__(self) -> str:
        share = f"{100 * self.bytes_done / self.bytes_total:.0f} %" if self.bytes_total else "0 %"
        ended = sum(n.state in ("done", "failed") for n in self.nodes)
        eta = f", {self.eta:.0f} s left" if self.eta is not None else ""
        speed = f"{decimal(int(self.rate))}/s"
        said = f"{self.phase}: {share} of {decimal(self.bytes_total)}, {speed}, {ended}/{len(self.nodes)} nodes{eta}"
        return f"{said}; waits for the origin ({self.waiting})" if self.waiting else said


def _path_or_error(o: Outcome) -> str:
    if o.error is not None:
        return f"{o.error.kind}: {o.error}"
    path = shown(str(o.path or ""))
    return f"{path} (shared)" if o.written_by else path


def _state(states: Sequence[str]) -> str:
    for each in ("failed", "running", "waiting"):
        if each in states:
            return each
    return "done"
