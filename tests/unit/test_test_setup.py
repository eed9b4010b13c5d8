"""The rules of the test suite itself: what may be skipped, and what runs when."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import file_server, programs

CHECKOUT = Path(__file__).parents[2]
HAS_SLOW = "tests/manager/test_openapi.py"
NEEDS_STRACE = "tests/unit/storage/test_outputs.py::test_no_byte_of_an_output_passes_through_python"


def run_pytest(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Where no program is installed at all."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(CHECKOUT), programs.REQUIRE_ALL: "", **env},
    )  # fmt: skip


def test_a_missing_program_is_a_skip_that_names_it() -> None:
    done = run_pytest(NEEDS_STRACE)
    assert done.returncode == 0, done.stdout
    assert "without strace" in done.stdout


def test_where_everything_is_required_it_fails_the_run() -> None:
    done = run_pytest(NEEDS_STRACE, **{programs.REQUIRE_ALL: "1"})
    assert done.returncode == 1, done.stdout
    assert f"skipped, and not in allowed_skips.txt: {NEEDS_STRACE}" in done.stdout


def test_a_skip_for_another_reason_than_the_listed_program_fails_the_run(tmp_path: Path) -> None:
    """Lists name programs: a test that is let off for one must not be let off for anything else."""
    plugin = tmp_path / "other_reason.py"
    plugin.write_text(
        "import pytest\ndef pytest_runtest_setup(item): pytest.skip('the machine is too slow')\n"
    )
    path = f"{CHECKOUT}{os.pathsep}{tmp_path}"
    done = run_pytest("-p", "other_reason", NEEDS_STRACE, PYTHONPATH=path)
    assert done.returncode == 1, done.stdout
    assert "skipped, and not in" in done.stdout


def test_slow_tests_run_by_themselves_only() -> None:
    by_default = run_pytest("--collect-only", HAS_SLOW).stdout
    slow = run_pytest("--collect-only", "--slow", HAS_SLOW).stdout
    tests = {line for line in by_default.splitlines() if "::" in line}
    heavy = {line for line in slow.splitlines() if "::" in line}
    assert tests
    assert heavy
    assert not tests & heavy


@pytest.mark.parametrize(
    ("extra", "meant"),
    [
        ("", file_server.Directives()),
        ("limit_rate 20k;", file_server.Directives(rate=20 * 1024)),
        ("limit_rate 2m; autoindex_format json;", file_server.Directives(rate=2 << 20, json=True)),
        (
            "location /away { return 302 http://x/y; }",
            file_server.Directives(redirects=(("/away", 302, "http://x/y"),)),
        ),
        ("echo_sleep 0.02;", None),
        ("location /x { deny all; }", None),
    ],
)
def test_directives_that_a_server_in_python_stands_in_for(
    extra: str, meant: file_server.Directives | None
) -> None:
    assert file_server.understood(extra) == meant


def test_what_all_tests_load_is_no_work_for_the_garbage_collector() -> None:
    assert gc.get_freeze_count() > 10_000
