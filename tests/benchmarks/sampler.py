"""Bytes over time on every link, from the counters of the switch's ports: they are at the kernel, not at us."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed.network import SWITCH

INTERVAL = 0.1


@dataclass
class Trace:
    """`received` and `sent` bytes by link, one value for each of `times`, as seen by its host."""

    times: list[float] = field(default_factory=list)
    """Seconds since the beginning."""
    began: float = 0.0
    """Unix time."""
    received: dict[str, list[int]] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=dict)
    floor: float = 0.0
    """Seconds that the floor of the same round took."""

    def to_dict(self) -> dict[str, object]:
        return {
            "began": self.began,
            "floor": round(self.floor, 4),
            "times": [round(t, 3) for t in self.times],
            "received": self.received,
            "sent": self.sent,
        }


class Sampler:
    """Reads all counters at once: one file of one process that only waits in the switch's namespace."""

    def __init__(self, ports: Mapping[str, str]) -> None:
        """`ports`: name of a link -> its device on the switch."""
        self._ports = dict(ports)
        self._waiter = subprocess.Popen(["ip", "netns", "exec", SWITCH, "sleep", "infinity"])
        self._file = Path(f"/proc/{self._waiter.pid}/net/dev")
        deadline = time.monotonic() + 10
        while not set(self._ports.values()) <= set(self._table()):
            if time.monotonic() > deadline:
                raise RuntimeError("the switch's ports cannot be read")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._waiter.kill()
        self._waiter.wait()

    def _table(self) -> dict[str, tuple[int, int]]:
        rows = (line.split() for line in self._file.read_text().splitlines()[2:])
        return {row[0].rstrip(":"): (int(row[1]), int(row[9])) for row in rows}

    def counters(self) -> dict[str, tuple[int, int]]:
        """Bytes (received, sent) by each host so far. What the switch sends, the host receives."""
        table = self._table()
        return {name: (table[port][1], table[port][0]) for name, port in self._ports.items()}

    @contextlib.contextmanager
    def record(self, interval: float = INTERVAL) -> Iterator[Trace]:
        """Fills the trace while the block runs."""
        trace = Trace(began=time.time())
        for name in self._ports:
            trace.received[name], trace.sent[name] = [], []
        first, begun, stop = self.counters(), time.monotonic(), threading.Event()

        def look() -> None:
            trace.times.append(time.monotonic() - begun)
            for name, (received, sent) in self.counters().items():
                trace.received[name].append(received - first[name][0])
                trace.sent[name].append(sent - first[name][1])

        def watch() -> None:
            while not stop.wait(interval):
                look()

        look()
        thread = threading.Thread(target=watch, name="sampler", daemon=True)
        thread.start()
        try:
            yield trace
        finally:
            stop.set()
            thread.join()
            look()
