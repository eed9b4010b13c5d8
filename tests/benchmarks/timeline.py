"""One distribution, moment by moment, from counters of the links, the origin's log and the file system."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.benchmarks import floors
from tests.benchmarks.bulk import SETUPS, prepare
from tests.benchmarks.measures import median
from tests.benchmarks.rig import MIB, Call, Content, Rig, ok
from tests.benchmarks.sampler import Trace

INTERVAL = 0.01
BIT = 64 * 1024
"""Bytes that are more than chatter."""
IDLE = 0.5
"""A link that carries less than this share of its best second is not busy."""
WINDOW = 0.1


def timeline(rig: Rig, case: str) -> None:
    """Prints one call of a driver that has made others, and one of a driver that has just begun."""
    setup = SETUPS[case]
    prepare(rig, setup)
    with rig.content(setup.mib * MIB) as content:
        floor = floors.curl(rig, content, [rig.hosts[-1]]).seconds
    with rig.content(setup.mib * MIB) as content:
        call = ok(rig.distribute(content, interval=INTERVAL))
        _print(f"{case}: a driver that has called before", rig, content, call, floor)
    rig.new_driver()
    with rig.content(setup.mib * MIB) as content:
        call = ok(rig.distribute(content, interval=INTERVAL))
        _print(f"{case}: the first call of a driver", rig, content, call, floor)


def _print(title: str, rig: Rig, content: Content, call: Call, floor: float) -> None:
    trace = call.trace
    late = trace.began - call.started
    hits = rig.hits(content)
    bodies = [hit for hit in hits if hit.method == "GET"]
    sent = trace.sent["origin"]
    first, last = _reached(trace, sent, BIT, late), _reached(trace, sent, sent[-1] - BIT, late)
    events = [
        (min(h.time - h.took for h in hits) - call.started, "first request at the origin"),
        (min(h.time - h.took for h in bodies) - call.started, "first request for bytes at the origin"),
        (first, "first bytes on the origin's link"),
        (max(h.time - h.took for h in bodies) - call.started, "last request for bytes begins"),
        (max(h.time for h in bodies) - call.started, "nginx has handed the last bytes to its kernel"),
        (last, "last bytes on the origin's link"),
        (call.seconds, "the call returns"),
    ]
    for host in rig.hosts:
        got = trace.received[str(host.number)]
        name = f"host {host.number} ({host.address})"
        events.append((_reached(trace, got, BIT, late), f"{name}: first bytes"))
        events.append((_reached(trace, got, got[-1] - BIT, late), f"{name}: last bytes"))
        events.append((call.visible[host.address], f"{name}: output visible"))
        journals = [p.stat().st_mtime for p in host.storage.rglob("journal")]
        if journals:
            events.append((max(journals) - call.started, f"{name}: last record in its journal"))
    table = Table("s", "after", "what", title=title, title_justify="left", header_style="bold")
    before = 0.0
    for at, what in sorted(events):
        table.add_row(f"{at:.3f}", f"+{at - before:.3f}", what)
        before = at
    console = Console(width=120)
    console.print(table)
    sizes = sorted(hit.sent for hit in bodies)
    share = {a: o["bytes_origin"] for a, o in call.outcomes.items()}
    console.print(
        f"floor {floor:.3f} s, the call {call.seconds:.3f} s = {call.seconds / floor:.3f}: "
        f"{first:.3f} s before the origin's link, {last - first:.3f} s on it (slack "
        f"{_slack(trace, sent):.3f} s), {call.seconds - last:.3f} s after it",
        f"{len(hits)} requests; bytes each: smallest {sizes[0]}, median {median(sizes):.0f}, largest {sizes[-1]}",
        f"from the origin, MiB: {', '.join(f'{a}: {b / MIB:.1f}' for a, b in sorted(share.items()))}",
        sep="\n",
        highlight=False,
    )


def _reached(trace: Trace, counters: Sequence[int], amount: int, late: float) -> float:
    """Seconds from the call until a counter had come so far."""
    return next(
        (t + late for t, count in zip(trace.times, counters, strict=True) if count >= amount),
        trace.times[-1] + late,
    )


def _slack(trace: Trace, counters: Sequence[int]) -> float:
    """Seconds between first and last bytes in which a link ran at less than half of its best rate."""
    # Even steps first: the sampler is late now and then.
    steps: list[int] = []
    for t, count in zip(trace.times, counters, strict=True):
        while len(steps) * WINDOW <= t:
            steps.append(count)
    rates = [b - a for a, b in itertools.pairwise(steps)]
    busy = [n for n, rate in enumerate(rates) if rate > BIT]
    if not busy:
        return 0.0
    within = rates[busy[0] : busy[-1] + 1]
    return WINDOW * sum(rate < IDLE * max(within) for rate in within)
