"""Whether the tests always pass: suites many times over, and everything while the processors are busy.

    python -m tests.endurance [--rounds 10] [--loaded 2] [--lanes 1] [--folder endurance-results] [--again]

The cluster, testbed and fault suites run `--rounds` times, then all tests `--loaded` times beside two busy loops.
Each run's last line goes to FOLDER/COMMIT/results.jsonl, what failed to failures.txt there, its whole output to a
log beside them. Started again on the same commit it goes on behind the last run that ended; `--again` begins anew.
Ends with 0 if every run passed.

`--lanes 2`: two runs at a time, each with a network, processes, shared memory and a Ray folder of its own (needs
root); the runs then are beside each other, too. `--suites PATH...`: the rounds run these instead.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PYTEST = (sys.executable, "-m", "pytest", "-q")
SUITES = ("tests/cluster", "tests/testbed", "tests/unit/swarm")
WHOLE = ("tests/manager", "tests/unit", "tests/conformance", "tests/console")
ON_RAY = ("tests/cluster", "tests/testbed")
BUSY_LOOPS = 2
TIMEOUT = 3600.0
"""Seconds for one run; it takes a fifth of that."""
_PR_SET_PDEATHSIG = 1
_SPIN = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"


@dataclass(frozen=True)
class Step:
    """One run. `commands` go one after the other, whether the earlier ones pass or not."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    busy: int = 0


@dataclass(frozen=True)
class Result:
    name: str
    passed: bool
    seconds: float
    lines: tuple[str, ...]
    """The last one of each command."""
    ended: float
    """Unix time."""


def plan(rounds: int, loaded: int, suites: Sequence[str] = SUITES) -> list[Step]:
    steps = [Step(f"suites-{n:02}", ((*PYTEST, *suites),)) for n in range(1, rounds + 1)]
    whole = ((*PYTEST, "--numprocesses", "3", *WHOLE), (*PYTEST, *ON_RAY))
    return steps + [Step(f"whole-beside-busy-loops-{n:02}", whole, BUSY_LOOPS) for n in range(1, loaded + 1)]


class Journal:
    """What has ended, in a folder. A line that was cut short counts as not ended."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._path = folder / "results.jsonl"

    def results(self) -> dict[str, Result]:
        found: dict[str, Result] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_text().splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    values = json.loads(line)
                    result = Result(**values | {"lines": tuple(values["lines"])})
                    found[result.name] = result
        return found

    def add(self, result: Result, failures: Sequence[str]) -> None:
        if failures:
            with (self.folder / "failures.txt").open("a") as file:
                file.writelines(f"{result.name}: {line}\n" for line in failures)
        with self._path.open("a") as file:
            # A line of its own, also behind one that was cut short.
            file.write("\n" + json.dumps(asdict(result)) + "\n")
            file.flush()
            os.fsync(file.fileno())


_LANE = """
mount --make-rprivate /
mkdir -p /tmp/ray /run/netns
mount -t tmpfs -o mode=1777 tmpfs /tmp/ray
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip link add way-out type veth peer name way-in
ip link set way-in up
ip address add 10.200.0.2/24 dev way-out
ip link set way-out up
ip route add default via 10.200.0.1
export TMPDIR=$(mktemp --directory /tmp/lane-XXXXXX)
trap 'rm -rf "$TMPDIR"' EXIT
"$@"
"""
"""The shell stays, as the one that takes over whoever lost its parent: what has ended is gone then. A way out that
leads nowhere is enough for Ray to find the node's address."""


_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def run_lanes(lanes: int, command: Sequence[str]) -> bool:
    """`command` so many times at once, with `--lane NUMBER` at its end; whether all ended with 0.

    What runs in a lane ends with it, and all lanes end with this process."""
    libc = ctypes.CDLL(None)
    started = [
        subprocess.Popen(
            (*_NAMESPACES, "bash", "-euc", _LANE, "lane", *command, "--lane", str(number)),
            cwd=CHECKOUT,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509, no other threads
        )
        for number in range(lanes)
    ]
    try:
        codes = [process.wait() for process in started]
        return not any(codes)
    finally:
        for process in started:
            process.kill()
            process.wait()


def run_all(steps: Sequence[Step], journal: Journal, timeout: float = TIMEOUT) -> bool:
    """Whether all passed, those included that ended before."""
    done = journal.results()
    for step in steps:
        if step.name in done:
            print(
                f"{step.name}: ended before, {'passed' if done[step.name].passed else 'FAILED'}", flush=True
            )
            continue
        result, failures = run(step, journal.folder / f"{step.name}.log", timeout)
        journal.add(result, failures)
        done[step.name] = result
        word = "passed" if result.passed else "FAILED"
        print(f"{step.name}: {word} in {result.seconds:.0f} s: {'; '.join(result.lines)}", flush=True)
        for line in failures:
            print(f"    {line}", flush=True)
    return all(done[step.name].passed for step in steps)


def run(step: Step, log: Path, timeout: float) -> tuple[Result, list[str]]:
    """The result, and the lines that name what failed."""
    started = time.monotonic()
    lines, failures, passed = [], [], True
    with busy(step.busy, timeout * len(step.commands)), log.open("w") as output:
        for command in step.commands:
            code = _run(command, output.fileno(), timeout)
            said = log.read_text(errors="replace").rstrip().splitlines()
            lines.append(said[-1] if said else f"exit {code}")
            passed = passed and code == 0
            if code == -signal.SIGKILL:
                failures.append(f"ended after {timeout:.0f} s: {' '.join(command)}")
            output.seek(0, os.SEEK_END)
        failures += [line for line in said if re.match(r"(FAILED|ERROR) |skipped, and not in", line)]
    return Result(step.name, passed, time.monotonic() - started, tuple(lines), time.time()), failures


def _run(command: Sequence[str], output: int, timeout: float) -> int:
    """Its exit code; whatever it has started ends with it, and what it left in the temporary folder is gone."""
    folder = tempfile.mkdtemp(prefix="run-")
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        env=os.environ | {"TMPDIR": folder},
    )  # fmt: skip
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        # Also on an interrupt: pytest puts away what it has started, and then is gone.
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def busy(loops: int, seconds: float) -> Iterator[list[int]]:
    """So many processes that do nothing but turn; they end with this block, with this process, and by themselves."""
    libc = ctypes.CDLL(None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _SPIN.format(seconds=seconds)],
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509, no other threads
        )
        for _ in range(loops)
    ]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def commit() -> str:
    """Of the checkout; with a mark if it has changes that are not committed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        "-changed" * bool(git("status", "--porcelain"))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests.endurance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--loaded", type=int, default=2)
    parser.add_argument("--lanes", type=int, default=1, help="so many runs at a time")
    parser.add_argument("--suites", nargs="+", default=SUITES, help="what the rounds run")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=CHECKOUT / "endurance-results")
    parser.add_argument("--again", action="store_true", help="forget what ended before on this commit")
    given = parser.parse_args(arguments)
    folder = given.folder.absolute() / commit()
    if given.again:
        shutil.rmtree(folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    steps = plan(given.rounds, given.loaded, given.suites)
    try:
        if given.lanes > 1 and given.lane is None:
            told = [a for a in (sys.argv[1:] if arguments is None else arguments) if a != "--again"]
            passed = run_lanes(given.lanes, (sys.executable, "-m", "tests.endurance", *told))
        else:
            passed = run_all(steps[given.lane or 0 :: given.lanes], Journal(folder))
        return 0 if passed else 1
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on ({folder})", flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
