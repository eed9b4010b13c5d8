"""Cases A and B: one big file, where the origin or the links are the bottleneck. Growth of A."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import floors
from tests.benchmarks.measures import Report, Rounds, say
from tests.benchmarks.rig import MIB, Call, Content, Rig, ok
from tests.testbed.bed import BedHost

ONCE = 1.01
"""Case N: body bytes that leave the origin ÷ size."""


def seeds_only(seed: BedHost) -> dict[str, Any]:
    """Settings with which this host alone may go to the origin."""
    return {"origin": {"policy": "seeds"}, "peer": {"seeds": [seed.address]}}


def in_turns(number: int, *steps: Callable[[], None]) -> None:
    """Runs the steps, in the other order every second time: who goes first has no advantage."""
    for step in steps if number % 2 == 0 else reversed(steps):
        step()


def one_round(
    rig: Rig, content: Content, number: int, targets: Sequence[BedHost] | None = None
) -> tuple[float, Call, int]:
    """Seconds of one curl, ours, and the bytes that the origin sent for ours."""
    floor: list[float] = []
    calls: list[Call] = []
    sent: list[int] = []

    def theirs() -> None:
        floor.append(floors.curl(rig, content, [rig.hosts[-1]]).seconds)

    def ours() -> None:
        before = rig.sent(content)
        calls.append(ok(rig.distribute(content, targets=targets)))
        sent.append(rig.sent(content) - before - calls[-1].audited)

    in_turns(number, theirs, ours)
    return floor[0], calls[0], sent[0]


@dataclass(frozen=True)
class Setup:
    """Rates in Mbit/s."""

    mbit: int
    origin: int | None
    mib: int
    what: str
    target: float | None
    one_seed: bool = False
    hosts: int | None = None
    """Only so many of the hosts are targets."""


SETUPS = {
    "A2": Setup(400, 200, 256, "two hosts: time ÷ one curl alone", None, hosts=2),
    "A4": Setup(400, 200, 256, "time ÷ one curl alone", 1.03),
    "A8": Setup(200, 100, 128, "time ÷ one curl alone", 1.05),
    "A16": Setup(100, 50, 64, "time ÷ one curl alone", 1.07),
    "B1": Setup(200, None, 128, "one seed at the origin: time ÷ one link's", 1.12, one_seed=True),
    "B2": Setup(200, None, 128, "leases for all: time ÷ one link's", 1.05),
}


def prepare(rig: Rig, setup: Setup) -> None:
    """Links and settings."""
    rig.shape(setup.mbit, setup.origin)
    rig.settings(seeds_only(rig.hosts[1]) if setup.one_seed else {})


def against_curl(rig: Rig, report: Report, rounds: Rounds) -> None:
    """Rounds of one curl alone, and of ours to all targets."""
    setup = SETUPS[report.case]
    prepare(rig, setup)
    size, targets = setup.mib * MIB, rig.hosts[: setup.hosts]
    time_ratio = report.measure(setup.what, setup.target)
    origin = report.measure("N: origin bytes ÷ size", ONCE, unit="MiB")
    for number in rounds:
        with rig.content(size) as content:
            floor, call, sent = one_round(rig, content, number, targets)
        ratio = time_ratio.add(floor, call.seconds)
        origin.add(size / MIB, sent / MIB)
        call.trace.floor = floor
        report.traces[report.case] = call.trace
        say(f"  {report.case} round {number + 1}/{rounds.count}: floor {floor:.2f} s, ours {call.seconds:.2f} s "
            f"= {ratio:.3f}, origin {sent / size:.4f}")  # fmt: skip


def size(rig: Rig, report: Report, rounds: Rounds) -> None:
    """A4 by size. What takes long is not repeated: its ratio is the steadiest."""
    rig.shape(400, 200)
    rig.settings({})
    for mib, most in ((1, 9), (4, 9), (16, 7), (64, 5), (256, 3), (1024, 2), (4096, 1)):
        measure = report.measure(f"A4 with {mib} MiB: time ÷ one curl alone", mib=mib)
        for number in range(min(most, rounds.count * 2)):
            with rig.content(mib * MIB) as content:
                floor, call, _ = one_round(rig, content, number)
            ratio = measure.add(floor, call.seconds)
            call.trace.floor = floor
            if mib in (1, 4096):
                report.traces[f"{report.case} {mib} MiB"] = call.trace
            say(f"  {mib} MiB: floor {floor:.3f} s, ours {call.seconds:.3f} s = {ratio:.3f}")
