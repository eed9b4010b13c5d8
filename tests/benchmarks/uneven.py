"""Cases C, D and E: connections that are paced, links that differ, and one slow host."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import floors
from tests.benchmarks.bulk import ONCE, in_turns
from tests.benchmarks.measures import Report, Rounds, say
from tests.benchmarks.rig import MIB, BenchError, Content, Rig, ok
from tests.testbed.bed import CHECKOUT

PACE = 2_000_000
PACED_PORT = 8080
MIXED = (400, 400, 200, 200, 100, 100, 50, 50)


@contextlib.contextmanager
def paced_origin(rig: Rig) -> Iterator[tuple[str, Path]]:
    """Its base URL and its log, of a server in the origin's namespace."""
    log = rig.bed.folder / "paced.log"
    address = rig.origin_link.address
    command: list[str | Path] = [sys.executable, "-m", "tests.paced", "--address", address, "--port", str(PACED_PORT),
               "--rate", str(PACE), "--log", log, rig.bed.origin.root]  # fmt: skip
    server = rig.origin_link.popen(command, env={"PYTHONPATH": str(CHECKOUT)})
    try:
        deadline = time.monotonic() + 20
        while f":{PACED_PORT}" not in rig.origin_link.run(["ss", "-Hltn"]):
            if server.poll() is not None or time.monotonic() > deadline:
                raise BenchError("the paced origin does not start")
            time.sleep(0.05)
        yield f"http://{address}:{PACED_PORT}", log
    finally:
        server.kill()
        server.wait(timeout=20)


def _sent(log: Path, content: Content) -> int:
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()] if log.exists() else []
    return sum(int(sent) for sent, _, path in lines if path.startswith(f"/{content.name}"))


def c(rig: Rig, report: Report, rounds: Rounds) -> None:
    """Links as fast as the machine, so that nothing but the pace of the connections counts."""
    rig.shape(None, None)
    rig.settings({"origin": {"connections": 2}})
    speedup = report.measure("one curl alone ÷ time (bound 16)", 10.0, at_least=True)
    origin = report.measure("N: origin bytes ÷ size", ONCE, unit="MiB")
    with paced_origin(rig) as (base, log):
        for number in rounds:
            with rig.content(64 * MIB) as content:
                floor = floors.curl(rig, content, [rig.hosts[-1]], base=base).seconds
                before = _sent(log, content)
                call = ok(rig.distribute(content, base=base))
                sent = _sent(log, content) - before
            speedup.add(floor, call.seconds, floor / call.seconds)
            origin.add(content.size / MIB, sent / MIB)
            report.traces[report.case] = call.trace
            say(f"  C round {number + 1}/{rounds.count}: curl {floor:.2f} s, ours {call.seconds:.2f} s: "
                f"{speedup.ratios[-1]:.2f} times as fast, origin {sent / content.size:.4f}")  # fmt: skip


def d(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(MIXED, 200)
    rig.settings({})
    worst = report.measure("worst host: its time ÷ its own bound", 1.15)
    origin = report.measure("N: origin bytes ÷ size", ONCE, unit="MiB")
    for number in rounds:
        with rig.content(64 * MIB) as content:
            # What a host could reach alone: the slower of its own link and the origin's.
            alone = {
                mbit: floors.curl(rig, content, [rig.hosts[MIXED.index(mbit)]]).seconds for mbit in set(MIXED)
            }
            before = rig.sent(content)
            call = ok(rig.distribute(content))
            sent = rig.sent(content) - before - call.audited
        times = {host: call.visible[host.address] for host in rig.hosts}
        host = max(rig.hosts, key=lambda h: times[h] / alone[MIXED[h.number]])
        worst.add(alone[MIXED[host.number]], times[host])
        origin.add(content.size / MIB, sent / MIB)
        worst.note = f"last round: the {MIXED[host.number]} Mbit/s one"
        call.trace.floor = max(alone.values())
        report.traces[report.case] = call.trace
        each = ", ".join(f"{MIXED[h.number]}: {times[h] / alone[MIXED[h.number]]:.3f}" for h in rig.hosts)
        say(f"  D round {number + 1}/{rounds.count}: worst {worst.ratios[-1]:.3f} ({each})")


def e(rig: Rig, report: Report, rounds: Rounds) -> None:
    slow = rig.hosts[-1]
    others = rig.hosts[:-1]
    rig.settings({})
    seven = report.measure("the other seven ÷ their time without a slow host", 1.10)
    own = report.measure("the slow host ÷ its own link's time", 1.15)
    for number in rounds:
        size = 128 * MIB

        def without(size: int = size) -> None:
            rig.shape(200, 100)
            with rig.content(size) as content:
                call = ok(rig.distribute(content))
            seven.floors.append(max(call.visible[h.address] for h in others))

        def with_slow(size: int = size) -> None:
            rig.shape([200] * len(others) + [20], 100)
            own.floors.append(size / floors.iperf(rig, slow))
            with rig.content(size) as content:
                call = ok(rig.distribute(content))
            seven.ours.append(max(call.visible[h.address] for h in others))
            own.ours.append(call.visible[slow.address])
            report.traces[report.case] = call.trace

        in_turns(number, without, with_slow)
        seven.ratios.append(seven.ours[-1] / seven.floors[-1])
        own.ratios.append(own.ours[-1] / own.floors[-1])
        say(f"  E round {number + 1}/{rounds.count}: seven {seven.ours[-1]:.2f} s, without {seven.floors[-1]:.2f} s "
            f"= {seven.ratios[-1]:.3f}; slow one {own.ours[-1]:.2f} s, its link {own.floors[-1]:.2f} s "
            f"= {own.ratios[-1]:.3f}")  # fmt: skip
