"""`make run`, interrupted at any point, leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from examples.demo import PREFIX
from examples.demo.keeping import STATE_VARIABLE
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


@pytest.mark.parametrize("word", ["origin:", "console:"])
def test_an_interrupted_demo_leaves_no_process_and_no_file(
    cluster: LocalCluster, tmp_path: Path, word: str
) -> None:
    env = {**os.environ, "DEMO_MARK": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    env.pop("RAY_ADDRESS", None)
    log = tmp_path / "log"
    with log.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "examples.demo"],
            env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    until(lambda: word in log.read_text() or demo.poll() is not None, 200.0)
    assert demo.poll() is None, log.read_text()
    said = " ".join(
        word for child in psutil.Process(demo.pid).children(recursive=True) for word in child.cmdline()
    )
    folders = {Path(found) for found in re.findall(rf"/[^\s=:]*/{PREFIX}[^\s/:]+", said)}
    assert folders
    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=100) == 130, log.read_text()
    assert _strangers(str(tmp_path)) == []
    assert [folder for folder in folders if folder.exists()] == []


def test_a_demo_that_is_kept_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "DEMO_MARK": str(tmp_path),
        "KEEP": "1",
        STATE_VARIABLE: str(tmp_path / "state"),
        "COLUMNS": "200",
    }
    env.pop("RAY_ADDRESS", None)
    demo = [sys.executable, "-m", "examples.demo"]
    # Two at once: neither takes the other's ports.
    both = [
        subprocess.Popen(demo, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    urls = set()
    try:
        for process in both:
            said, _ = process.communicate(timeout=280)
            assert process.returncode == 0, said
            assert said.count("every byte verified on 4 nodes") == 2
            url, password = re.findall(r"console: (\S+)   sign in as admin, password (\S+)", said)[0]
            assert said.index("console:") < said.index("every byte verified")
            answer = httpx.post(
                f"{url}/api/v1/session", json={"name": "admin", "password": password}, timeout=60.0
            )
            assert answer.is_success
            urls.add(url)
        assert len(urls) == 2
    finally:
        stopped = subprocess.run(
            [*demo, "stop"], env=env, capture_output=True, text=True, timeout=250, check=False
        )
    assert stopped.stdout.strip() == "stopped", stopped
    assert _strangers(str(tmp_path)) == []
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz", timeout=60.0)
    again = subprocess.run([*demo, "stop"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert again.stdout.strip() == "nothing was running"
