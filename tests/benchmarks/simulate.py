"""The documented set of simulations, with targets and verdicts: `make simulate`.

`--quick` leaves out the two largest. `--only '60*'` runs those whose names are like it; each is written to
`bench-results/`.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dragonfly_ray.scheduling.simulator import Report, Scenario, simulate

RESULTS = Path("bench-results")
GIB = 1024**3
INTO = 1.05


@dataclass(frozen=True)
class Case:
    name: str
    scenario: Scenario
    ratio: float
    """Time ÷ bound at the most."""
    slow: bool = False
    memory: float = 8 * GIB
    """Of this process, at the most."""
    level: bool = True
    """Whether p99 has to be within a tenth of p50: links are equal."""
    cross: float | None = 0.02
    """Share of all bytes that crosses zones, at the most."""
    into: float | None = None
    """Bytes into each zone, and into each region, ÷ size, at the most."""


def thin(name: str, ratio: float, **links: Any) -> Case:
    """Zones on links that are thin: there each byte is to come in once, and time is bound by the links."""
    scenario = Scenario(**({"peers": 60, "pieces": 256} | links))
    return Case(name, scenario, ratio, level=False, cross=None, into=INTO)


CASES = (
    Case("100", Scenario(peers=100, pieces=1024), 1.05),
    Case("1,000", Scenario(peers=1000, pieces=1024), 1.05),
    Case("1,000 in 4 zones", Scenario(peers=1000, pieces=1024, zones=4), 1.05),
    Case("1,000, 1 % lost", Scenario(peers=1000, pieces=1024, lost=0.01), 1.15),
    Case("1,000, 1 % lost, 2 % joined", Scenario(peers=1000, pieces=1024, lost=0.01, joined=0.02), 1.15),
    Case("1,000, a fifth at a quarter's rate",
         Scenario(peers=1000, pieces=512, mix=((0.8, 1000), (0.2, 250))), 1.05, level=False),
    Case("1,000 read an origin of 4 Gbit/s",
         Scenario(peers=1000, pieces=1024, policy="all", origin_mbit=4000), 1.05),
    thin("60, 2 zones, 1 link", 1.15, zones=2, cross_mbit=1000),
    thin("60, 4 zones, 1 link", 1.5, zones=4, cross_mbit=1000),
    thin("60, 4 zones, 2 links", 1.15, zones=4, cross_mbit=2000),
    thin("60, 4 zones, 4 links", 1.15, zones=4, cross_mbit=4000),
    thin("60, 4 zones, 1 link, 1,024 pieces", 1.15, pieces=1024, zones=4, cross_mbit=1000),
    thin("60, 4 zones of 4, 1, 1, 2 links", 1.5, zones=4, zone_mbit=(4000, 1000, 1000, 2000)),
    thin("60 read an origin in 1 of 2 zones, 1 link", 1.15,
         zones=2, cross_mbit=1000, policy="all", origin_mbit=1000, origin_zone=0),
    thin("60 in 2 regions of 2 zones, 1 link each", 1.5,
         zones=4, cross_mbit=2000, regions=2, region_mbit=1000),
    Case("60 as hosts ask", Scenario(peers=60, pieces=256, admission="peers"), 1.3, level=False),
    thin("60 as hosts ask, 2 zones, 1 link", 1.5, zones=2, cross_mbit=1000, admission="peers"),
    thin("60 as hosts ask, 4 zones, 1 link", 1.5, zones=4, cross_mbit=1000, admission="peers"),
    Case("10,000 in 4 zones", Scenario(peers=10_000, pieces=1024, zones=4), 1.05, slow=True),
    Case("100,000", Scenario(peers=100_000, pieces=64, lag=1.0), 2.0, slow=True, memory=16 * GIB),
)  # fmt: skip


def verdicts(case: Case, report: Report) -> dict[str, bool]:
    """Target -> whether it is met."""
    found = {
        f"≤ {case.ratio:.2f} x bound": report.ratio <= case.ratio,
        "each piece left the origin once": report.origin_share == 1.0 or report.lost > 0,
        "all peers complete": report.complete + report.lost >= case.scenario.peers,
        f"≤ {case.memory / GIB:.0f} GiB": _peak() <= case.memory,
        "≤ 1 h": report.wall_seconds <= 3600,
    }
    if case.level:
        found["p99 ≤ 1.1 x p50"] = report.p99 <= 1.1 * report.p50
    if case.into is None:  # what a scheduler is good for shows in large tasks
        found["≥ 20,000 decisions/s"] = report.decisions_per_second >= 20_000
        found["≤ 2 KiB a peer"] = report.memory_per_peer <= 2048
    else:
        found[f"≤ {case.into:.2f} x size into each zone"] = report.into_zone <= case.into
        if case.scenario.regions > 1:
            found[f"≤ {case.into:.2f} x size into each region"] = report.into_region <= case.into
    if case.cross is not None and case.scenario.zones > 1:
        found[f"≤ {100 * case.cross:.0f} % cross zones"] = report.cross_share <= case.cross
    return found


def _peak() -> float:
    """Most memory that this process ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def table(rows: list[tuple[Case, Report]]) -> Table:
    found = Table(header_style="bold")
    found.add_column("case")
    columns: dict[str, Callable[[Report], str]] = {
        "pieces": lambda r: f"{r.scenario.pieces:,}",
        "÷ bound": lambda r: f"{r.ratio:.3f}",
        "bound": lambda r: f"{r.bound:.2f} s",
        "p50": lambda r: f"{r.p50:.2f} s",
        "p99": lambda r: f"{r.p99:.2f} s",
        "max": lambda r: f"{r.seconds:.2f} s",
        "origin": lambda r: f"{r.origin_share:.3f}",
        "cross": lambda r: f"{100 * r.cross_share:.2f} %",
        "into zone": lambda r: f"{r.into_zone:.3f}",
        "region": lambda r: f"{r.into_region:.3f}" if r.scenario.regions > 1 else "",
        "decisions/s": lambda r: f"{r.decisions_per_second:,.0f}",
        "B/peer": lambda r: f"{r.memory_per_peer:,.0f}",
        "wall": lambda r: f"{r.wall_seconds:,.0f} s",
    }
    for name in columns:
        found.add_column(name, justify="right")
    found.add_column("misses")
    for case, report in rows:
        missed = [target for target, met in verdicts(case, report).items() if not met]
        found.add_row(case.name, *(show(report) for show in columns.values()), ", ".join(missed) or "none")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="a name, or a pattern of names")
    chosen = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    console, rows = Console(width=180), []
    # The smallest first: the peak of memory is that of the process.
    for case in CASES:
        if (chosen.quick and case.slow) or not fnmatchcase(case.name, chosen.only or "*"):
            continue
        report = simulate(case.scenario)
        rows.append((case, report))
        entry = report.to_dict() | {"case": case.name, "verdicts": verdicts(case, report), "peak": _peak()}
        name = "".join(c if c.isalnum() else "-" for c in case.name)
        (RESULTS / f"simulate-{name}.json").write_text(json.dumps(entry, indent=2))
        print(f"{case.name}: {report.ratio:.3f} times the bound", file=sys.stderr, flush=True)
    console.print(table(rows))


if __name__ == "__main__":
    main()
