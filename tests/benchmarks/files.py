"""Case M: files of 700 KB on links of their own rates, without Ray: the links are the limit, not the machine's cores.

In case J every host runs on the same cores, and what is measured is the processor that each byte costs. Here each peer
is a process on a link of 400 Mbit/s, the origin on one of 200.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dragonfly_ray.config import Settings
from tests.benchmarks import floors
from tests.benchmarks.bulk import ONCE, in_turns
from tests.benchmarks.measures import Report, Rounds, say
from tests.benchmarks.rig import MIB, BenchError, digest, random_file
from tests.benchmarks.zones import Plan, ZoneBed

CONNECTIONS = 16
"""Of each `curl --parallel`."""


@dataclass(frozen=True)
class Files:
    """Rates in Mbit/s."""

    count: int = 100
    size: int = 700_000
    hosts: int = 4
    mbit: int = 400
    origin_mbit: int = 200


def _curl(bed: ZoneBed, name: str, files: Files) -> list[floors.Command]:
    """For each host, its list of files written beforehand."""
    commands: list[floors.Command] = []
    for host in bed.hosts:
        folder = bed.folder / f"curl-{name}" / str(host.number)
        folder.mkdir(parents=True)
        urls = [f"{bed.origin.url}/{name}/{number}.bin" for number in range(files.count)]
        listing = folder.with_suffix(".list")
        listing.write_text(
            "".join(f'url = "{url}"\noutput = "{folder}/{n}.bin"\n' for n, url in enumerate(urls))
        )
        commands.append(
            ["curl", "-sf", "--parallel", "--parallel-max", str(CONNECTIONS), "--config", listing]
        )
    return commands


def _ours(bed: ZoneBed, name: str, hosts: int) -> tuple[float, Sequence[Path]]:
    """Seconds, and the outputs."""
    with bed.swarm(f"swarm-{name}", Settings()) as swarm:
        started = time.perf_counter()
        view = swarm.distribute(f"{bed.origin.url}/{name}/", dest=f"{bed.folder}/out-{name}/{{node}}")
        seconds = time.perf_counter() - started
    failed = {node: record for node, record in view["nodes"].items() if record["state"] != "done"}
    if failed or len(view["nodes"]) != hosts:
        raise BenchError(f"not on every host: {failed or list(view['nodes'])}"[:500])
    return seconds, [Path(record["path"]) for record in view["nodes"].values()]


def m(report: Report, rounds: Rounds, files: Files | None = None) -> None:
    files = files or Files()
    size = files.count * files.size
    what = f"{files.count} × {files.size // 1000} KB, links shaped"
    faster = report.measure(f"{what}: curl --parallel on every host ÷ time", 2.0, at_least=True)
    link = report.measure(f"{what}: time ÷ (size ÷ origin's link)")
    origin = report.measure(f"{what}: N: origin bytes ÷ size", ONCE, unit="MiB")
    plan = Plan(1, size, files.hosts, files.mbit, None, files.origin_mbit)
    with ZoneBed(plan) as bed:
        for number in rounds:
            name = f"files{number}"
            folder = bed.origin.root / name
            folder.mkdir()
            for each in range(files.count):
                random_file(folder / f"{each}.bin", files.size)
            wanted = digest(folder)
            commands = _curl(bed, name, files)
            sent: list[int] = []

            def theirs(commands: list[floors.Command] = commands) -> None:
                links = [host.link for host in bed.hosts]
                faster.floors.append(floors.at_once(list(zip(links, commands, strict=True))).seconds)

            def ours(name: str = name, sent: list[int] = sent, wanted: str = wanted) -> None:
                before = bed.origin.sent(f"/{name}/")
                seconds, outputs = _ours(bed, name, files.hosts)
                sent.append(bed.origin.sent(f"/{name}/") - before)
                if any(digest(path) != wanted for path in outputs):
                    raise BenchError("other bytes than the origin's")
                faster.ours.append(seconds)

            in_turns(number, theirs, ours)
            faster.ratios.append(faster.floors[-1] / faster.ours[-1])
            link.add(size / (files.origin_mbit * 1e6 / 8), faster.ours[-1])
            origin.add(size / MIB, sent[0] / MIB)
            say(f"  M round {number + 1}/{rounds.count}: curl {faster.floors[-1]:.2f} s, ours {faster.ours[-1]:.2f} s: "
                f"{faster.ratios[-1]:.2f} times as fast, {link.ratios[-1]:.3f} of the origin's link, origin "
                f"{origin.ratios[-1]:.4f}")  # fmt: skip
