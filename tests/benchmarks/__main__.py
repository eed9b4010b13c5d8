"""Measures cases, or all of them. `--help` says how."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import report as out
from tests.benchmarks.bulk import SETUPS
from tests.benchmarks.cases import CASES, SHORT, Case
from tests.benchmarks.measures import Report, Rounds, say
from tests.benchmarks.rig import BenchError, Rig, unjournaled
from tests.benchmarks.rivals import compete
from tests.benchmarks.timeline import timeline
from tests.testbed import network


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--case", action="append", metavar="NAME", help=f"one of {', '.join(CASES)}; repeat for more"
    )
    parser.add_argument("--full", action="store_true", help="every case")
    parser.add_argument(
        "--rounds", type=int, help="of every case (default: five; fewer of the longest in --full)"
    )
    parser.add_argument("--rivals", action="store_true", help="in A4, A8, B2 and J, too (--full: always)")
    parser.add_argument(
        "--timeline", action="store_true", help=f"one distribution moment by moment ({', '.join(SETUPS)})"
    )
    options = parser.parse_args()
    names = list(CASES) if options.full else [n.upper() for n in options.case or SHORT]
    unknown = [n for n in names if n not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if why := network.available():
        parser.error(f"network namespaces: {why}")
    # So that an end by `kill` or a closed terminal cleans up as well.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    if options.timeline:
        for name in (n for n in names if n in SETUPS):
            with Rig(CASES[name].hosts) as rig:
                timeline(rig, name)
        return 0
    if unjournaled(Path(tempfile.gettempdir())):
        say(f"{tempfile.gettempdir()} is ext4 without a journal: new files are dear for minutes after old ones "
            "were deleted, and case J is not to be trusted; set TMPDIR to a folder on another file system")  # fmt: skip
    chosen = [CASES[name] for name in CASES if name in names]
    rounds = {c.name: options.rounds or (c.full_rounds if options.full else 5) for c in chosen}
    started, reports = time.monotonic(), []
    try:
        for case in (c for c in chosen if c.alone):
            reports.append(Report(case.name))
            _measure(None, case, reports[-1], rounds[case.name], rivals=False)
        for hosts in sorted({case.hosts for case in chosen if case.run}):
            reports += _on_one_bed(
                hosts, [c for c in chosen if c.hosts == hosts], rounds, rivals=options.rivals or options.full
            )
    except KeyboardInterrupt:
        say("interrupted")
    if growth := out.growth(reports):
        reports.append(growth)
    if reports:
        out.show(reports)
        for path in out.write(reports):
            say(f"written: {path}")
    say(f"{time.monotonic() - started:.0f} s in all")
    return 0 if all(m.holds is not False for r in reports for m in r.measures) else 1


def _on_one_bed(hosts: int, cases: Sequence[Case], rounds: dict[str, int], *, rivals: bool) -> list[Report]:
    """All cases for so many hosts. What fails is in its report."""
    reports = [Report(case.name) for case in cases]
    left = list(zip(cases, reports, strict=True))
    while left:
        say(f"{hosts} hosts: starting Ray on each")
        try:
            with Rig(hosts) as rig:
                while left:
                    case, report = left.pop(0)
                    if not _measure(rig, case, report, rounds[case.name], rivals=rivals) and left:
                        rig.heal()
        except (BenchError, RuntimeError, OSError) as error:
            if not left:
                break
            # A bed that does not start or does not recover costs the next case, and the rest get a new one.
            _, report = left.pop(0)
            report.failed(f"no hosts to run on: {error}"[:300])
    return reports


def _measure(rig: Rig | None, case: Case, report: Report, rounds: int, *, rivals: bool) -> bool:
    begun = time.monotonic()
    say(f"{case.name}: {rounds} rounds")
    try:
        if case.alone:
            case.alone(report, Rounds(rounds, case.bound))
        if rig and case.run:
            case.run(rig, report, Rounds(rounds, case.bound))
            if rivals and case.contest:
                compete(rig, report, case.contest)
        return True
    except (BenchError, RuntimeError, OSError, AssertionError, LookupError, TypeError, ValueError) as error:
        say(f"  {case.name} failed: {error}")
        report.failed(f"{type(error).__name__}: {error}"[:300])
        return False
    finally:
        report.seconds = time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
