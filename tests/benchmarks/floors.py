"""The floors: what the origin, a link or the machine gives to one program that does nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.rig import BenchError, Content, Rig
from tests.testbed.bed import BedHost
from tests.testbed.network import Link

_WAIT = 'echo; read _; exec "$@"'
Command = Sequence[str | Path]


class Ran(NamedTuple):
    """`cpu`: user and system seconds of all processes, with their children."""

    seconds: float
    cpu: float


def at_once(commands: Sequence[tuple[Link, Command]], timeout: float = 600.0) -> Ran:
    """Starts all commands at one moment; from there until the last has ended.

    Each process is up in its namespace before the clock starts, and waits for a word. Raises
    `BenchError` where one fails.
    """
    go, started = os.pipe()
    running = [
        subprocess.Popen(
            link.inside(["sh", "-c", _WAIT, "sh", *command]),
            stdin=go,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for link, command in commands
    ]
    os.close(go)
    for process in running:
        assert process.stdout
        process.stdout.readline()
    late = threading.Event()

    def stop() -> None:
        late.set()
        for process in running:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)

    watchdog = threading.Timer(timeout, stop)
    watchdog.daemon = True  # whoever is told to end does not wait for it
    watchdog.start()
    clock = time.perf_counter()
    os.close(started)
    cpu, failed = 0.0, []
    for process, (_, command) in zip(running, commands, strict=True):
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += used.ru_utime + used.ru_stime
        if process.returncode:
            failed.append(f"{command[0]}: exit {process.returncode}")
        if process.stdout:
            process.stdout.close()
    seconds = time.perf_counter() - clock
    watchdog.cancel()
    if late.is_set():
        raise BenchError(f"{commands[0][1][0]}: not through after {timeout:g} s")
    if failed:
        raise BenchError("; ".join(failed[:3]))
    return Ran(seconds, cpu)


def curl(rig: Rig, content: Content, hosts: Sequence[BedHost], *, base: str = "") -> Ran:
    """One curl on each of the hosts, each to a file, started at once."""
    return at_once(
        [
            (
                host.link,
                ["curl", "-sf", "-o", rig.scratch(content, host, "curl"), rig.url(content, base)],
            )
            for host in hosts
        ]
    )


def iperf(rig: Rig, host: BedHost, seconds: float = 3.0) -> float:
    """Bytes a second that TCP carries from the origin's namespace to the host."""
    server = rig.origin_link.popen(["iperf3", "-s", "-1", "-B", rig.origin_link.address])
    deadline = time.monotonic() + 10
    while ":5201" not in rig.origin_link.run(["ss", "-Hltn"]):
        if time.monotonic() > deadline:
            raise BenchError("iperf3 does not listen")
        time.sleep(0.02)
    try:
        command = ["iperf3", "-c", rig.origin_link.address, "-R", "-J", "-O", "1", "-t", f"{seconds:g}"]
        found = json.loads(host.link.run(command, timeout=60 + seconds))
        return float(found["end"]["sum_received"]["bits_per_second"]) / 8
    except RuntimeError as error:
        raise BenchError(str(error)[:200]) from None
    finally:
        server.kill()
        server.wait(timeout=20)
