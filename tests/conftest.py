"""What all tests share: a skip that is not in the committed list fails the run."""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest

pytest.register_assert_rewrite("dragonfly_ray.sources.conformance")
hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As whatever a shell starts in the background; commands that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def _allowed() -> list[tuple[str, str]]:
    lines = [line.split("|") for line in ALLOWED.read_text().splitlines() if line and line[0] != "#"]
    return [(pattern.strip(), when.strip()) for pattern, when, _ in lines]


def _may_skip(test: str) -> bool:
    return any(fnmatch.fnmatchcase(test, pattern) and _holds(when) for pattern, when in _allowed())


def _holds(when: str) -> bool:
    if when == "not-root":
        return os.geteuid() != 0
    word, _, command = when.partition(" ")
    assert word == "without", when
    return shutil.which(command) is None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    unexpected = [r.nodeid for r in reporter.stats.get("skipped", []) if not _may_skip(r.nodeid)]
    if unexpected:
        reporter.write_line(f"skipped, and not in {ALLOWED.name}: {', '.join(unexpected)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
