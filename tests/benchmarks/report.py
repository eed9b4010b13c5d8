"""The table, the numbers and the picture."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.benchmarks import pages
from tests.benchmarks.measures import Measure, Report, median
from tests.testbed.bed import CHECKOUT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = CHECKOUT / "bench-results"
COLUMNS = ("case", "measure", "floor", "ours", "ratio", "min–max", "n", "target", "")
GROWTH = ("A2", "A4", "A8", "A16")
_VERDICTS = {True: ("holds", "green"), False: ("MISSED", "bold red"), None: ("", "")}


def machine() -> dict[str, Any]:
    """Where it was measured."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(pages / (1 << 30)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def where() -> str:
    """The machine, in a line."""
    found = machine()
    return (
        f"{found['cores']} cores ({found['cpu']}), {found['memory_gib']} GiB, Linux {found['kernel']}, "
        f"Python {found['python']}; {pages.reporting()}"
    )


def cells(each: Measure) -> tuple[str, ...]:
    """One row as text, without the verdict."""
    if each.error:
        return (each.case, each.what, "", "", "failed", "", "", _target(each))
    spread = f"{_number(min(each.ratios))}–{_number(max(each.ratios))}" if each.ratios else ""
    return (
        each.case,
        f"{each.what} ({each.note})" if each.note else each.what,
        ("theirs " if each.rival else "") + _value(each.floors, each.unit),
        _value(each.ours, each.unit),
        "" if each.ratio is None else _number(each.ratio),
        spread,
        str(len(each.ratios)),
        _target(each),
    )


def growth(reports: Sequence[Report]) -> Report | None:
    """How much the ratio of case A differs between its numbers of hosts, where several were measured."""
    found = {r.case: r.measures[0].ratio for r in reports if r.case in GROWTH and r.measures}
    ratios = {case: ratio for case, ratio in found.items() if ratio is not None}
    if len(ratios) < 2:
        return None
    made = Report("GROWTH")
    line = made.measure("A: largest ratio ÷ smallest", 1.05, unit="")
    line.add(min(ratios.values()), max(ratios.values()))
    line.note = ", ".join(f"{case} {ratios[case]:.3f}" for case in GROWTH if case in ratios)
    return made


def show(reports: Sequence[Report], console: Console | None = None) -> None:
    table = Table(header_style="bold")
    for heading in COLUMNS:
        right = heading in ("floor", "ours", "ratio", "min–max", "n", "target")
        table.add_column(
            heading,
            justify="right" if right else "left",
            no_wrap=right or heading == "case",
            overflow="fold",
        )
    for report in reports:
        for each in report.measures:
            word, style = _VERDICTS[each.holds]
            table.add_row(*cells(each), Text("FAILED" if each.error else word, style=style))
        table.add_section()
    console = console or Console(width=None if os.isatty(1) else 150)
    console.print(table)
    console.print(f"Measured on {where()}.", markup=False, highlight=False)
    for report in reports:
        for each in report.measures:
            if each.error:
                console.print(f"{each.case}: {each.error}", style="red", markup=False)


def markdown(reports: Sequence[Report]) -> str:
    """A table for the README, with the machine."""
    lines = [
        f"Measured on {where()}; medians of `n` rounds within one run.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---:|" * 6 + "---|",
    ]
    for report in reports:
        for each in report.measures:
            word = "failed" if each.error else _VERDICTS[each.holds][0].lower()
            lines.append("| " + " | ".join((*cells(each), word)) + " |")
    return "\n".join(lines) + "\n"


def write(reports: Sequence[Report], folder: Path = FOLDER) -> list[Path]:
    """JSON with every round, the Markdown table, and one picture. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / time.strftime("bench-%Y%m%d-%H%M%S")
    raw = {
        "machine": machine(),
        "time": time.time(),
        "cases": [
            {
                "case": report.case,
                "seconds": round(report.seconds, 1),
                "measures": [each.to_dict() for each in report.measures],
                "traces": {name: trace.to_dict() for name, trace in report.traces.items()},
            }
            for report in reports
        ],
    }
    written = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    written[0].write_text(json.dumps(raw))
    written[1].write_text(markdown(reports))
    if any(report.traces for report in reports):
        written.append(stem.with_suffix(".png"))
        _plot(reports, written[-1])
    return written


def _plot(reports: Sequence[Report], path: Path) -> None:
    """Bytes over time of every host, the origin's beside them, and the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    traces = [(name, trace) for report in reports for name, trace in report.traces.items()]
    sizes = [each for report in reports for each in report.measures if each.mib and each.ratios]
    panels = len(traces) + bool(sizes)
    wide = min(3, panels)
    high = -(-panels // wide)
    figure, axes = pyplot.subplots(high, wide, figsize=(6 * wide, 3.6 * high), squeeze=False)
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    if sizes:
        _plot_sizes(axes.flat[len(traces)], sizes)
    for axis, (name, trace) in zip(axes.flat, traces, strict=False):
        for host, received in trace.received.items():
            if (
                host != "origin"
                and received
                and max(received) > 0.01 * max(map(max, trace.received.values()))
            ):
                axis.plot(trace.times, [b / 2**20 for b in received], lw=1, label=f"host {host}")
        axis.plot(trace.times, [b / 2**20 for b in trace.sent["origin"]], "k--", lw=1, label="origin sends")
        if trace.floor:
            axis.axvline(trace.floor, color="r", lw=1, label=f"floor {trace.floor:.2f} s")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("s")
        axis.set_ylabel("MiB received")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=6, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_sizes(axis: Axes, sizes: Sequence[Measure]) -> None:
    """The ratio over the size of the content, with its spread."""
    ratios = [median(each.ratios) for each in sizes]
    below = [ratio - min(each.ratios) for ratio, each in zip(ratios, sizes, strict=True)]
    above = [max(each.ratios) - ratio for ratio, each in zip(ratios, sizes, strict=True)]
    axis.errorbar([each.mib or 0.0 for each in sizes], ratios, yerr=[below, above], marker="o", capsize=3)
    axis.axhline(1.0, color="r", lw=1, label="floor")
    axis.set_xscale("log", base=2)
    axis.set_title("time ÷ one curl alone, by size", fontsize=10)
    axis.set_xlabel("MiB")
    axis.legend(fontsize=6)


def _target(each: Measure) -> str:
    if each.target is None:
        return ""
    return f"{'≥' if each.at_least else '≤'} {each.target:g}"


def _value(values: Sequence[float], unit: str) -> str:
    return f"{_number(median(values))} {unit}".strip() if values else ""


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
