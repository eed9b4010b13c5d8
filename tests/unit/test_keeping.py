"""A demo that was left running is ended by who it is, not by its number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples.demo import keeping
from examples.demo.keeping import Kept
from tests.waiting import until


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(keeping.STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def kept(process: subprocess.Popen[bytes], folder: Path) -> Kept:
    started = keeping._started(process.pid)
    assert started is not None
    found = Kept(process.pid, started, keeping._boot(), str(folder))
    found.write()
    return found


def test_it_is_found_and_ended_with_its_folder(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    kept(sleeper, folder)
    (found,) = keeping.all_kept()
    assert found.alive
    assert keeping.stop(found)
    assert sleeper.wait(10) == -15
    assert keeping.all_kept() == []
    assert not folder.exists()


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_whoever_has_its_number_now_is_left_alone(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, change: dict[str, object]
) -> None:
    stale = replace(kept(sleeper, tmp_path / "demo"), **change)  # type: ignore[arg-type]
    stale.write()
    assert not stale.alive
    assert not keeping.stop(stale)
    assert sleeper.poll() is None
    assert keeping.all_kept() == []


def test_one_that_has_ended_is_forgotten(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    found = kept(sleeper, tmp_path / "demo")
    sleeper.kill()
    sleeper.wait()
    assert not found.alive
    assert not keeping.stop(found)
    assert keeping.all_kept() == []


def test_one_that_hangs_is_killed_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    program = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout
    child = int(process.stdout.readline())
    assert keeping.stop(kept(process, tmp_path / "demo"), timeout=0.2)
    assert process.wait(10) == -9

    def ended() -> bool:
        """Nobody's child any more: it is gone, or waits for whoever collects it."""
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(ended)


def test_a_torn_record_is_removed(state: Path) -> None:
    state.mkdir(parents=True)
    (state / "1.json").write_text('{"pid": 1,')
    assert keeping.all_kept() == []
    assert list(state.iterdir()) == []
