"""Real hosts with real addresses: what a single machine's loopback cannot show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragonfly_ray.model import SHORT_LEAF
from tests.testbed import network
from tests.testbed.bed import Testbed, root_file
from tests.waiting import until

MIB = 1 << 20
SIZE = 48 * MIB
WHY_NOT = network.available()
pytestmark = [pytest.mark.testbed, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "never")]
SILENCE_BOUND = 15.0
"""Seconds after the last survivor's end within which the caller knows."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed(4, mbit=200, origin_mbit=100) as made:
        made.run("answer(len(d.up()))")
        yield made


def held(bed: Testbed, host: int) -> int:
    """Bytes on the disk of a host's store, as the file system counts them."""
    files = [p for p in bed.hosts[host].storage.rglob("journal") if p.is_file()]
    return sum(max(0, p.stat().st_size - 36) // 41 * SHORT_LEAF for p in files)


def submit(bed: Testbed, name: str, out: Path) -> str:
    return f"""
run = d.submit({f"{bed.origin.url}/{name}"!r}, dest={str(out / "{node}")!r})
run.wait(150)
done = run.result(1)
answer({{"took": done.seconds, "outcomes": done.to_dict()["outcomes"], "addresses":
        {{m.node_id: m.address for m in d.nodes()}}}})
"""


def by_address(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {found["addresses"][o["node_id"]]: o for o in found["outcomes"]}


def test_the_links_are_as_fast_as_they_say(bed: Testbed) -> None:
    root_file(bed.origin.root / "probe", 10 * MIB)
    rate = bed.hosts[1].link.run(
        ["curl", "-sf", "-o", "/dev/null", "-w", "%{speed_download}", f"{bed.origin.url}/probe"]
    )
    assert 70e6 < float(rate) * 8 < 130e6


def test_a_file_crosses_the_origin_link_once(bed: Testbed) -> None:
    root_file(bed.origin.root / "once", SIZE)
    found = bed.run(submit(bed, "once", bed.folder / "once"))
    content = (bed.origin.root / "once").read_bytes()
    assert all(Path(o["path"]).read_bytes() == content for o in found["outcomes"])
    assert len(found["outcomes"]) == 4
    audited = sum(o["bytes_audit"] for o in found["outcomes"])
    # What a slow host has leased and not begun in time is read by another one, too.
    assert SIZE <= bed.origin.sent("/once") - audited <= 1.2 * SIZE


def test_a_driver_may_run_on_any_host(bed: Testbed) -> None:
    root_file(bed.folder / "mine", 6 * MIB)
    out = str(bed.folder / "from-2" / "{node}")
    found = bed.run(
        f"done = d.distribute({str(bed.folder / 'mine')!r}, dest={out!r})\n"
        "answer([str(p) for p in done.paths.values()] + [str(d.fetch('/etc/hostname'))])",
        host=2,
    )
    *copies, fetched = map(Path, found)
    assert len(copies) == 4
    assert all(path.read_bytes() == (bed.folder / "mine").read_bytes() for path in copies)
    assert fetched.read_bytes() == Path("/etc/hostname").read_bytes()


def test_the_data_port_listens_on_the_nodes_address_only(bed: Testbed) -> None:
    ports = bed.run("answer({h['address']: h['port'] for h in d.status()['hosts']})")
    for host in bed.hosts:
        listening = host.link.run(["ss", "-Hltn"]).splitlines()
        mine = [line.split()[3] for line in listening if line.split()[3].endswith(f":{ports[host.address]}")]
        assert mine == [f"{host.address}:{ports[host.address]}"]


def test_a_host_is_cut_off_silently(bed: Testbed) -> None:
    root_file(bed.origin.root / "cut", SIZE)
    victim = bed.hosts[2]
    before = held(bed, 2)
    with bed.driver(submit(bed, "cut", bed.folder / "cut")) as driver:
        until(lambda: held(bed, 2) - before > SIZE // 4, 60.0)
        assert 0.1 * SIZE < held(bed, 2) - before < 0.9 * SIZE
        victim.cut()
        try:
            found = driver.answer(150)
        finally:
            victim.mend()
    content = (bed.origin.root / "cut").read_bytes()
    outcomes = by_address(found)
    lost = outcomes.pop(victim.address)
    assert lost["error"]["kind"] == "node-lost"
    assert {a: o["error"] for a, o in outcomes.items()} == dict.fromkeys(outcomes)
    assert all(Path(o["path"]).read_bytes() == content for o in outcomes.values())
    last = max(o["seconds"] for o in outcomes.values())
    assert found["took"] - last < SILENCE_BOUND


def test_a_whole_host_is_killed(bed: Testbed) -> None:
    root_file(bed.origin.root / "killed", SIZE)
    (bed.origin.root / "tiny").write_bytes(b"all are back")
    tiny = f"{bed.origin.url}/tiny"
    until(lambda: bed.run(f"answer(d.distribute({tiny!r}, on_failure='return').ok)"), 200.0)
    victim = bed.hosts[3]
    before = held(bed, 3)
    with bed.driver(submit(bed, "killed", bed.folder / "killed")) as driver:
        until(lambda: held(bed, 3) - before > SIZE // 4, 60.0)
        assert 0.1 * SIZE < held(bed, 3) - before < 0.9 * SIZE
        victim.kill()
        found = driver.answer(150)
    content = (bed.origin.root / "killed").read_bytes()
    outcomes = by_address(found)
    assert outcomes.pop(victim.address)["error"]["kind"] == "node-lost"
    assert {a: o["error"] for a, o in outcomes.items()} == dict.fromkeys(outcomes)
    assert all(Path(o["path"]).read_bytes() == content for o in outcomes.values())
    last = max(o["seconds"] for o in outcomes.values())
    assert found["took"] - last < SILENCE_BOUND
