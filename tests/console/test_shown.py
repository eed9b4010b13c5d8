"""What the console draws agrees with what it says: in Chromium, of jobs that have ended and of this very minute."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dragonfly_ray.figures import Bound, Measured
from dragonfly_ray.serve.database.tables import Traffic
from dragonfly_ray.serve.stats.record import ALL, HOUR, MINUTE, floor
from tests.console.conftest import Console, Open, running, signed_in
from tests.console.swarm import Swarm
from tests.console.test_screens import HANG, URL, _head, _order, _start
from tests.manager import people
from tests.waiting import until

pytestmark = pytest.mark.console
ADDRESS = "127.0.0.1"
NODES = 4
MOVED = 600 << 20


def _finished(page: Page, console: Console, name: str) -> str:
    """A job that has ended everywhere. Returns its id."""
    job = _start(page, name)
    until(lambda: bool(_order(console, job)))
    console.swarm.reach(_order(console, job), 1.0)
    page.goto(f"/console/distributions/{job}")
    expect(page.locator(".page-head [data-state=succeeded]")).to_be_visible(timeout=HANG)
    return job


def test_a_job_that_has_ended_sums_up_the_map_that_it_shows(open_page: Open, console: Console) -> None:
    page = open_page("/")
    _head(page, "Overview")
    job = _finished(page, console, "ended long ago")
    page.goto("/console/nodes")
    page.goto(f"/console/distributions/{job}")
    _head(page, "ended long ago")
    nodes, pieces = len(console.swarm.views), console.swarm.pieces
    full = re.compile(rf"{nodes} nodes by {pieces} pieces, 100 % filled")
    expect(page.locator(".map-axis")).to_contain_text(full, timeout=HANG)
    expect(page.locator(".heat")).to_have_attribute("aria-label", full)


def test_what_was_read_to_compare_stands_beside_the_other_bytes(open_page: Open, console: Console) -> None:
    page = open_page("/")
    _head(page, "Overview")
    job = _start(page, "compared")
    until(lambda: bool(_order(console, job)))
    order = _order(console, job)
    for node in console.swarm.views:
        console.swarm.end(order, nodes=[node], bytes_audit=1 << 20)
    page.goto(f"/console/distributions/{job}")
    expect(page.locator(".page-head [data-state=succeeded]")).to_be_visible(timeout=HANG)
    expect(
        page.get_by_text(f"{len(console.swarm.views)}.0 MiB were read at the origin a second")
    ).to_be_visible()


def test_a_job_that_has_ended_says_what_limited_it(open_page: Open, console: Console) -> None:
    slow = next(iter(console.swarm.views))
    bounds = (Bound("origin", 0.2), Bound("node", 0.8, slow))
    size = console.swarm.size
    console.swarm.measured = Measured(bounds, size, 4 * size, size)
    page = open_page("/")
    _head(page, "Overview")
    try:
        _finished(page, console, "measured")
    finally:
        console.swarm.measured = None
    found = page.locator("dl", has_text="Time ÷ floor").locator("> div")
    expect(found).to_contain_text(
        [
            f"link, disk or CPU of {console.swarm.views[slow].name}",
            "1.25 ×",
            re.compile(r"\d\.\d\d ×"),
            "1.00 ×",
            "25 %",
        ]
    )


def test_a_job_that_waits_for_its_origin_says_why(open_page: Open, console: Console) -> None:
    page = open_page("/")
    _head(page, "Overview")
    job = _start(page, "patient")
    until(lambda: bool(_order(console, job)))
    page.goto(f"/console/distributions/{job}")
    said = page.get_by_role("status").filter(has_text="Waiting for the origin: HTTP 503, Retry-After 60 s")
    console.swarm.wait_for_origin(_order(console, job), "HTTP 503, Retry-After 60 s")
    expect(said).to_be_visible(timeout=HANG)
    console.swarm.wait_for_origin(_order(console, job), "")
    expect(said).to_have_count(0, timeout=HANG)
    console.swarm.reach(_order(console, job), 1.0)
    expect(page.locator(".page-head [data-state=succeeded]")).to_be_visible(timeout=HANG)


def test_what_becomes_of_symlinks_is_chosen_shown_and_used_again(open_page: Open, console: Console) -> None:
    page = open_page("/distributions/new")
    page.get_by_label("URLs").fill(f"{URL}?symlinks")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Symlinks").select_option("follow")
    page.get_by_role("button", name="Start").click()
    about = page.locator("section", has=page.get_by_role("heading", name="About"))
    expect(about).to_contain_text("Follow: deliver their targets", timeout=HANG)
    script = "async (id) => (await (await fetch(`/api/v1/distributions/${id}`)).json()).links"
    job = page.url.rpartition("/")[2]
    assert page.evaluate(script, job) == "follow"
    until(lambda: bool(_order(console, job)))
    console.swarm.reach(_order(console, job), 1.0)
    page.get_by_role("button", name="Duplicate").click()
    expect(page.get_by_label("Symlinks")).to_have_value("follow", timeout=HANG)


def test_the_chart_shows_what_its_totals_count(open_page: Open, console: Console) -> None:
    """Bytes of the minute that has not ended: the line is not at zero, and reaches to now."""
    with people.database_of(console.app).write() as session:
        at = datetime.now(UTC)
        for seconds in (MINUTE, HOUR):
            row = Traffic(at=floor(at, seconds), seconds=seconds, node_id=ALL, bytes_origin=MOVED)
            session.merge(row)
    page = open_page("/")
    expect(page.get_by_text(re.compile("received, .* of them without the origin"))).to_contain_text(
        "600 MiB received", timeout=HANG
    )
    times, origin = page.evaluate(
        """() => {
            const { data } = document.querySelector(".chart > div").plot;
            return [data[0], data[data.length - 1]];
        }"""
    )
    assert max(origin) >= MOVED / 60
    assert times[-1] >= time.time() - HANG / 1000
    assert times == sorted(times)


@pytest.fixture
def alike(browser: Browser, tmp_path: Path) -> Iterator[tuple[Console, Page]]:
    """A console of nodes that have one name and one address."""
    swarm = Swarm(NODES, pieces=64, size=1 << 30)
    for node, view in swarm.views.items():
        swarm.views[node] = dataclasses.replace(view, name=ADDRESS, address=ADDRESS)
    with running(tmp_path, swarm) as console:
        context = browser.new_context(base_url=console.url)
        yield console, signed_in(context)
        context.close()


def test_nodes_of_one_name_are_told_apart(alike: tuple[Console, Page]) -> None:
    console, page = alike
    page.goto("/console/nodes")
    links = page.get_by_role("table", name="Nodes", exact=True).get_by_role("link")
    expect(links).to_have_count(NODES, timeout=HANG)
    _different(links.all_inner_texts())
    links.first.click()
    _head(page, re.compile(r"127\.0\.0\.1 \(\w+\)"))

    page.goto("/console/")
    cells = page.locator(".cells a")
    expect(cells).to_have_count(NODES, timeout=HANG)
    _different([cell.get_attribute("aria-label") or "" for cell in cells.all()])

    _finished(page, console, "alike")
    rows = page.get_by_role("table", name="Nodes of this job").locator("td.lead")
    expect(rows).to_have_count(NODES, timeout=HANG)
    _different(rows.all_inner_texts())
    page.get_by_role("button", name="Table", exact=True).click()
    flows = page.get_by_role("table", name="Peer traffic")
    expect(flows.get_by_role("row")).not_to_have_count(1, timeout=HANG)
    told = {text for text in flows.get_by_role("cell").all_inner_texts() if text.startswith(ADDRESS)}
    assert told
    assert ADDRESS not in told

    page.goto("/console/distributions/new")
    page.get_by_text("Named", exact=True).click()
    page.get_by_role("button", name=re.compile(r"^Add 127\.0\.0\.1 \(")).first.click()
    expect(page.get_by_label("Names, addresses or ids")).to_have_value(re.compile(r"^[0-9a-f]{56}$"))


def _different(names: list[str]) -> None:
    assert len(set(names)) == NODES, names
    assert all(name.startswith(f"{ADDRESS} (") for name in names), names
