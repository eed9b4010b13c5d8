"""The hosts: a Ray node in each namespace, nginx in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import guard
from tests.nginx import Nginx
from tests.testbed import network

ORIGIN = 250
GCS_PORT = 6379
STARTS = 3
"""Tries for one Ray node."""
LOOK = 45.0
"""Seconds for one look at the cluster's nodes."""
OBJECT_STORE = 120 * 1024 * 1024
_PREFIX = "dfbed-"
CHECKOUT = Path(__file__).resolve().parents[2]
_PRELUDE = """
import os, sys, json, time
sys.path.insert(0, {checkout!r})
import ray
ray.init(address={address!r}, _node_ip_address={node!r}, log_to_driver=False, logging_level="error")
import dragonfly_ray as d
def answer(value): print("ANSWER " + json.dumps(value))
"""


class BedHost:
    """One host. `node_id` is known once its Ray node is up."""

    def __init__(self, bed: Testbed, number: int, labels: Mapping[str, str]) -> None:
        self.number = number
        self.link = network.Link(f"h{number}", number + 1)
        self.address = self.link.address
        self.labels = dict(labels)
        self._bed = bed
        self._ray: subprocess.Popen[bytes] | None = None

    @property
    def storage(self) -> Path:
        """The root of its piece stores; hosts share the machine's file system, but not this."""
        return self._bed.folder / f"storage{self.number}"

    def start_ray(self) -> None:
        """Starts the Ray node; it may take some seconds to be part of the cluster."""
        ray = str(Path(sys.executable).with_name("ray"))
        head = self.number == 0
        command = [ray, "start", "--block", f"--node-ip-address={self.address}", "--num-cpus=2",
                   f"--object-store-memory={self._bed.object_store}", "--disable-usage-stats",
                   f"--labels={','.join(f'{k}={v}' for k, v in self.labels.items())}" if self.labels
                   else "--num-gpus=0"]  # fmt: skip
        if head:
            command += ["--head", f"--port={GCS_PORT}", "--include-dashboard=false", "--num-gpus=0",
                        f"--temp-dir={self._bed.folder}/ray"]  # fmt: skip
        else:
            command += [f"--address={self._bed.address}"]
        self._ray = self.link.popen(
            command,
            env={"DRAGONFLY_STORAGE__ROOT": str(self.storage), **self._bed.environment},
            output=self._bed.folder / f"ray{self.number}.log",
        )

    @property
    def running(self) -> bool:
        """Whether its Ray node has not ended."""
        return self._ray is not None and self._ray.poll() is None

    def kill(self) -> None:
        """The whole host: every process, at once."""
        network.kill_all(self.link.namespace)
        if self._ray:
            self._ray.wait(timeout=20)

    def cut(self) -> None:
        self.link.cut()

    def mend(self) -> None:
        self.link.mend()


class Testbed:
    """`hosts` hosts at `mbit` each and an origin at `origin_mbit`. Host 0 is the head.

    Use it as a context manager; whatever a crashed run left is removed first.
    """

    __test__ = False

    def __init__(
        self,
        hosts: int = 4,
        *,
        mbit: int | None = 400,
        origin_mbit: int | None = 200,
        labels: Mapping[int, Mapping[str, str]] | None = None,
        env: Mapping[str, str] | None = None,
        nginx: str = "",
        modules: Sequence[str | Path] = (),
        object_store: int = OBJECT_STORE,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.folder.chmod(0o755)
        guard.watch(folder=self.folder)
        self.env = dict(env or {})
        self.object_store = object_store
        self.hosts = [BedHost(self, n, (labels or {}).get(n, {})) for n in range(hosts)]
        self.origin_link = network.Link("origin", ORIGIN)
        self._mbit, self._origin_mbit = mbit, origin_mbit
        self.origin = Nginx(
            self.folder / "www",
            self.folder / "nginx",
            address=self.origin_link.address,
            port=80,
            extra=nginx,
            modules=modules,
            start=lambda command: self.origin_link.popen(command),
        )
        self._script = 0

    @property
    def address(self) -> str:
        return f"{self.hosts[0].address}:{GCS_PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """What every Ray process gets beside the environment of this one."""
        return {
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(self.folder),
            "RAY_raylet_start_wait_time_s": "120",
            "PYTHONPATH": str(CHECKOUT),
            **self.env,
        }

    def __enter__(self) -> Self:
        remove_leftovers()
        try:
            network.create_switch()
            self.origin_link.create(self._origin_mbit)
            self.origin.start()
            for host in self.hosts:
                host.link.create(self._mbit)
            # One by one: they share a session folder, and two at once choose the same socket in it.
            for host in self.hosts:
                self._start(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        network.remove_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, host: BedHost) -> None:
        """Its Ray node is part of the cluster then; one that ended on a busy machine, as Ray's do, is started again."""
        for left in reversed(range(STARTS)):
            host.start_ray()
            try:
                self.wait_nodes(host.number + 1, while_=host)
                return
            except (RuntimeError, subprocess.TimeoutExpired):
                if not left:
                    raise
                network.kill_all(host.link.namespace)

    def wait_nodes(self, count: int, timeout: float = 120.0, while_: BedHost | None = None) -> None:
        """Until so many Ray nodes are alive; a `RuntimeError` at once if that of `while_` has ended."""
        deadline = time.monotonic() + timeout
        code = "\n".join([
            "import sys, time",
            "from ray._raylet import GcsClient",
            f"c = GcsClient(address={self.address!r})",
            f"while sum(n.state == 0 for n in c.get_all_node_info(timeout=10).values()) < {count}: time.sleep(0.2)",
        ])  # fmt: skip
        while True:
            ended = while_ is not None and not while_.running
            try:
                self.hosts[0].link.run(
                    [sys.executable, "-c", code],
                    env={"RAY_AUTH_MODE": "disabled"},
                    timeout=max(1.0, min(LOOK, deadline - time.monotonic())),
                )
                return
            except (RuntimeError, subprocess.TimeoutExpired):
                if ended or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    # --- drivers ----------------------------------------------------------------------------

    def _command(self, script: str, host: int) -> Sequence[str | Path]:
        self._script += 1
        file = self.folder / f"driver{self._script}.py"
        prelude = _PRELUDE.format(checkout=str(CHECKOUT), address=self.address, node=self.hosts[host].address)
        file.write_text(prelude + script)
        return [sys.executable, file]

    def run(
        self, script: str, *, host: int = 0, timeout: float = 300.0, env: Mapping[str, str] | None = None
    ) -> Any:
        """Runs a driver on a host. `d` is `dragonfly_ray`; what it passes to `answer` comes back."""
        out = self.hosts[host].link.run(
            self._command(script, host), env={"RAY_AUTH_MODE": "disabled", **(env or {})}, timeout=timeout
        )
        found = [line.removeprefix("ANSWER ") for line in out.splitlines() if line.startswith("ANSWER ")]
        return json.loads(found[-1]) if found else None

    @contextlib.contextmanager
    def driver(self, script: str, *, host: int = 0):  # type: ignore[no-untyped-def]
        """Runs a driver beside the test; `.answer(timeout)` waits for it."""
        log = self.folder / f"out{self._script}.log"
        process = self.hosts[host].link.popen(
            self._command(script, host),
            env={"RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"},
            output=log,
        )
        try:
            yield Driver(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=20)


class Driver:
    """A driver that runs beside the test."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def answer(self, timeout: float = 120.0) -> Any:
        try:
            self.process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the driver has not ended after {timeout:g} s:\n{self.output[-3000:]}"
            ) from None
        found = [x.removeprefix("ANSWER ") for x in self.output.splitlines() if x.startswith("ANSWER ")]
        assert found, self.output[-3000:]
        return json.loads(found[-1])


def remove_leftovers() -> None:
    """Namespaces, processes and folders of beds whose owner was killed."""
    network.remove_all()
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
            shutil.rmtree(folder, ignore_errors=True)


def root_file(path: Path, size: int) -> None:
    """A file of random bytes."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, 1 << 24)))
