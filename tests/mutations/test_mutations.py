"""Each fault of the engine turns a test of the simulator and one of real peers red, and without faults both are green.

A fault that nobody notices is a hole in the tests: mend that, not this list.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.mutations import MUTATIONS, VARIABLE

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(tests: list[str], mutation: str = "") -> subprocess.CompletedProcess[str]:
    plugin = ["-p", "tests.mutations.plugin"] if mutation else []
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *plugin, *tests]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, VARIABLE: mutation},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )


def test_without_a_fault_all_are_green() -> None:
    named = sorted({test for each in MUTATIONS.values() for test in (each.simulated, each.real) if test})
    done = run(named)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(named)} passed" in done.stdout


@pytest.mark.parametrize(
    ("mutation", "side"),
    [
        (name, side)
        for name, each in MUTATIONS.items()
        for side in ("simulated", "real")
        if getattr(each, side)
    ],
)
def test_a_fault_is_noticed(mutation: str, side: str) -> None:
    test = getattr(MUTATIONS[mutation], side)
    done = run([test], mutation)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, (done.stdout + done.stderr)[-4000:]
    assert "1 failed" in done.stdout, "the test itself, not what it needs"
    assert "error" not in done.stdout.splitlines()[-1]
