"""Both commands of the README on a bare machine, by somebody who is not root."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.bare import machine
from tests.bare.machine import BareMachine

WHY_NOT = machine.available()
pytestmark = [pytest.mark.timeout(1800), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "never")]
LONG = 900.0
"""Seconds for a command; it takes a tenth of that."""
SUITE = (
    "tests/unit/swarm/test_distribution.py tests/unit/sources tests/unit/storage "
    "tests/unit/test_operators.py tests/manager/test_database.py tests/conformance tests/testbed "
    "tests/cluster/test_api.py::test_a_file_on_every_node"
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareMachine]:
    with BareMachine(tmp_path_factory.mktemp("bare")) as made:
        yield made


OF_OTHERS = {
    "RAY_ADDRESS": "127.0.0.1:6379",
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}
"""What a shell may have for another cluster, and for hosts elsewhere."""


def assert_shown(said: str) -> None:
    assert "Traceback" not in said, said
    assert said.count("every byte verified on 4 nodes") == 2, said
    assert re.search(r"done in \d+ s, stopped cleanly", said), said


def left_over(bare: BareMachine) -> str:
    return bare.run("ls -A /tmp /var/tmp /dev/shm", user="root", timeout=60).stdout


def test_make_run_is_all_that_it_takes(bare: BareMachine) -> None:
    done = bare.run("make run", timeout=LONG)
    assert done.returncode == 0, done.stdout
    assert_shown(done.stdout)
    assert "setup: without nginx" in done.stdout
    assert "origin: aiohttp" in done.stdout
    assert bare.processes() == []
    assert not re.search("dragonfly|ray|pip", left_over(bare))


def test_tests_pass_and_what_is_missing_is_named(bare: BareMachine) -> None:
    ready = bare.run("make setup", timeout=LONG)
    assert ready.returncode == 0, ready.stdout
    done = bare.run(f'make test ARGS="{SUITE}"', timeout=LONG, env=OF_OTHERS)
    assert done.returncode == 0, done.stdout
    assert " error" not in done.stdout.splitlines()[-1], done.stdout
    for program in ("nginx", "postgres", "azurite-blob", "strace", "promtool"):
        assert f"without {program}" in done.stdout, done.stdout


def test_make_run_beside_a_cluster_of_somebody_else(bare: BareMachine) -> None:
    """Who has Ray's default folder, and left its address, a proxy, and little shared memory behind."""
    ray = "RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0"
    started = bare.run(
        f'ln -sfn "$PWD/.venv" ~/python && cd / && {ray} ~/python/bin/python '
        "~/python/bin/ray start --head --num-cpus=1 --port=6379 --object-store-memory=80000000 "
        "--include-dashboard=false",
        user="root", timeout=LONG,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout
    bare.run("mount -o remount,size=100m /dev/shm", user="root", timeout=60)
    done = bare.run("make run", timeout=LONG, env=OF_OTHERS)
    assert done.returncode == 0, done.stdout
    assert_shown(done.stdout)
    assert "not used here: HTTPS_PROXY, RAY_ADDRESS, http_proxy" in done.stdout
    assert "/dev/shm is too small for Ray's objects" in done.stdout
    counted = bare.run(
        f"cd / && {ray} ~/python/bin/python -c 'import ray; "
        'ray.init(address="127.0.0.1:6379", log_to_driver=False); '
        "from ray.util import list_named_actors; "
        'print("NODES", len(ray.nodes()), list_named_actors(all_namespaces=True))\'',
        user="root", timeout=LONG,
    )  # fmt: skip
    assert "NODES 1 []" in counted.stdout, counted.stdout


def test_a_machine_without_room_is_told_in_one_line(bare: BareMachine) -> None:
    full = bare.run(
        "mount -t tmpfs -o mode=1777,size=100m tmpfs /tmp && mount -t tmpfs -o mode=1777,size=100m tmpfs /var/tmp",
        user="root", timeout=60,
    )  # fmt: skip
    assert full.returncode == 0, full.stdout
    done = bare.run("make run", timeout=LONG)
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make")]
    assert len(lines) == 1, done.stdout
    assert re.match(r"no folder with \d+ MiB .*/tmp: \d+ MiB free.*: free some space", lines[0])
