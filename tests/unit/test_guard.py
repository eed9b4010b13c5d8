"""A run of tests that is killed leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PARTS = """
import os, subprocess, sys, time
from pathlib import Path
from tests.nginx import Nginx
from tests import postgres

def test_parts(tmp_path):
    told = Path({told!r})
    sleeper = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 900 & wait; sleep 900"])
    with Nginx(tmp_path / "www", tmp_path / "state") as server, postgres.running() as database:
        lines = [sleeper.pid, *server.pids()]
        master = int((database._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{{master}}/task/{{master}}/children").read_text().split()
        text = " ".join(map(str, [*lines, master, *children]))
        draft = told.with_suffix(".draft")
        draft.write_text(f"{{text}}\\n{{database._folder}}")
        draft.rename(told)
        if {waits}:
            time.sleep(900)
"""
WAIT = 120.0


@pytest.mark.parametrize(
    ("killed", "workers"),
    [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (None, 0)],
    ids=["killed", "workers", "ended"],
)
def test_a_run_leaves_no_process_and_no_folder(
    tmp_path: Path, killed: signal.Signals | None, workers: int
) -> None:
    for program in ("postgres", "nginx"):
        programs.need(program)
    told = tmp_path / "told"
    (tmp_path / "test_parts.py").write_text(PARTS.format(told=str(told), waits=killed is not None))
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"),
        "--rootdir", str(ROOT), "--numprocesses", str(workers), "--basetemp", str(tmp_path / "tmp"), str(tmp_path),
    ]  # fmt: skip
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: told.exists() or run.poll() is not None, WAIT)
        assert told.exists(), run.communicate()[0]
        pids, folder = told.read_text().split("\n")
        parts = []
        for pid in map(int, pids.split()):
            try:
                parts.append(os.pidfd_open(pid))
            except ProcessLookupError:
                assert killed is None, "it ended by itself"
        if killed is not None:
            assert not any(select.select(parts, [], [], 0)[0])
            run.send_signal(killed)
        assert run.wait(WAIT) == (0 if killed is None else -killed)
        for part in parts:
            assert select.select([part], [], [], WAIT)[0], pids
        until(lambda: not Path(folder).exists(), WAIT)
    finally:
        run.kill()
        run.communicate()
