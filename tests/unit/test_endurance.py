"""Many runs of the suites: what has ended is not run again, and nothing goes on behind its back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import endurance
from tests.bare.machine import available
from tests.endurance import Journal, Step, run_all
from tests.waiting import until


def step(name: str, code: str, *more: str, busy: int = 0) -> Step:
    return Step(name, tuple((sys.executable, "-c", c) for c in (code, *more)), busy)


def counting(folder: Path, then: str = "print('1 passed')") -> str:
    return f"open({str(folder / 'runs')!r}, 'a').write('x'); {then}"


def test_the_plan_is_the_suites_and_then_everything_beside_busy_loops() -> None:
    steps = endurance.plan(10, 2)
    assert [s.busy for s in steps] == [0] * 10 + [2, 2]
    assert len({s.name for s in steps}) == 12
    for path in (p for s in steps for c in s.commands for p in c if p.startswith("tests/")):
        assert (endurance.CHECKOUT / path).is_dir()


def test_what_fails_is_named_and_fails_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    bad = "print('FAILED tests/x.py::y - boom'); print('1 failed'); raise SystemExit(1)"
    assert not run_all([step("a", bad, "print('2 passed')"), step("b", "print('3 passed')")], journal)
    found = journal.results()
    assert not found["a"].passed
    assert found["a"].lines == ("1 failed", "2 passed")
    assert found["b"].passed
    assert (tmp_path / "j" / "failures.txt").read_text() == "a: FAILED tests/x.py::y - boom\n"
    assert "boom" in (tmp_path / "j" / "a.log").read_text()


def test_it_goes_on_behind_the_last_run_that_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    first = step("a", counting(tmp_path))
    assert run_all([first], journal)
    with (tmp_path / "j" / "results.jsonl").open("a") as file:
        file.write('{"name": "b", "pas')  # the machine went down
    assert run_all([first, step("b", counting(tmp_path))], Journal(tmp_path / "j"))
    assert (tmp_path / "runs").read_text() == "xx"
    assert Journal(tmp_path / "j").results().keys() == {"a", "b"}


def test_a_run_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    hang = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    journal = Journal(tmp_path / "j")
    assert not run_all([step("a", hang)], journal, timeout=10.0)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert "ended after 10 s" in (tmp_path / "j" / "failures.txt").read_text()


@pytest.mark.skipif(bool(available()), reason=available())
def test_lanes_share_the_rounds_and_nothing_else(tmp_path: Path) -> None:
    probe = tmp_path / "test_probe.py"
    probe.write_text(f"""
import os, pathlib, socket
def test_alone():
    with socket.create_server(("127.0.0.1", 8265)):
        pathlib.Path("/tmp/ray/mine").touch(exist_ok=True)
        assert len(os.listdir("/tmp/ray")) == 1
        with open({str(tmp_path / "runs")!r}, "a") as file:
            file.write(os.readlink("/proc/self/ns/net") + "\\n")
""")
    options = ("--rounds", "3", "--loaded", "0", "--lanes", "2", "--folder", str(tmp_path / "j"))
    assert endurance.main((*options, "--suites", str(probe))) == 0
    networks = (tmp_path / "runs").read_text().split()
    assert len(networks) == 3
    assert len(set(networks)) == 2
    assert os.readlink("/proc/self/ns/net") not in networks
    probe.write_text("def test_bad(): assert False")
    assert endurance.main((*options, "--again", "--suites", str(probe))) == 1


def test_an_interrupted_run_does_not_count_and_its_busy_loops_end(tmp_path: Path) -> None:
    code = f"""
import sys, signal
sys.path.insert(0, {str(endurance.CHECKOUT)!r})
from pathlib import Path
from tests.endurance import Journal, Step, run_all
wait = "import time; open({str(tmp_path / "up")!r}, 'w').close(); time.sleep(600)"
signal.signal(signal.SIGTERM, signal.default_int_handler)
run_all([Step("a", ((sys.executable, "-c", wait),), busy=2)], Journal(Path({str(tmp_path / "j")!r})))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    until((tmp_path / "up").exists, 60.0)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) == 3
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert psutil.wait_procs(below, timeout=30)[1] == []
    assert Journal(tmp_path / "j").results() == {}


def test_busy_loops_end_with_whoever_started_them(tmp_path: Path) -> None:
    code = f"""
import sys, json, os
sys.path.insert(0, {str(endurance.CHECKOUT)!r})
from tests.endurance import busy
with busy(2, 600.0) as pids:
    print(json.dumps(pids), flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    loops = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
    assert len(loops) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert psutil.wait_procs(loops, timeout=30)[1] == []
