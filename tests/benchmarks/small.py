"""Cases J, K and L: many small files, one small file, and content that is there already."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.benchmarks import floors
from tests.benchmarks.bulk import ONCE, in_turns
from tests.benchmarks.measures import Report, Rounds, median, say
from tests.benchmarks.rig import MIB, BenchError, Content, Rig, ok
from tests.testbed.bed import BedHost

CONNECTIONS = 16
CALLS = 20
"""Of case K in one round."""
KIB = 1024
KEPT = 2048 * MIB
"""Content of so many bytes in all stays until the case ends."""


def curl_list(
    rig: Rig, content: Content, host: BedHost, base: str = "", connections: int = CONNECTIONS
) -> list[str | Path]:
    """One `curl --parallel` for all files of a folder, its list written beforehand."""
    folder = rig.scratch(content, host, "curl")
    folder.mkdir(exist_ok=True)
    url = rig.url(content, base)
    names = sorted(path.name for path in content.path.iterdir())
    listing = folder.with_suffix(".list")
    listing.write_text("".join(f'url = "{url}{name}"\noutput = "{folder}/{name}"\n' for name in names))
    return ["curl", "-sf", "--parallel", "--parallel-max", str(connections), "--config", listing]


def _folder(
    rig: Rig,
    report: Report,
    rounds: Rounds,
    kept: contextlib.ExitStack,
    *,
    what: str,
    files: int,
    size: int,
    base: str,
    target: float,
) -> None:
    faster = report.measure(f"{what}: curl --parallel on every host ÷ time", target, at_least=True)
    requests = report.measure(f"{what}: requests ÷ files", ONCE, unit="")
    origin = report.measure(f"{what}: N: origin bytes ÷ size", ONCE, unit="MiB")
    rig.calm()
    for number in rounds:
        with contextlib.ExitStack() as stack:
            # What is deleted while others measure makes each new file dear: see `Rig.calm`.
            few = rounds.count * files * size < KEPT
            content = (kept if few else stack).enter_context(rig.content(size, files=files))

            def theirs(content: Content = content, few: bool = few) -> None:
                commands = [(host.link, curl_list(rig, content, host, base)) for host in rig.hosts]
                rig.settle(content)
                faster.floors.append(floors.at_once(commands).seconds)
                rig.settle(content, *([] if few else ["curl"]))

            def ours(content: Content = content) -> None:
                rig.settle(content)
                before = len(rig.hits(content))
                call = ok(rig.distribute(content, base=base))
                hits = rig.hits(content)[before:]
                faster.ours.append(call.seconds)
                requests.add(files, len(hits))
                # Listings are not content.
                sent = sum(hit.sent for hit in hits if not hit.path.endswith("/") and hit.method != "HEAD")
                origin.add(content.size / MIB, sent / MIB)
                report.traces[f"{report.case} {what}"] = call.trace

            in_turns(number, theirs, ours)
        report.traces[f"{report.case} {what}"].floor = faster.floors[-1]
        faster.ratios.append(faster.floors[-1] / faster.ours[-1])
        say(f"  J {what}, round {number + 1}/{rounds.count}: curl {faster.floors[-1]:.2f} s, ours "
            f"{faster.ours[-1]:.2f} s: {faster.ratios[-1]:.2f} times as fast, requests ÷ files "
            f"{requests.ratios[-1]:.4f}")  # fmt: skip


def j(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(None, None)
    rig.settings({})
    plain = rig.bed.origin.url
    with contextlib.ExitStack() as kept:
        _folder(rig, report, rounds, kept, what="10,000 × 4 KiB", files=10_000, size=4 * KIB, base=plain,
                target=1.5)  # fmt: skip
        _folder(rig, report, rounds, kept, what="10,000 × 4 KiB, 20 ms a request", files=10_000, size=4 * KIB,
                base=rig.slow_origin, target=4.0)  # fmt: skip
        _folder(rig, report, rounds, kept, what="3,000 × 700 KB", files=3_000, size=700_000, base=plain,
                target=2.0)  # fmt: skip


def one_small(rig: Rig) -> tuple[float, float]:
    """Seconds of one curl on each host at once, and of ours, for 64 KiB."""
    with rig.content(64 * KIB) as content:
        floor = floors.curl(rig, content, rig.hosts).seconds
        return floor, ok(rig.distribute(content)).seconds


def k(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(None, None)
    rig.settings({})
    p50 = report.measure("64 KiB to all: p50 of the call ÷ a curl on each at once", 3.0, unit="ms")
    for _ in range(3):
        one_small(rig)
    for number in rounds:
        pairs = [one_small(rig) for _ in range(CALLS)]
        p50.add(median([x for x, _ in pairs]) * 1000, median([y for _, y in pairs]) * 1000)
        say(f"  K round {number + 1}/{rounds.count}: p50 of {CALLS}: curls {p50.floors[-1]:.1f} ms, ours "
            f"{p50.ours[-1]:.1f} ms = {p50.ratios[-1]:.2f}")  # fmt: skip


def l(rig: Rig, report: Report, rounds: Rounds) -> None:
    """Into a `dest` on the stores' own file system, after one distribution that hashed it all."""
    rig.shape(None, None)
    rig.settings({})
    known = report.measure("1 GiB that all have, to dest: time ÷ K's p50", 1.5, unit="ms")
    with rig.content(1024 * MIB) as content:
        ok(rig.distribute(content, name="before", check=False))
        for number in rounds:
            small = median([one_small(rig)[1] for _ in range(CALLS // 2)])
            # The file system is not to be busy with writing what came before.
            os.sync()
            calls = [
                ok(rig.distribute(content, name=f"again{number}-{n}", check=number + n == 0))
                for n in range(CALLS // 4)
            ]
            if any(call.trace.received["1"][-1] > content.size // 2 for call in calls):
                raise BenchError("it was fetched again")
            ours = median([call.seconds for call in calls])
            known.add(small * 1000, ours * 1000)
            say(f"  L round {number + 1}/{rounds.count}: K {small * 1000:.1f} ms, ours {ours * 1000:.1f} ms "
                f"= {known.ratios[-1]:.2f}")  # fmt: skip
