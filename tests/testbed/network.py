"""Network namespaces on a bridge, each with a link of its own rate in both directions. Needs root."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests import programs

PREFIX = os.environ.get("DRAGONFLY_TESTBED_PREFIX", "dfray-")
"""Of all namespaces. What bears it is removed at the start: two beds at one time need two of them."""
SWITCH = f"{PREFIX}sw"
BRIDGE = "br0"
NETWORK = "10.77.0"


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def available() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if os.geteuid():
        return "needs root"
    for program in ("ip", "curl"):
        if programs.find(program) is None:
            return f"without {program}"
    try:
        run("ip", "netns", "add", f"{PREFIX}probe")
        run("ip", "netns", "del", f"{PREFIX}probe")
    except (RuntimeError, FileNotFoundError) as error:
        return f"without network namespaces ({error})"
    return ""


def namespaces() -> list[str]:
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.startswith(PREFIX)]


def processes(namespace: str) -> list[int]:
    return [int(pid) for pid in run("ip", "netns", "pids", namespace, check=False).split()]


def kill_all(namespace: str, grace: float = 10.0) -> None:
    """Every process in the namespace, and waits until they are gone."""
    deadline = time.monotonic() + grace
    while pids := processes(namespace):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{namespace}: processes {pids} do not die")
        time.sleep(0.02)


def remove_all() -> None:
    """Whatever an earlier run has left."""
    for namespace in namespaces():
        with contextlib.suppress(RuntimeError):
            kill_all(namespace)
        run("ip", "netns", "del", namespace, check=False)


def shape(namespace: str, device: str, mbit: int | None) -> None:
    """The rate of what leaves the device; None: as fast as the machine is."""
    run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root", check=False)
    if mbit:
        run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{mbit}mbit",
            "burst", "256kb", "latency", "50ms")  # fmt: skip


def counters(namespace: str, device: str) -> tuple[int, int]:
    """Bytes (received, sent) by the device, with their headers."""
    (row,) = json.loads(run("ip", "-n", namespace, "-s", "-j", "link", "show", device))
    return row["stats64"]["rx"]["bytes"], row["stats64"]["tx"]["bytes"]


class Link:
    """One namespace's interface `eth0` and its other end on a bridge."""

    def __init__(self, name: str, number: int, bridge: str = BRIDGE) -> None:
        self.bridge = bridge
        self.namespace = f"{PREFIX}{name}"
        self.port = f"p{number}"
        self.address = f"{NETWORK}.{number}"

    def create(self, mbit: int | None) -> None:
        run("ip", "netns", "add", self.namespace)
        run(
            "ip",
            "-n",
            SWITCH,
            "link",
            "add",
            self.port,
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            self.namespace,
        )
        run("ip", "-n", SWITCH, "link", "set", self.port, "master", self.bridge, "up")
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.namespace, "link", "set", "eth0", "up")
        # Nothing is out there: with a route, programs that ask for their own address find this one.
        run("ip", "-n", self.namespace, "route", "add", "default", "dev", "eth0")
        self.shape(mbit)

    def shape(self, mbit: int | None) -> None:
        """The rate in both directions; None: as fast as the machine is."""
        for namespace, device in ((self.namespace, "eth0"), (SWITCH, self.port)):
            shape(namespace, device, mbit)

    def cut(self) -> None:
        """Silently: nobody hears a reset."""
        run("ip", "-n", SWITCH, "link", "set", self.port, "down")

    def mend(self) -> None:
        run("ip", "-n", SWITCH, "link", "set", self.port, "up")

    def counters(self) -> tuple[int, int]:
        """Bytes (received, sent) by this host."""
        return counters(self.namespace, "eth0")

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """The command that runs `command` in the namespace."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def popen(
        self, command: Sequence[str | Path], env: dict[str, str] | None = None, output: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process in the namespace."""
        target = subprocess.DEVNULL if output is None else output.open("ab")
        return subprocess.Popen(
            self.inside(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(
        self, command: Sequence[str | Path], env: dict[str, str] | None = None, timeout: float = 600.0
    ) -> str:
        """Runs a process in the namespace to its end; its output. Raises if it fails."""
        done = subprocess.run(
            self.inside(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"{command[0]}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done.stdout


def create_switch() -> None:
    run("ip", "netns", "add", SWITCH)
    create_bridge(BRIDGE)


def create_bridge(name: str) -> None:
    run("ip", "-n", SWITCH, "link", "add", name, "type", "bridge")
    run("ip", "-n", SWITCH, "link", "set", name, "up")


class Zone:
    """A bridge of its own for hosts, and a link of its own rate from there to the one that joins all zones."""

    def __init__(self, number: int) -> None:
        self.name = f"z{number}"
        self.bridge = f"br-{self.name}"
        self._inner, self._outer = f"{self.name}-in", f"{self.name}-out"

    def create(self, mbit: int | None) -> None:
        """After the switch."""
        create_bridge(self.bridge)
        run("ip", "-n", SWITCH, "link", "add", self._inner, "type", "veth", "peer", self._outer)
        for device, bridge in ((self._inner, self.bridge), (self._outer, BRIDGE)):
            run("ip", "-n", SWITCH, "link", "set", device, "master", bridge, "up")
            shape(SWITCH, device, mbit)

    def counters(self) -> tuple[int, int]:
        """Bytes that came (into the zone, out of it), with their headers."""
        return counters(SWITCH, self._inner)
