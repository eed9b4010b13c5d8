"""Cases H and I: from one host to another as fast as the machine is, against nginx and curl."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.benchmarks import floors, pages
from tests.benchmarks.bulk import in_turns
from tests.benchmarks.measures import Report, Rounds, say
from tests.benchmarks.rig import MIB, Call, Content, Rig, ok
from tests.nginx import Nginx
from tests.testbed import network

GIB = 1024 * MIB
TICKS = os.sysconf("SC_CLK_TCK")
PORT = 8081
GOALS: dict[pages.Condition, float] = {"fresh": 1.5, "warm": 2.0}
"""Of case H: throughput ÷ curl's."""


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """User and system seconds so far, of those that are alive."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


class CpuMeter:
    """Seconds that the processes of some namespaces use, those that start meanwhile included."""

    def __init__(self, *namespaces: str) -> None:
        self._namespaces = namespaces
        self._before = self._now()

    def _now(self) -> dict[int, float]:
        return cpu_of(pid for each in self._namespaces for pid in network.processes(each))

    def used(self, only: Iterable[int] | None = None) -> float:
        """Since it was made; of `only` these processes if given."""
        now = self._now()
        pids = now if only is None else [pid for pid in only if pid in now]
        return sum(now[pid] - self._before.get(pid, 0.0) for pid in pids)


@contextlib.contextmanager
def nginx_on_first(rig: Rig) -> Iterator[Nginx]:
    """Serves the origin's files from the first host's namespace."""
    link = rig.hosts[0].link
    with Nginx(
        rig.bed.origin.root,
        rig.bed.folder / "nginx-first",
        address=link.address,
        port=PORT,
        start=lambda command: link.popen(command),
    ) as server:
        yield server


def give_first(rig: Rig, content: Content) -> None:
    """The content is in the first host's store, and nowhere else."""
    ok(rig.distribute(content, targets=rig.hosts[:1], name="first", check=False))


def hand_over(rig: Rig, content: Content) -> Call:
    return ok(rig.distribute(content, targets=rig.hosts[1:2]))


class _Lines:
    """What is measured in one condition of memory."""

    def __init__(self, report: Report, condition: pages.Condition) -> None:
        self.condition = condition
        self.speed = report.measure(
            f"throughput ÷ nginx to curl -o file, {condition} pages", GOALS[condition], at_least=True
        )
        self.cpu = report.measure(f"CPU seconds of both ends ÷ theirs, {condition} pages", 1.0)
        self.peers_only = report.measure(f"CPU seconds of the two peers alone ÷ theirs, {condition} pages")
        self.speed.note = pages.reporting()

    def over(self, round_of: str) -> None:
        """Both sides of a round are measured."""
        self.peers_only.floors.append(self.cpu.floors[-1])
        self.speed.ratios.append(self.speed.floors[-1] / self.speed.ours[-1])
        for each in (self.cpu, self.peers_only):
            each.ratios.append(each.ours[-1] / each.floors[-1])
        say(f"  H round {round_of}, {self.condition} pages: curl {self.speed.floors[-1]:.2f} s, ours "
            f"{self.speed.ours[-1]:.2f} s: {self.speed.ratios[-1]:.2f} times as fast; CPU {self.cpu.floors[-1]:.2f} s, "
            f"ours {self.cpu.ours[-1]:.2f} s (peers {self.peers_only.ours[-1]:.2f} s)")  # fmt: skip


def h(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(None, None)
    rig.settings({})
    lines = [_Lines(report, condition) for condition in pages.CONDITIONS]
    with nginx_on_first(rig) as server:
        for number in rounds:
            for each in lines:
                _hand_over_both(rig, report, server, each, number)
                each.over(f"{number + 1}/{rounds.count}")
            report.traces[report.case].floor = lines[-1].speed.floors[-1]


def _hand_over_both(rig: Rig, report: Report, server: Nginx, lines: _Lines, number: int) -> None:
    """Both write into pages of the same condition, whoever goes first."""
    first, second = rig.hosts[0].link, rig.hosts[1].link
    peers = [rig.driver.ask("pids")["peers"][link.address] for link in (first, second)]
    with rig.content(GIB) as content:
        give_first(rig, content)

        def theirs() -> None:
            pages.prepare(lines.condition, rig.bed.folder, GIB)
            meter = CpuMeter(first.namespace)
            ran = floors.curl(rig, content, rig.hosts[1:2], base=server.url)
            lines.speed.floors.append(ran.seconds)
            lines.cpu.floors.append(ran.cpu + meter.used(server.pids()))
            rig.settle(content, "curl")

        def ours() -> None:
            idle = CpuMeter(first.namespace, second.namespace)
            time.sleep(2.0)
            rate = idle.used() / 2.0
            pages.prepare(lines.condition, rig.bed.folder, GIB)
            meter = CpuMeter(first.namespace, second.namespace)
            call = hand_over(rig, content)
            lines.speed.ours.append(call.seconds)
            lines.cpu.ours.append(meter.used() - rate * call.seconds)
            lines.peers_only.ours.append(meter.used(peers))
            report.traces[report.case] = call.trace

        in_turns(number, theirs, ours)


def i(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(None, None)
    rig.settings({})
    flat = report.measure("throughput at 4 GiB ÷ at 256 MiB", 0.9, at_least=True, unit="MiB/s")
    for number in rounds:
        rates = {}
        for size in (256 * MIB, 4 * GIB) if number % 2 == 0 else (4 * GIB, 256 * MIB):
            with rig.content(size) as content:
                give_first(rig, content)
                rig.settle(content)
                call = hand_over(rig, content)
            rates[size] = size / MIB / call.seconds
            report.traces[f"{report.case} {size // MIB} MiB"] = call.trace
        flat.add(rates[256 * MIB], rates[4 * GIB])
        say(f"  I round {number + 1}/{rounds.count}: {rates[256 * MIB]:.0f} MiB/s at 256 MiB, "
            f"{rates[4 * GIB]:.0f} MiB/s at 4 GiB = {flat.ratios[-1]:.3f}")  # fmt: skip
