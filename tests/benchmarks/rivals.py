"""The rivals (case M): what else puts the same bytes on the same hosts, each at the best of three settings."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import floors
from tests.benchmarks.measures import Report, median, say
from tests.benchmarks.rig import BenchError, Content, Rig, digest
from tests.benchmarks.small import curl_list
from tests.testbed.bed import CHECKOUT, BedHost

TRIAL = 8
"""The settings are compared on so small a share of the content."""
TIMEOUT = 400.0
Run = Callable[[Rig, Content], float]


@dataclass(frozen=True)
class Contest:
    """The content of a case, for its rivals."""

    size: int
    files: int = 0

    def trial(self) -> Contest:
        if self.files:
            return Contest(self.size, self.files // TRIAL)
        return Contest(self.size // TRIAL)


def compete(rig: Rig, report: Report, contest: Contest) -> None:
    """A line for each rival: its time ÷ our median in the same run. One that fails says so."""
    timed = report.measures[0]
    if not timed.ours:
        return
    ours = median(timed.ours)
    for name, settings in rivals_of(contest).items():
        measure = report.measure(f"M: {name} ÷ ours", rival=True)
        try:
            tried: dict[str, float] = {}
            why = ""
            for label, run in settings.items():
                try:
                    with _content(rig, contest.trial()) as content:
                        tried[label] = run(rig, content)
                except (BenchError, subprocess.SubprocessError) as error:
                    why = f"{label}: {error}"
                    say(f"  {report.case} {name}, {why}"[:300])
            if not tried:
                raise BenchError(f"none of its settings came through; {why}")
            best = min(tried, key=lambda label: tried[label])
            with _content(rig, contest) as content:
                seconds = settings[best](rig, content)
            measure.add(seconds, ours, seconds / ours)
            measure.note = best
            measure.trials = tried
            trials = ", ".join(f"{label} {t:.2f} s" for label, t in tried.items())
            say(f"  {report.case} {name}: {seconds:.2f} s = {seconds / ours:.2f} × ours; "
                f"with 1/{TRIAL} of it: {trials}")  # fmt: skip
        except (BenchError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            measure.error = f"{name}: {error}"[:300]
            say(f"  {report.case} {measure.error}")


def _content(rig: Rig, contest: Contest) -> contextlib.AbstractContextManager[Content]:
    return rig.content(contest.size, files=contest.files)


def rivals_of(contest: Contest) -> dict[str, dict[str, Run]]:
    """Name -> label of a setting -> what runs it."""
    curls: dict[str, Run] = (
        {f"-Z --parallel-max {n}": _curl_files(n) for n in (4, 16, 64)}
        if contest.files
        else {"one connection": _curl_ranges(1), "4 ranges": _curl_ranges(4), "16 ranges": _curl_ranges(16)}
    )
    arias: dict[str, Run] = (
        {f"-j{n}": _aria(f"-j{n}", "-x1") for n in (4, 16, 64)}
        if contest.files
        else {f"-x{n} -s{n} -k1M": _aria(f"-x{n}", f"-s{n}", "-k1M") for n in (1, 4, 16)}
    )
    return {
        "curl on every host": curls,
        "aria2c": arias,
        "libtorrent": {
            "256 KiB pieces": _Torrent(256),
            "1 MiB pieces": _Torrent(1024),
            "1 MiB pieces, web seed": _Torrent(1024, web=True),
        },
        "Ray's objects": {
            "one object, all at once": _ray(1, False),
            "8 objects, all at once": _ray(8, False),
            "one object, in a tree": _ray(1, True),
        },
    }


# --- curl and aria2c ----------------------------------------------------------------------------


def _curl_files(connections: int) -> Run:
    def run(rig: Rig, content: Content) -> float:
        commands = [(h.link, curl_list(rig, content, h, connections=connections)) for h in rig.hosts]
        return floors.at_once(commands, TIMEOUT).seconds

    return run


def _curl_ranges(parts: int) -> Run:
    """Each part to a file of its own; joining them is not counted."""

    def run(rig: Rig, content: Content) -> float:
        if parts == 1:
            return floors.curl(rig, content, rig.hosts).seconds
        commands = []
        for host in rig.hosts:
            listing = rig.scratch(content, host, "curl").with_suffix(".list")
            step = -(-content.size // parts)
            listing.write_text(
                "next\n".join(
                    f'url = "{rig.url(content)}"\nrange = "{at}-{min(content.size, at + step) - 1}"\n'
                    f'output = "{listing}.{at}"\nsilent\nfail\n'
                    for at in range(0, content.size, step)
                )
            )
            commands.append(
                (host.link, ["curl", "-sf", "-Z", "--parallel-immediate", "--config", str(listing)])
            )
        return floors.at_once(commands, TIMEOUT).seconds

    return run


def _aria(*options: str) -> Run:
    def run(rig: Rig, content: Content) -> float:
        commands = []
        for host in rig.hosts:
            path = rig.scratch(content, host, "aria")
            command = ["aria2c", "--no-conf", "-q", "--file-allocation=none", "--auto-save-interval=0",
                       "--max-connection-per-server=16", *options]  # fmt: skip
            url = rig.url(content)
            if content.is_folder:
                listing = path.with_suffix(".list")
                listing.write_text("".join(f"{url}{p.name}\n" for p in content.path.iterdir()))
                command += ["-d", str(path), "-i", str(listing)]
            else:
                command += ["-d", str(path.parent), "-o", path.name, url]
            commands.append((host.link, command))
        return floors.at_once(commands, TIMEOUT).seconds

    return run


# --- libtorrent ---------------------------------------------------------------------------------


class _Torrent:
    """`piece` in KiB. Without `web` a seeder runs beside the origin; hashing is done beforehand."""

    def __init__(self, piece: int, *, web: bool = False) -> None:
        self._piece, self._web = piece, web

    def __call__(self, rig: Rig, content: Content) -> float:
        torrent: Path = rig.bed.folder / f"{content.name}.torrent"
        tool: list[str | Path] = [sys.executable, "-m", "tests.benchmarks.torrent"]
        make = [*tool, "make", str(torrent), str(content.path), "--piece", str(self._piece * 1024)]
        if self._web:
            # A folder's name is appended to the address of its seed.
            make += ["--web-seed", f"{rig.bed.origin.url}/{'' if content.is_folder else content.name}"]
        subprocess.run(make, check=True, cwd=CHECKOUT, stderr=subprocess.DEVNULL, timeout=TIMEOUT)
        running: list[subprocess.Popen[str]] = []
        expired = threading.Event()

        def end() -> None:
            expired.set()
            for each in running:
                each.kill()

        watchdog = threading.Timer(TIMEOUT, end)
        watchdog.start()
        try:
            if not self._web:
                address = rig.origin_link.address
                seed = [*tool, "run", torrent, content.path.parent, "--address", address, "--seed"]
                running.append(_start(rig.origin_link.inside(seed)))
                _hear(running[0], "ready")
                _go(running[0])
            for host in rig.hosts:
                running.append(_start(host.link.inside(self._fetch(rig, content, host, torrent, tool))))
                _hear(running[-1], "ready")
            clock = time.perf_counter()
            for each in running[-len(rig.hosts) :]:
                _go(each)
            for each in running[-len(rig.hosts) :]:
                _hear(each, "done")
            seconds = time.perf_counter() - clock
            for each in running[-len(rig.hosts) :]:
                # It says that it has a piece before all of it is written: killed now, it would leave holes.
                _end(each)
        finally:
            watchdog.cancel()
            for each in running:
                each.kill()
                each.wait(timeout=20)
            torrent.unlink(missing_ok=True)
        for host in rig.hosts:
            if digest(rig.scratch(content, host, "torrent") / content.name) != digest(content.path):
                raise BenchError("other bytes than the origin's")
        return seconds

    def _fetch(
        self, rig: Rig, content: Content, host: BedHost, torrent: Path, tool: list[str | Path]
    ) -> list[str | Path]:
        # Each knows those before it: one connection for each pair.
        peers = [h.address for h in rig.hosts[: host.number]]
        if not self._web:
            peers.insert(0, rig.origin_link.address)
        folder = rig.scratch(content, host, "torrent")
        folder.mkdir(exist_ok=True)
        known = [word for peer in peers for word in ("--peer", peer)]
        return [*tool, "run", torrent, folder, "--address", host.address, *known]


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=CHECKOUT,
    )


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait(timeout=60)


def _hear(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout
    while line := process.stdout.readline():
        if line.strip() == word:
            return
    raise BenchError(f"a libtorrent process ended before it said {word!r}")


# --- Ray ----------------------------------------------------------------------------------------


def _ray(parts: int, tree: bool) -> Run:
    def run(rig: Rig, content: Content) -> float:
        paths = {host.address: str(rig.scratch(content, host, "ray")) for host in rig.hosts}
        first = rig.hosts[0]
        if content.is_folder:
            command = [str(word) for word in curl_list(rig, content, first)]
            paths[first.address] = str(rig.scratch(content, first, "curl"))
        else:
            command = ["curl", "-sf", "-o", paths[first.address], rig.url(content)]
        arguments: Mapping[str, Any] = {"command": command, "paths": paths, "parts": parts, "tree": tree}
        return float(rig.driver.ask("broadcast", timeout=TIMEOUT, **arguments))

    return run
