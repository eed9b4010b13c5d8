"""Real peers without Ray: each a process in a network namespace of its own, one scheduler's core for all of them.

`python -m tests.testbed.peers FOLDER NODE` is such a process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.grants import GrantVerifier
from dragonfly_ray.model import Host, Identity
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from tests.swarm import Swarm
from tests.testbed.network import Link
from tests.testbed.wire import Caller, Server

CHECKOUT = Path(__file__).resolve().parents[2]
_SCHEDULER = "scheduler"
START = 60.0
"""Seconds within which a process has its peer."""


# --- where the scheduler is -----------------------------------------------------------------


class FarPeer:
    """What the scheduler has of a peer in another process."""

    def __init__(self, call: Caller, process: subprocess.Popen[bytes], host: Host) -> None:
        self._call, self._process, self.host = call, process, host

    def take(self, sender: str, number: int, message: m.Message) -> None:
        self._call("take", sender, number, m.encode(message))

    def carrying(self) -> m.Message:
        return m.decode(self._call("carrying"))

    def resolve(self, message: m.Message) -> m.Message:
        return m.decode(self._call("resolve", m.encode(message)))

    def ask(self, message: m.Message) -> m.Message:
        return m.decode(self._call("ask", m.encode(message)))

    def look(self, message: m.Message) -> m.Message:
        return m.decode(self._call("look", m.encode(message)))

    def announce(self) -> None:
        self._call("announce")

    def stop(self) -> None:
        """The process with it."""
        self._process.kill()
        self._process.wait(timeout=20)


class FarSwarm(Swarm):
    """A swarm whose peers are processes in the namespaces of their links. `folder`: of stores, sockets and logs."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        super().__init__(folder, 0, settings=settings)
        self._server = Server(folder / _SCHEDULER, {"call": self._called, "setup": self._setup})
        self._setups: dict[str, tuple[Identity, Settings, list[bytes]]] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def launch(self, links: Mapping[str, Link], zones: Mapping[str, str]) -> None:
        """A peer for each node, in the zone that is named for it, and waits until the scheduler knows them all."""
        begun = {node: self._begin(node, link, zones.get(node, "")) for node, link in links.items()}
        for node, process in begun.items():
            self._join(node, process)

    def _begin(self, node: str, link: Link, zone: str) -> subprocess.Popen[bytes]:
        storage = self.settings.storage.model_copy(update={"root": self.root / node})
        settings = self.settings.model_copy(update={"storage": storage})
        self._setups[node] = (Identity(node, link.address, node, idc=zone), settings, self.keys)
        process = link.popen(
            [sys.executable, "-m", "tests.testbed.peers", self.root, node],
            env={"PYTHONPATH": str(CHECKOUT)},
            output=self._log(node),
        )
        self._processes.append(process)
        return process

    def _join(self, node: str, process: subprocess.Popen[bytes]) -> None:
        path = _socket(self.root, node)
        deadline = time.monotonic() + START
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                log = self._log(node)
                raise RuntimeError(f"{node} does not start: {log.read_text()[-500:] if log.exists() else ''}")
            time.sleep(0.02)
        call = Caller(path)
        peer = FarPeer(call, process, call("host"))
        self.peers[node] = self.scheduler.peers[peer.host.id] = cast(PeerNode, peer)
        peer.announce()

    def _log(self, node: str) -> Path:
        return self.root / f"{node}.log"

    def _setup(self, node: str) -> tuple[Identity, Settings, list[bytes]]:
        return self._setups[node]

    def _called(self, message: bytes) -> bytes | None:
        answer = self.scheduler.call(m.decode(message))
        return None if answer is None else m.encode(answer)

    def close(self) -> None:
        """Also after a start that failed half-way."""
        for process in self._processes:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        self.scheduler.stop()
        self._server.close()


def _socket(folder: Path, node: str) -> Path:
    return folder / f"{node}.peer"


# --- where a peer is ------------------------------------------------------------------------


class _Scheduler:
    """The only one, as a peer reaches it."""

    def __init__(self, call: Caller) -> None:
        self._call = call

    def call(self, message: m.Message) -> m.Message | None:
        answer = self._call("call", m.encode(message))
        return None if answer is None else m.decode(answer)

    def of(self, source_id: str) -> SchedulerLink:
        return self

    def every(self) -> Sequence[SchedulerLink]:
        return [self]


class _Mail:
    """Messages are handled in order and never while the scheduler waits: it holds its lock as it sends them."""

    def __init__(self, peer: PeerNode) -> None:
        self._peer = peer
        self._queue: queue.SimpleQueue[tuple[str, int, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def take(self, sender: str, number: int, message: bytes) -> None:
        self._queue.put((sender, number, message))

    def _run(self) -> None:
        while True:
            sender, number, message = self._queue.get()
            self._peer.take(sender, number, m.decode(message))


def _answers(peer: PeerNode) -> Iterable[tuple[str, object]]:
    yield "host", lambda: peer.host
    yield "take", _Mail(peer).take
    yield "carrying", lambda: m.encode(peer.carrying())
    yield "resolve", lambda message: m.encode(peer.queries.resolve(cast(m.Resolve, m.decode(message))))
    yield "ask", lambda message: m.encode(peer.ask(m.decode(message)))
    yield "look", lambda message: m.encode(peer.queries.look(cast(m.Stat, m.decode(message))))
    yield "announce", peer.announce


def main(folder: Path, node: str) -> None:
    """Until whoever started it is gone."""
    parent = os.getppid()
    call = Caller(folder / _SCHEDULER, ClusterError)
    identity, settings, keys = call("setup", node)
    peer = PeerNode(identity, settings, GrantVerifier(keys), _Scheduler(call))
    Server(_socket(folder, node), dict(_answers(peer)))  # type: ignore[arg-type]
    while os.getppid() == parent:
        time.sleep(0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
