"""`make run`, interrupted at any point, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dragonfly_ray.demo import PREFIX
from tests.cluster.conftest import LocalCluster, until

pytestmark = pytest.mark.cluster


def _strangers(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.environ().get("DEMO_MARK") == mark:
                found.append(" ".join(process.info["cmdline"] or []))
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("word", ["origin:", "peers are ready"])
def test_an_interrupted_demo_leaves_no_process_and_no_file(
    cluster: LocalCluster, tmp_path: Path, word: str
) -> None:
    env = {**os.environ, "DEMO_MARK": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    env.pop("RAY_ADDRESS", None)
    before = set(Path("/tmp").glob(f"{PREFIX}*"))
    log = tmp_path / "log"
    with log.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "dragonfly_ray.demo"],
            env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    until(lambda: word in log.read_text() or demo.poll() is not None, 200.0)
    assert demo.poll() is None, log.read_text()
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=100) == 130, log.read_text()
    assert _strangers(str(tmp_path)) == []
    assert set(Path("/tmp").glob(f"{PREFIX}*")) <= before
