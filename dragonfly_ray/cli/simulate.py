"""`dragonfly simulate`: how long a distribution would take, before there is a cluster."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import MIB, file_leaf

if TYPE_CHECKING:
    from dragonfly_ray.scheduling.simulator import Report

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def simulate(
    peers: Annotated[int, typer.Option("--peers", "-p", help="Number of target nodes.", min=1)] = 100,
    size: Annotated[
        Optional[str],  # noqa: UP045, typer reads this at run time
        typer.Option(help="Size of the content (`140GB`, `1.5GiB`); it determines the piece size."),
    ] = None,
    pieces: Annotated[int, typer.Option(help="Number of 1 MiB pieces, without --size.", min=1)] = 256,
    mbit: Annotated[float, typer.Option(help="Each node's link, Mbit/s in each direction.")] = 1000.0,
    mix: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="`share:Mbit/s`, for links that differ (`0.2:25000`). Repeatable."),
    ] = None,
    origin_mbit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Total rate of the origin, Mbit/s; default: unlimited."),
    ] = None,
    zones: Annotated[int, typer.Option(help="Racks or data centres.", min=1)] = 1,
    cross_mbit: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Rate of a zone's link to all others, Mbit/s in each direction; default: unlimited."
        ),
    ] = None,
    lost: Annotated[float, typer.Option(help="Share of the nodes lost in every 1,024 piece-times.")] = 0.0,
    joined: Annotated[float, typer.Option(help="Share of the nodes that join later, likewise.")] = 0.0,
    policy: Annotated[str, typer.Option(help="Who reads the origin: `all` nodes, or `seeds`.")] = "seeds",
    seeds: Annotated[
        int, typer.Option(help="Number of seeds besides the nodes, with the policy `seeds`.", min=1)
    ] = 1,
    lag: Annotated[
        float, typer.Option(help="Piece-times until neighbours learn of a piece (HAVE delay).")
    ] = 0.5,
    admission: Annotated[
        str, typer.Option(help="How nodes ask each other: `peers`, as in a cluster, or `late`, the ideal.")
    ] = "peers",
    seed: Annotated[int, typer.Option(help="Random seed: the same one gives the same result.")] = 1,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Plot progress over time, as PNG (needs matplotlib).", dir_okay=False),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """How long a distribution to so many nodes would take. Needs no cluster, and starts none.

    It runs the code that chooses pieces, neighbours and readers of the origin in a cluster; only
    links and time are modelled. About 3,000 pieces received are simulated in a second, 15,000 with `--admission late`.
    """
    # Here, so that no other command loads what schedules, and numpy.
    from dragonfly_ray.scheduling.simulator import Scenario
    from dragonfly_ray.scheduling.simulator import simulate as run

    if policy not in ("seeds", "all"):
        raise InvalidRequestError(f"--policy {policy}: must be `seeds` or `all`")
    if admission not in ("peers", "late"):
        raise InvalidRequestError(f"--admission {admission}: must be `peers` or `late`")
    if plot:
        _matplotlib()
    how: Literal["peers", "late"] = "peers" if admission == "peers" else "late"
    who: Literal["seeds", "all"] = "seeds" if policy == "seeds" else "all"
    piece_bytes = MIB
    if size:
        nbytes = _bytes(size)
        leaf = file_leaf(nbytes)
        pieces, piece_bytes = math.ceil(nbytes / leaf), min(leaf, nbytes)
    try:
        scenario = Scenario(
            peers=peers, mbit=mbit, mix=tuple(_share(each) for each in mix or ()), origin_mbit=origin_mbit,
            zones=zones, cross_mbit=cross_mbit, lost=lost, joined=joined, policy=who, seeds=seeds, lag=lag,
            admission=how, seed=seed, pieces=pieces, piece_bytes=piece_bytes,
        )  # fmt: skip
    except ValueError as error:
        raise InvalidRequestError(f"simulate: {error}") from None
    console = Console(stderr=True)
    with console.status("simulating") as status:
        report = run(scenario, progress=lambda share: status.update(f"simulating: {100 * share:.0f} %"))
    if plot:
        draw(report, plot)
    if json_:
        sys.stdout.write(json.dumps(_finite(report.to_dict()), indent=2) + "\n")
    else:
        Console().print(table(report))


def table(report: Report) -> Table:
    """What a person wants to know of it."""
    s = report.scenario
    found = Table(
        header_style="bold", title=f"{s.peers:,} peers, {s.pieces:,} pieces of {s.piece_bytes:,} bytes"
    )
    found.add_column("what")
    found.add_column("value", justify="right")
    rows: list[tuple[str, str]] = [
        ("time until all peers completed", f"{report.seconds:.2f} s"),
        ("lower bound of the time", f"{report.bound:.2f} s"),
        ("time ÷ lower bound", f"{report.ratio:.3f}"),
        ("half of the peers", f"{report.p50:.2f} s"),
        ("99 % of the peers", f"{report.p99:.2f} s"),
        ("origin egress", f"{report.origin_share:.4f} x size"),
    ]
    if s.zones > 1:
        rows.append(("cross-zone traffic", f"{100 * report.cross_share:.2f} % of the bytes"))
    if s.lost or s.joined:
        rows.append(("lost, joined", f"{report.lost:,}, {report.late:,}"))
    rows += [
        ("requests, leases and reports", f"{report.decisions_per_second:,.0f} a second of one core"),
        ("scheduler's memory", f"{report.memory_per_peer:,.0f} bytes a peer"),
        ("simulated in", f"{report.wall_seconds:.1f} s"),
    ]
    for what, value in rows:
        found.add_row(what, Text(value))
    return found


def draw(report: Report, file: Path) -> None:
    """Bytes and whole peers over time, and the bound, as a picture."""
    figure_type = _matplotlib()
    figure = figure_type(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    seconds = [at for at, _, _ in report.curve]
    axes.plot(seconds, [100 * there for _, there, _ in report.curve], label="bytes stored")
    axes.plot(seconds, [100 * whole for _, _, whole in report.curve], label="completed peers")
    axes.axvline(report.bound, color="grey", linestyle="--", label="lower bound of the time")
    axes.set_xlabel("seconds")
    axes.set_ylabel("%")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.set_title(f"{report.scenario.peers:,} peers: {report.ratio:.3f} times the lower bound")
    axes.legend()
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"--plot {file}: {error}") from None


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidRequestError(
            "--plot: matplotlib is missing; pip install 'dragonfly-ray[plot]'"
        ) from None
    return Figure


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    units = UNITS | BINARY
    if match is None or match[2] not in units or float(match[1]) <= 0:
        raise InvalidRequestError(f"--size {text}: must be a number and a unit, such as 140GB or 1.5GiB")
    return max(1, int(float(match[1]) * units[match[2]]))


def _share(text: str) -> tuple[float, float]:
    share, _, rate = text.partition(":")
    try:
        return float(share), float(rate)
    except ValueError:
        raise InvalidRequestError(f"--mix {text}: must be `share:Mbit/s`, such as 0.2:25000") from None


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity; what never happened is null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
