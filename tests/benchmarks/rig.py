"""The testbed, dressed for measuring: a driver that stays, fresh content, the sampler, and its own broom."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import blake3
import numpy as np

from tests.benchmarks.measures import say
from tests.benchmarks.sampler import INTERVAL, Sampler, Trace
from tests.nginx import MODULES, Hit
from tests.testbed.bed import CHECKOUT, BedHost, Testbed
from tests.testbed.network import Link

MIB = 1 << 20
START_TIMEOUT = 180.0
BLOCK = 64 * MIB
FORGOTTEN = 65.0
"""Seconds after which files that were deleted slow nothing down any more: see `Rig.calm`."""
SLOW = "slow"
"""Below this path nginx waits 20 ms before each answer, as object stores do."""
_WAITING = f"location ~ ^/{SLOW}(/.*)$ {{ echo_sleep 0.02; echo_exec $1; }}"
_ECHO = MODULES / "ngx_http_echo_module.so"
_random = np.random.Generator(np.random.SFC64())


def unjournaled(folder: Path) -> bool:
    """Whether `folder` lies on ext4 that has no journal: see `Rig.calm`."""
    device = folder.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    return Path("/proc/fs/ext4", name).exists() and not list(Path("/proc/fs").glob(f"jbd2/{name}-*"))


class BenchError(RuntimeError):
    """A case cannot be measured: it says so in the table, and the rest go on."""


@dataclass(frozen=True)
class Content:
    """A file or folder at the origin that no host has seen."""

    name: str
    path: Path
    size: int
    is_folder: bool
    urls: set[str] = field(default_factory=set, compare=False)
    """By which it was distributed."""


@dataclass(frozen=True)
class Call:
    """One `distribute`, as its driver saw it."""

    started: float
    """Unix time of the call."""
    seconds: float
    size: int
    outcomes: dict[str, dict[str, Any]]
    """By address."""
    trace: Trace
    visible: dict[str, float]
    """Address -> seconds from the call until its output was there, as its folder says."""

    @property
    def audited(self) -> int:
        """Bytes that were read at the origin a second time, to compare."""
        return sum(o["bytes_audit"] for o in self.outcomes.values())

    @property
    def failed(self) -> dict[str, str]:
        return {a: str(o["error"]) for a, o in self.outcomes.items() if not o["ok"]}


class BenchDriver:
    """The driver process on one host. One order at a time."""

    def __init__(self, bed: Testbed, host: BedHost) -> None:
        log = (bed.folder / "driver.log").open("ab")
        self._process = subprocess.Popen(
            host.link.inside([sys.executable, "-m", "tests.benchmarks.driver", bed.address, host.address]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, **bed.environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._log = bed.folder / "driver.log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self._answer(START_TIMEOUT)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            if line.startswith("{"):
                self._lines.put(line)
        self._lines.put(None)

    def send(self, order: str, **arguments: Any) -> None:
        """Without waiting for the answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"order": order, "arguments": arguments}) + "\n")
        self._process.stdin.flush()

    def receive(self, timeout: float) -> Any:
        """The answer to the order that was sent. Raises `BenchError`."""
        return self._answer(timeout)

    def ask(self, order: str, *, timeout: float = 120.0, **arguments: Any) -> Any:
        self.send(order, **arguments)
        return self._answer(timeout)

    def _answer(self, timeout: float) -> Any:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise BenchError(f"the driver has not answered for {timeout:g} s") from None
        if line is None:
            raise BenchError(f"the driver has ended: {self._log.read_text()[-500:]}")
        found = json.loads(line)
        if "error" in found:
            raise BenchError(found["error"])
        return found["answer"]

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        if self.alive:
            self._process.kill()
        self._process.wait(timeout=20)


class Rig:
    """`hosts` hosts and an origin. Links are given to each case by `shape`."""

    def __init__(self, hosts: int) -> None:
        self.count = hosts
        self.bed = Testbed(
            hosts,
            mbit=None,
            origin_mbit=None,
            object_store=400 * MIB,
            nginx=_WAITING if _ECHO.exists() else "",
            modules=[_ECHO] if _ECHO.exists() else [],
        )
        self._number = 0
        self._deleted = float("-inf")
        self._changes: dict[str, Any] = {}
        self._rates: dict[str, int | None] = {}

    def __enter__(self) -> Self:
        self.bed.__enter__()
        try:
            ports = {str(h.number): h.link.port for h in self.hosts} | {"origin": self.origin_link.port}
            self.sampler = Sampler(ports)
            self.driver = BenchDriver(self.bed, self.hosts[0])
            self.driver.ask("up", changes={}, timeout=START_TIMEOUT)
        except BaseException:
            self.bed.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sampler.close()
        self.bed.close()
        self.driver.close()

    @property
    def hosts(self) -> list[BedHost]:
        return self.bed.hosts

    @property
    def origin_link(self) -> Link:
        return self.bed.origin_link

    # --- the state that a case asks for -----------------------------------------------------

    def shape(self, mbit: int | Sequence[int | None] | None, origin: int | None) -> None:
        """Rates in Mbit/s, of all hosts or of each; None: as fast as the machine is."""
        each = list(mbit) if isinstance(mbit, Sequence) else [mbit] * self.count
        links = [(h.link, rate) for h, rate in zip(self.hosts, each, strict=True)]
        for link, rate in [*links, (self.origin_link, origin)]:
            if self._rates.get(link.namespace, 0) != rate:
                link.shape(rate)
                self._rates[link.namespace] = rate

    def settings(self, changes: Mapping[str, Any]) -> None:
        """Actors with these settings, started anew if they differ from those that run."""
        if self._changes != changes:
            self.driver.ask("down")
            self._changes = dict(changes)
            self.driver.ask("up", changes=self._changes, timeout=START_TIMEOUT)

    def new_driver(self) -> None:
        """Another process, which has called nothing yet."""
        self.driver.close()
        self.driver = BenchDriver(self.bed, self.hosts[0])

    def heal(self) -> None:
        """Every host up again, with a peer that has shown that it works. Raises `BenchError`."""
        for host in self.hosts:
            host.mend()
            if not host.running:
                host.kill()
                host.start_ray()
                self.bed.wait_nodes(self.count)
        if not self.driver.alive:
            self.driver = BenchDriver(self.bed, self.hosts[0])
        self.driver.ask("up", changes=self._changes, timeout=START_TIMEOUT)
        wanted = {host.address for host in self.hosts}
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            up = {a for a, state in self.driver.ask("states").items() if state == "healthy"}
            if up == wanted and set(self.driver.ask("refresh")) == wanted:
                with self.content(1000) as tiny, contextlib.suppress(BenchError):
                    if not self.distribute(tiny, timeout=30).failed:
                        return
            if time.monotonic() > deadline:
                raise BenchError(f"hosts that do not come back: {', '.join(sorted(wanted - up)) or 'none'}")
            time.sleep(0.5)

    # --- content ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def content(self, size: int, *, files: int = 0) -> Iterator[Content]:
        """A file of `size` random bytes at the origin, or `files` files of `size` each; gone afterwards.

        So are its copies in the stores, and its outputs.
        """
        self._number += 1
        path = self.bed.origin.root / f"c{self._number:05}"
        if files:
            path.mkdir()
            for number in range(files):
                random_file(path / f"{number}.bin", size)
        else:
            random_file(path, size)
        content = Content(path.name, path, size * max(1, files), bool(files))
        try:
            yield content
        finally:
            if files:
                shutil.rmtree(path)
                self._deleted = time.monotonic()
            else:
                path.unlink()
            shutil.rmtree(self.outputs(content), ignore_errors=True)
            for url in content.urls if self.driver.alive else ():
                try:
                    self.driver.ask("evict", url=url)
                except BenchError as error:
                    say(f"  {url} stays in the stores: {error}")

    def url(self, content: Content, base: str = "") -> str:
        return f"{base or self.bed.origin.url}/{content.name}{'/' if content.is_folder else ''}"

    def outputs(self, content: Content) -> Path:
        """What belongs to one content, of all hosts."""
        return self.bed.folder / "out" / content.name

    def scratch(self, content: Content, host: BedHost, name: str) -> Path:
        """Where another program on a host writes its copy."""
        folder = self.outputs(content) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / str(host.number)

    def settle(self, content: Content, *names: str) -> None:
        """Drops those copies of the content, and waits until the disk has nothing left to write.

        What is measured next competes with no writing but its own.
        """
        for name in names:
            shutil.rmtree(self.outputs(content) / name, ignore_errors=True)
        os.sync()

    def calm(self) -> None:
        """Waits until no folder of many files was deleted lately.

        Without a journal, ext4 passes over inodes freed within a minute (or within six, where others of their
        block are not on the disk yet), one by one: making files is several times as dear.
        """
        os.sync()
        time.sleep(max(0.0, FORGOTTEN - (time.monotonic() - self._deleted)))

    # --- ours -------------------------------------------------------------------------------

    def distribute(
        self,
        content: Content,
        *,
        targets: Sequence[BedHost] | None = None,
        base: str = "",
        url: str = "",
        timeout: float = 300.0,
        check: bool = True,
        name: str = "ours",
        interval: float = INTERVAL,
    ) -> Call:
        """The clock of all cases. Every byte of every output is compared afterwards."""
        with self.sampler.record(interval) as trace:
            self.start(content, targets=targets, base=base, url=url, timeout=timeout, name=name)
            found = self.driver.receive(timeout + 60)
        return self.finish(content, found, trace, check=check)

    def start(
        self,
        content: Content,
        *,
        targets: Sequence[BedHost] | None = None,
        base: str = "",
        url: str = "",
        timeout: float = 300.0,
        name: str = "ours",
    ) -> None:
        dest = self.outputs(content) / name / "{node}" / "f"
        url = url or self.url(content, base)
        content.urls.add(url)
        self.driver.send(
            "distribute",
            url=url,
            dest=str(dest),
            targets=None if targets is None else [host.address for host in targets],
            timeout=timeout,
        )

    def finish(self, content: Content, found: Mapping[str, Any], trace: Trace, *, check: bool = True) -> Call:
        """What the driver answered, checked. Raises `BenchError` for bytes that differ."""
        visible = {}
        wanted = digest(content.path) if check else ""
        for address, outcome in found["outcomes"].items():
            if not outcome["ok"]:
                continue
            path = Path(outcome["path"])
            # The rename into place was the last change of the folder that holds it.
            visible[address] = path.parent.stat().st_mtime - found["started"]
            if check and digest(path) != wanted:
                raise BenchError(f"{path}: other bytes than the origin's")
        return Call(found["started"], found["seconds"], found["size"], found["outcomes"], trace, visible)

    @property
    def slow_origin(self) -> str:
        """The base of URLs that nginx waits for. Raises `BenchError` where it has no module for it."""
        if not _ECHO.exists():
            raise BenchError(f"{_ECHO} is missing: install libnginx-mod-http-echo")
        return f"{self.bed.origin.url}/{SLOW}"

    def hits(self, content: Content) -> list[Hit]:
        """The lines of nginx's log about `content`."""
        return [hit for hit in self.bed.origin.hits() if hit.path.startswith(f"/{content.name}")]

    def sent(self, content: Content) -> int:
        """Bytes of bodies of `content` that left nginx so far."""
        return self.bed.origin.sent(f"/{content.name}")


def ok(call: Call) -> Call:
    """Raises `BenchError` unless every node has it."""
    if call.failed:
        raise BenchError("; ".join(f"{a}: {e}" for a, e in call.failed.items())[:300])
    return call


def random_file(path: Path, size: int) -> None:
    """Bytes that no other file has."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(_random.bytes(min(size, BLOCK)))


def digest(path: Path) -> str:
    """Of a file, or of every file's name and bytes in a folder."""
    if path.is_dir():
        hasher = blake3.blake3()
        for each in sorted(p for p in path.rglob("*") if p.is_file()):
            hasher.update(f"{each.relative_to(path)}\0{digest(each)}\n".encode())
        return hasher.hexdigest()
    small = path.stat().st_size < MIB
    if small:
        return blake3.blake3(path.read_bytes()).hexdigest()
    return blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path).hexdigest()
