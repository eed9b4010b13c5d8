"""What all tests share.

A skip that is not in the committed list fails the run; where everything must be there
(DRAGONFLY_REQUIRE_ALL=1), so does one for want of a program. What is marked `slow` runs with --slow only.
"""

from __future__ import annotations

import fnmatch
import gc
import os
import signal
from pathlib import Path

import hypothesis
import pytest

from examples.demo.environment import shed
from examples.demo.keeping import STATE_VARIABLE
from tests import guard, programs

pytest.register_assert_rewrite("dragonfly_ray.sources.conformance")
hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
shed(
    os.environ, keep=(programs.REQUIRE_ALL, STATE_VARIABLE)
)  # the tests' servers and clusters are all on this machine
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As whatever a shell starts in the background; commands that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def _allowed() -> list[tuple[str, str]]:
    lines = [line.split("|") for line in ALLOWED.read_text().splitlines() if line and line[0] != "#"]
    return [(pattern.strip(), when.strip()) for pattern, when, _ in lines]


def _may_skip(test: str, reason: str) -> bool:
    return any(fnmatch.fnmatchcase(test, pattern) and _holds(when, reason) for pattern, when in _allowed())


def _holds(when: str, reason: str) -> bool:
    if when == "not-root":
        return os.geteuid() != 0
    word, _, command = when.partition(" ")
    assert word == "without", when
    # A skip says "without …", as programs.need() does: one for another reason is not meant.
    return when in reason and programs.find(command) is None and not programs.all_required()


def pytest_configure() -> None:
    guard.start()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="what is marked `slow`, and nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = bool(config.getoption("--slow"))
    left = [item for item in items if (item.get_closest_marker("slow") is None) == slow]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


def pytest_collection_finish() -> None:
    # All modules are loaded and stay: a third of a run's time went into looking at them again and again.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    unexpected = [
        r.nodeid for r in reporter.stats.get("skipped", []) if not _may_skip(r.nodeid, str(r.longrepr))
    ]
    if unexpected:
        reporter.write_line(f"skipped, and not in {ALLOWED.name}: {', '.join(unexpected)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
