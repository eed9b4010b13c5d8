"""What the commands print."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from dragonfly_ray.distribution import Progress
from dragonfly_ray.outcome import state_label

MOST_ROWS = 16
PLAIN_INTERVAL = 2.0
_STATES = {"succeeded": "green", "failed": "red", "partial": "red", "running": "cyan", "cancelled": "yellow"}
_STYLES = {"done": "green", "failed": "red", "running": "cyan"}


def size(count: float) -> str:
    return decimal(int(count))


class Live:
    """Bars on a terminal, a line every two seconds elsewhere, nothing if `quiet`."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._rows: dict[str, TaskID] = {}
        self._said = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        if self._quiet:
            return
        if not self._console.is_terminal:
            if time.monotonic() - self._said >= PLAIN_INTERVAL:
                self._said = time.monotonic()
                self._console.print(str(progress), highlight=False)
            return
        eta = f"{progress.eta:.0f} s left" if progress.eta is not None else progress.phase
        if progress.waiting:
            eta = f"waits for the origin: {escape(progress.waiting)}"
        self._row("", f"all {len(progress.nodes)} nodes", progress.bytes_done, progress.bytes_total,
                  f"{size(progress.rate)}/s  {eta}")  # fmt: skip
        for node in progress.nodes[:MOST_ROWS]:
            note = f"[{_STYLES.get(node.state, 'dim')}]{state_label(node.state)}[/]"
            self._row(node.node_id, node.node, node.done, node.total, note)

    def _row(self, key: str, name: str, done: int, total: int, note: str) -> None:
        if key not in self._rows:
            self._rows[key] = self._bars.add_task(name, total=None, note=note)
        self._bars.update(self._rows[key], completed=done, total=total or None, note=note)


def _table(*headings: str, right: Sequence[str] = ()) -> Table:
    table = Table(header_style="bold")
    for heading in headings:
        # Folded, never cut: long URLs and ids of one kind differ at their ends.
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def status(found: Mapping[str, Any]) -> Group:
    """Hosts, and the distributions under way."""
    hosts = _table("host", "node", "state", "seed", "tasks", "stored", "receives", "sends",
                   right=("tasks", "stored", "receives", "sends"))  # fmt: skip
    for host in found["hosts"]:
        hosts.add_row(
            host["address"],
            host["node_id"][:12],
            Text(_state(host), style="green" if host["alive"] else "red"),
            "yes" if host["seed"] else "",
            str(host.get("tasks", "")),
            size(host.get("used", 0)),
            f"{size(host.get('receive_rate', 0))}/s",
            f"{size(host.get('send_rate', 0))}/s",
        )
    running = _table("distribution", "url", "phase", "nodes", right=("nodes",))
    for view in found["distributions"]:
        phase = (
            f"{view['phase']}; waits for the origin: {why}" if (why := view.get("waiting")) else view["phase"]
        )
        running.add_row(view["id"], view["url"], phase, _share(view))
    rates = found["rates"]
    foot = Text(f"{size(rates['receive'])}/s received, {size(rates['send'])}/s sent", style="bold")
    return Group(hosts, running, foot)


def _state(host: Mapping[str, Any]) -> str:
    return f"{host['state']}, cordoned" if host["cordoned"] and host["state"] == "healthy" else host["state"]


def _share(view: Mapping[str, Any]) -> str:
    if "nodes_total" in view:
        return f"{view['nodes_done']}/{view['nodes_total']}"
    done = sum(n["state"] == "done" for n in view["nodes"].values())
    return f"{done}/{len(view['nodes'])}"


def cached(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each task on each host."""
    return [
        {"host": host["address"], "node_id": host["node_id"], "url": held["url"], "size": held["size"],
         "share": held["have"] / held["pieces"] if held["pieces"] else 1.0, "complete": held["complete"],
         "task_id": held["task_id"]}
        for host in found["hosts"]
        for held in host.get("held", ())
    ]  # fmt: skip


def listing(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("url", "host", "size", "here", right=("size", "here"))
    for row in sorted(rows, key=lambda r: (r["url"], r["host"])):
        table.add_row(row["url"], row["host"], size(row["size"]), f"{100 * row['share']:.0f} %")
    return table


def nodes(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("address", "name", "node id", "alive", "cordoned", "seed", "labels")
    for row in rows:
        labels = ", ".join(f"{k}={v}" for k, v in row["labels"].items())
        table.add_row(row["address"], row["name"], row["node_id"], "yes" if row["alive"] else "no",
                      "yes" if row["cordoned"] else "", "yes" if row["seed"] else "", labels)  # fmt: skip
    return table


def jobs(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("id", "kind", "state", "nodes", "size", "created", "urls", right=("nodes", "size"))
    for row in rows:
        told = row["progress"]
        table.add_row(
            row["id"],
            row["kind"],
            Text(row["state"], style=_STATES.get(row["state"], "")),
            f"{told['nodes_done']}/{told['nodes_total']}",
            "" if row["size"] is None else size(row["size"]),
            str(row["created_at"])[:19].replace("T", " "),
            Text(", ".join(row["urls"])),
        )
    return table
