"""Zones on real peers: hosts in zones that a thin link joins, without Ray. Needs root.

`python -m tests.benchmarks.zones --zones 2 --size 64`. Each zone is a bridge of its own with one link to all others;
the origin is in the first. Two floors for the time: size ÷ the zone link's nominal rate, and one `curl` across it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from dragonfly_ray.config import Settings
from tests.benchmarks import report as out
from tests.benchmarks.measures import Report, Rounds, say
from tests.benchmarks.rig import BenchError
from tests.nginx import Nginx
from tests.testbed import network
from tests.testbed.bed import Testbed, remove_leftovers, root_file
from tests.testbed.peers import FarSwarm

MIB = 1 << 20
TARGETS = {2: 1.15, 4: 1.5}
"""Time ÷ floor."""
INTO = 1.05
"""Bytes that come into a zone ÷ size, at the most."""
BOUND = 300.0
"""Seconds, after which no further round of a case begins."""


@dataclass(frozen=True)
class Plan:
    """Rates in Mbit/s, None: no limit; `size` in bytes."""

    zones: int
    size: int
    hosts: int = 8
    mbit: int = 200
    zone_mbit: int | None = 100
    origin_mbit: int | None = None

    def zone_of(self, host: int) -> int:
        """Neighbouring numbers share a zone."""
        return host * self.zones // self.hosts


@dataclass(frozen=True)
class Round:
    """Seconds, and shares of the size. `crossed`: bytes between hosts of different zones ÷ all between hosts and
    from the origin."""

    curl: float
    seconds: float
    into: tuple[float, ...]
    """Of each zone but the origin's, with headers, as the link counts."""
    origin: float
    crossed: float


class ZoneBed(Testbed):
    """Hosts in zones, without Ray."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.hosts, mbit=plan.mbit, origin_mbit=plan.origin_mbit)
        self.plan = plan
        self.zones = [network.Zone(number) for number in range(plan.zones)]
        for host in self.hosts:
            host.link.bridge = self.zones[plan.zone_of(host.number)].bridge
        self.origin_link.bridge = self.zones[0].bridge

    def __enter__(self) -> Self:
        remove_leftovers()
        try:
            network.create_switch()
            for zone in self.zones:
                zone.create(self.plan.zone_mbit)
            self.origin_link.create(self.plan.origin_mbit)
            self.origin.start()
            for host in self.hosts:
                host.link.create(self.plan.mbit)
        except BaseException:
            self.close()
            raise
        return self

    @contextmanager
    def swarm(self, name: str, settings: Settings) -> Iterator[FarSwarm]:
        """Peers with empty stores."""
        folder = self.folder / name
        folder.mkdir()
        made = FarSwarm(folder, settings)
        try:
            made.launch(
                {f"n{h.number}": h.link for h in self.hosts},
                {f"n{h.number}": self.zones[self.plan.zone_of(h.number)].name for h in self.hosts},
            )
            yield made
        finally:
            made.close()


def measure(bed: ZoneBed, number: int, settings: Settings) -> Round:
    """One file that nobody has, to every host; before it one curl to a host of the last zone."""
    name, size = f"file{number}", bed.plan.size
    root_file(bed.origin.root / name, size)
    url = f"{bed.origin.url}/{name}"
    started = time.perf_counter()
    bed.hosts[-1].link.run(["curl", "-sf", "-o", "/dev/null", url])
    curl = time.perf_counter() - started
    with bed.swarm(f"swarm{number}", settings) as swarm:
        before, sent = [zone.counters()[0] for zone in bed.zones], _sent(bed.origin, name)
        started = time.perf_counter()
        view = swarm.distribute(url)
        seconds = time.perf_counter() - started
        failed = {node: record for node, record in view["nodes"].items() if record["state"] != "done"}
        if failed or len(view["nodes"]) != bed.plan.hosts:
            raise BenchError(f"not on every host: {failed or list(view['nodes'])}"[:500])
        into = tuple((z.counters()[0] - b) / size for z, b in zip(bed.zones, before, strict=True))
        crossed = sum(swarm.crossed().values())
    (bed.origin.root / name).unlink()
    origin = _sent(bed.origin, name) - sent
    return Round(curl, seconds, into[1:], origin / size, crossed / (size * bed.plan.hosts))


def _sent(origin: Nginx, name: str) -> int:
    return origin.sent(f"/{name}")


def bench(plan: Plan, settings: Settings | None = None) -> Callable[[Report, Rounds], None]:
    """The case of this plan, which makes its own hosts."""

    def run(report: Report, rounds: Rounds) -> None:
        assert plan.zone_mbit
        nominal, mib = plan.size / (plan.zone_mbit * 1e6 / 8), plan.size / MIB
        target = TARGETS.get(plan.zones)
        by_link = report.measure("time ÷ (size ÷ zone link)", target)
        by_curl = report.measure("time ÷ one curl across the zone link", target)
        into = report.measure("most bytes into a zone, with headers ÷ size", INTO, unit="MiB")
        origin = report.measure("origin bytes ÷ size", 1.01, unit="MiB")
        crossed = report.measure("bytes from hosts of other zones ÷ all received", unit="MiB")
        with ZoneBed(plan) as bed:
            for number in rounds:
                one = measure(bed, number, settings or Settings())
                by_link.add(nominal, one.seconds)
                by_curl.add(one.curl, one.seconds)
                into.add(mib, max(one.into) * mib)
                origin.add(mib, one.origin * mib)
                crossed.add(mib * plan.hosts, one.crossed * mib * plan.hosts)
                say(f"  {report.case} round {number + 1}: {one.seconds:.2f} s = {one.seconds / nominal:.3f} of the "
                    f"link, {one.seconds / one.curl:.3f} of curl ({one.curl:.2f} s); into zones "
                    f"{', '.join(f'{share:.3f}' for share in one.into)}; origin {one.origin:.3f}; "
                    f"across {one.crossed:.3f}")  # fmt: skip

    return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.zones", description=__doc__)
    parser.add_argument("--zones", type=int, action="append", choices=sorted(TARGETS), help="default: each")
    parser.add_argument("--size", type=int, default=64, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--origin-mbit", type=int, help="of the origin's own link; default: unlimited")
    options = parser.parse_args()
    if why := network.available():
        parser.error(f"network namespaces: {why}")
    # So that an end by `kill` or a closed terminal cleans up as well.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    reports = []
    for zones in options.zones or sorted(TARGETS):
        plan = Plan(zones, options.size * MIB, origin_mbit=options.origin_mbit)
        reports.append(Report(f"Z{zones}"))
        say(f"Z{zones}: {plan.hosts} hosts of {plan.mbit} Mbit/s in {zones} zones of {plan.zone_mbit}")
        bench(plan)(reports[-1], Rounds(options.rounds, BOUND))
    out.show(reports)
    for path in out.write(reports):
        say(f"written: {path}")
    return 0 if all(m.holds is not False for r in reports for m in r.measures) else 1


if __name__ == "__main__":
    sys.exit(main())
