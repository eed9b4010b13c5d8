"""The console in Chromium: what people do with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from dragonfly_ray.serve.settings import Limits
from tests.console.conftest import PASSWORD, Console, Open, Watched, running, signed_in
from tests.console.swarm import Swarm

pytestmark = pytest.mark.console
URL = "https://example.com/models/weights.bin"
SCREENS = {
    "/": "Overview",
    "/distributions": "Distributions",
    "/distributions/new": "New distribution",
    "/preheats": "Preheats",
    "/schedules": "Schedules",
    "/schedules/new": "New schedule",
    "/tasks": "Tasks",
    "/nodes": "Nodes",
    "/config": "Config",
    "/users": "Users",
    "/roles": "Roles",
    "/tokens": "Tokens",
    "/secrets": "Secrets",
    "/audit": "Audit",
    "/webhooks": "Webhooks",
    "/account": "Your account",
}
HANG = 30_000


def _head(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text, timeout=HANG)


def _settled(page: Page) -> None:
    """There is a screen, and nothing is loading any more."""
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=HANG)
    expect(page.locator(".skeleton")).to_have_count(0, timeout=HANG)
    expect(page.locator('[aria-busy="true"]')).to_have_count(0, timeout=HANG)


def _start(page: Page, name: str, **body: Any) -> str:
    """A distribution, begun through the API with the page's own session. Returns its id."""
    script = """async (body) => {
        const me = await (await fetch("/api/v1/session")).json();
        const answer = await fetch("/api/v1/distributions", {
            method: "POST",
            headers: { "Content-Type": "application/json", "X-CSRF-Token": me.csrf },
            body: JSON.stringify(body),
        });
        return await answer.json();
    }"""
    found: str = page.evaluate(script, {"urls": [URL], "name": name} | body)["id"]
    return found


def _order(console: Console, job: str) -> str:
    """The order of a job, once the cluster has it."""
    found = [order for order in console.swarm.submitted if order == job or order.startswith(job)]
    return found[-1] if found else ""


class TestSigningIn:
    def test_a_wrong_password_is_told_and_a_right_one_leads_on(
        self, open_page: Open, watched: Watched
    ) -> None:
        watched.expected = {401}
        page = open_page("/nodes", user="")
        _head(page, "Sign in")
        page.get_by_label("Name").fill("admin")
        page.get_by_label("Password").fill("not the password")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("wrong name or password")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Password").press("Enter")
        _head(page, "Nodes")
        page.get_by_role("button", name="Sign out").click()
        _head(page, "Sign in")

    def test_too_many_attempts_are_told_with_the_time_to_wait(self, browser: Browser, tmp_path: Path) -> None:
        with running(tmp_path, Swarm(1), limits=Limits(logins="1/minute")) as console:
            context = browser.new_context(base_url=console.url)
            page = context.new_page()
            page.goto("/console/")
            page.get_by_label("Name").fill("admin")
            for _ in range(2):
                page.get_by_label("Password").fill("not the password")
                page.get_by_role("button", name="Sign in").click()
                expect(page.get_by_role("alert")).to_be_visible()
            expect(page.get_by_role("button", name=re.compile(r"Try again in \d+ s"))).to_be_disabled()
            context.close()


class TestDistributions:
    def test_from_the_form_to_the_end_with_a_failed_node_retried(
        self, open_page: Open, console: Console
    ) -> None:
        swarm = console.swarm
        page = open_page("/distributions")
        page.get_by_role("link", name="New distribution").first.click()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_text("At least one URL.")).to_be_visible()
        expect(page.get_by_label("URLs")).to_be_focused()
        page.get_by_label("URLs").fill(URL)
        page.get_by_label("Destination").fill("/data/weights")
        page.get_by_role("textbox", name="Name optional").fill("weights")
        expect(page.get_by_text("Reaches 12 nodes")).to_be_visible(timeout=HANG)
        broken = list(swarm.views)[3]
        swarm.broken[broken] = ("disk-full", "no space left on device: /data")
        page.get_by_role("button", name="Start").click()
        _head(page, "weights")
        job = page.url.rpartition("/")[2]
        order = self._given(page, console, job)
        for share in (0.3, 0.6):
            swarm.reach(order, share)
            expect(page.locator(".heat")).to_have_attribute(
                "aria-label", re.compile(rf"{self._filled(swarm, order)} %"), timeout=HANG
            )
        expect(page.get_by_text("no space left on device: /data").first).to_be_visible()
        swarm.reach(order, 1.0)
        expect(page.locator(".page-head [data-state=partial]")).to_be_visible(timeout=HANG)
        swarm.broken.clear()
        page.get_by_role("button", name="Retry", exact=True).first.click()
        expect(page).not_to_have_url(re.compile(job), timeout=HANG)
        again = page.url.rpartition("/")[2]
        order = self._given(page, console, again)
        assert swarm.orders[order].targets == (broken,)
        swarm.reach(order, 1.0)
        expect(page.locator(".page-head [data-state=succeeded]")).to_be_visible(timeout=HANG)
        expect(page.get_by_text("1 / 1")).to_be_visible()

    def _given(self, page: Page, console: Console, job: str) -> str:
        """The cluster has been given the job; its first cells show."""
        expect(page.locator(".heat")).to_be_visible(timeout=HANG)
        order = _order(console, job)
        assert order, console.swarm.submitted
        return order

    def _filled(self, swarm: Swarm, order: str) -> int:
        cells = swarm.availability(swarm._parts[order, 0].task_id, 256)
        assert cells is not None
        total = sum(sum(row) for row in cells.nodes.values())
        return round(100 * total / (255 * 256 * len(cells.nodes)))

    def test_what_runs_can_be_cancelled(self, open_page: Open, console: Console) -> None:
        page = open_page("/")
        _head(page, "Overview")
        job = _start(page, "to be cancelled")
        page.goto(f"/console/distributions/{job}")
        page.get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        dialog.get_by_role("button", name="Back").click()
        expect(dialog).to_have_count(0)
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.get_by_role("button", name="Cancel").click()
        dialog.get_by_role("button", name="Cancel it").click()
        expect(page.locator(".page-head [data-state=cancelled]")).to_be_visible(timeout=HANG)

    def test_a_refusal_is_shown_before_and_after_submit(self, open_page: Open, watched: Watched) -> None:
        watched.expected = {422, 403}
        page = open_page("/distributions/new")
        page.get_by_label("URLs").fill("http://127.0.0.1:1/x")
        page.get_by_label("Destination").fill("/etc/passwd")
        expect(page.locator(".note-box.warn li, .problem").first).to_be_visible(timeout=HANG)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert").first).to_be_visible(timeout=HANG)
        _head(page, "New distribution")


class TestAccess:
    def test_a_token_is_shown_once_works_and_is_revoked(self, open_page: Open, watched: Watched) -> None:
        watched.expected = {401}
        page = open_page("/tokens")
        page.get_by_role("button", name="New token").click()
        page.get_by_label("Name").fill("pipeline")
        page.get_by_role("button", name="Create").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("shown this once")
        token = dialog.locator("code").inner_text()
        page.get_by_role("button", name="I have stored it").click()
        assert self._status(page, token) == 200
        page.get_by_role("button", name="Revoke pipeline").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(page.locator("[data-state=revoked]").first).to_be_visible(timeout=HANG)
        assert self._status(page, token) == 401
        assert token not in page.content()

    def _status(self, page: Page, token: str) -> int:
        script = """async (token) => (await fetch("/api/v1/distributions", {
            credentials: "omit", headers: { Authorization: `Bearer ${token}` } })).status"""
        found: int = page.evaluate(script, token)
        return found

    def test_a_viewer_is_offered_nothing_that_the_manager_refuses(
        self, open_page: Open, watched: Watched
    ) -> None:
        watched.expected = {403}
        page = open_page("/distributions", user="vera")
        _settled(page)
        expect(page.get_by_role("link", name="New distribution")).to_have_count(0)
        menu = page.get_by_role("navigation", name="Main")
        expect(menu.get_by_role("link", name="Nodes")).to_be_visible()
        for hidden in ("Users", "Roles", "Secrets", "Audit", "Webhooks"):
            expect(menu.get_by_role("link", name=hidden)).to_have_count(0)
        page.goto("/console/nodes")
        _settled(page)
        expect(page.get_by_role("link", name="node-0", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Cordon")).to_have_count(0)
        page.goto("/console/config")
        _settled(page)
        expect(page.get_by_role("button", name="Review changes")).to_have_count(0)
        node = next(iter(page.evaluate("async () => (await (await fetch('/api/v1/nodes')).json()).items")))
        script = """async (node) => {
            const me = await (await fetch("/api/v1/session")).json();
            const headers = { "Content-Type": "application/json", "X-CSRF-Token": me.csrf };
            return (await fetch(`/api/v1/nodes/${node}/cordon`, { method: "POST", headers, body: "{}" })).status;
        }"""
        assert page.evaluate(script, node["node_id"]) == 403


class TestCluster:
    def test_a_node_is_cordoned_with_a_note_and_uncordoned(self, open_page: Open, console: Console) -> None:
        page = open_page("/nodes?name=node-7")
        page.get_by_role("button", name="Cordon").first.click()
        page.get_by_label("Why (seen by everybody)").fill("disk is swapped")
        page.get_by_role("dialog").get_by_role("button", name="Cordon").click()
        row = page.get_by_role("row", name=re.compile("node-7"))
        expect(row).to_contain_text("cordoned", timeout=HANG)
        expect(row).to_contain_text("disk is swapped")
        row.get_by_role("button", name="Uncordon").click()
        page.get_by_role("dialog").get_by_role("button", name="Uncordon").click()
        expect(row).not_to_contain_text("cordoned", timeout=HANG)

    def test_a_task_that_somebody_evicts_goes_from_its_page(
        self, open_page: Open, console: Console, watched: Watched
    ) -> None:
        page = open_page("/")
        _head(page, "Overview")
        job = _start(page, "to be evicted", urls=["https://example.com/evicted.bin"])
        page.goto(f"/console/distributions/{job}")
        expect(page.locator(".heat")).to_be_visible(timeout=HANG)
        order = _order(console, job)
        console.swarm.reach(order, 1.0)
        expect(page.locator(".page-head [data-state=succeeded]")).to_be_visible(timeout=HANG)
        task = console.swarm._parts[order, 0].task_id
        page.goto(f"/console/tasks/{task}")
        _head(page, "evicted.bin")
        watched.expected.add(404)
        script = """async (path) => {
            const me = await (await fetch("/api/v1/session")).json();
            const headers = { "Content-Type": "application/json", "X-CSRF-Token": me.csrf };
            return (await fetch(path, { method: "POST", headers, body: "{}" })).status;
        }"""
        assert page.evaluate(script, f"/api/v1/tasks/{task}/evict") == 200
        expect(page.get_by_text(f"task '{task}' not found").first).to_be_visible(timeout=HANG)
        expect(page.get_by_role("button", name="Evict")).to_have_count(0)

    def test_a_setting_is_reviewed_applied_and_rolled_back(self, open_page: Open) -> None:
        page = open_page("/config")
        page.get_by_label("transport.pipeline").fill("6")
        page.get_by_role("button", name="Review changes").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("row", name=re.compile("transport.pipeline"))).to_contain_text("6")
        dialog.get_by_label("Comment").fill("six")
        dialog.get_by_role("button", name="Apply to the cluster").click()
        expect(page.get_by_role("row", name=re.compile("Version 1"))).to_contain_text("six", timeout=HANG)
        expect(page.get_by_text("all of 12 nodes work with it")).to_be_visible(timeout=HANG)
        page.get_by_role("button", name="Reset to defaults").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("row", name=re.compile("Version 2"))).to_contain_text(
            "values of 0", timeout=HANG
        )


class TestEverywhere:
    @pytest.mark.parametrize("path", SCREENS)
    def test_axe_finds_nothing_serious_light_and_dark(self, open_page: Open, path: str) -> None:
        page = open_page(path, color_scheme="light")
        _head(page, SCREENS[path])
        _settled(page)
        for theme in ("light", "dark"):
            expect(page.locator("html")).to_have_attribute("data-theme", theme)
            _axe(page)
            page.get_by_role("button", name=re.compile("Use the .* theme")).click()

    def test_axe_on_what_runs_and_on_the_sign_in(self, open_page: Open, console: Console) -> None:
        page = open_page("/", color_scheme="light")
        _head(page, "Overview")
        console.swarm.broken[list(console.swarm.views)[5]] = ("node-lost", "the node does not answer")
        job = _start(page, "looked at")
        page.goto(f"/console/distributions/{job}")
        expect(page.locator(".heat")).to_be_visible(timeout=HANG)
        console.swarm.reach(_order(console, job), 0.6)
        expect(page.get_by_text("the node does not answer").first).to_be_visible(timeout=HANG)
        for _ in range(2):
            _axe(page)
            page.get_by_role("button", name=re.compile("Use the .* theme")).click()
        console.swarm.reach(_order(console, job), 1.0)
        console.swarm.broken.clear()
        task = next(iter(console.swarm.contents))
        page.goto(f"/console/tasks/{task}")
        expect(page.locator(".heat")).to_be_visible(timeout=HANG)
        _axe(page)
        page.goto(f"/console/nodes/{next(iter(console.swarm.views))}")
        _head(page, "node-0")
        _axe(page)
        out = open_page("/", user="", color_scheme="dark")
        _head(out, "Sign in")
        _axe(out)

    def test_a_phone_scrolls_in_one_direction(self, open_page: Open) -> None:
        page = open_page("/", viewport={"width": 390, "height": 844})
        for path, title in SCREENS.items():
            page.goto(f"/console{path}")
            _head(page, title)
            _settled(page)
            over = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert over <= 0, f"{path} is {over} px too wide"
        page.get_by_role("button", name="Open the navigation").click()
        page.get_by_role("dialog").get_by_role("link", name="Nodes").click()
        _head(page, "Nodes")
        expect(page.get_by_role("dialog")).to_have_count(0)

    def test_the_first_load_is_small_and_all_of_it_from_here(self, open_page: Open, watched: Watched) -> None:
        page = open_page("/")
        _head(page, "Overview")
        _settled(page)
        assets = [r for r in watched.responses if "/console/" in r.url and r.status == 200]
        assert len(assets) > 10
        assert sum(len(r.body()) for r in assets) < 1024 * 1024

    def test_keys_lead_everywhere(self, open_page: Open) -> None:
        page = open_page("/nodes")
        _settled(page)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Audit").press("Enter")
        _head(page, "Audit")
        expect(page.locator("#main")).to_be_focused()
        expect(page).to_have_title("Audit · dragonfly-ray")

    def test_a_broken_stream_is_told_and_comes_back(self, open_page: Open, watched: Watched) -> None:
        page = open_page("/")
        state = page.locator(".side .link-state").first
        expect(state).to_have_text("Live", timeout=HANG)
        page.route("**/stats/stream", lambda route: route.abort())
        page.goto("/console/")
        expect(state).to_have_text("Reconnecting…", timeout=HANG)
        page.unroute("**/stats/stream")
        expect(state).to_have_text("Live", timeout=HANG)
        watched.errors.clear()


class TestManyNodes:
    """1,000 nodes by 4,000 pieces: what keeps the page smooth, not how long it takes."""

    def test_only_rows_that_changed_are_drawn(self, open_page: Open) -> None:
        page = open_page("/")
        _head(page, "Overview")
        script = """async () => {
            const base = document.querySelector('script[type=module]').src.replace("app.js", "");
            const { CellGrid } = await import(base + "lib/live-job.js");
            const { Painter } = await import(base + "parts/heat-map.js");
            const grid = new CellGrid(1000, 4000);
            const row = (value) => btoa(String.fromCharCode(value).repeat(1000));
            for (let n = 0; n < 400; n += 1) grid.put(`n${n}`, row(0));
            const painter = new Painter(document.createElement("canvas"), document.createElement("canvas"), grid);
            painter.take();
            painter.draw(Infinity);
            const first = painter.rowsDrawn;
            for (const n of [7, 8, 390]) grid.put(`n${n}`, row(255));
            grid.put("n9", row(0));
            painter.take();
            painter.draw(Infinity);
            const few = painter.rowsDrawn - first;
            for (let n = 400; n < 1000; n += 1) grid.put(`n${n}`, row(128));
            painter.take();
            const left = painter.draw(-Infinity);
            return { first, few, height: painter.canvas.height, left, filled: grid.filled() };
        }"""
        found = page.evaluate(script)
        assert found["first"] == 400
        assert found["few"] == 3
        assert found["height"] <= 1000, "binned to pixels"
        assert found["left"] is True, "a frame stops when its time is over"
        assert found["filled"] == pytest.approx((3 * 255 + 600 * 128) / 255 / 1000)

    def test_the_page_stays_small(self, browser: Browser, tmp_path: Path) -> None:
        with running(tmp_path, Swarm(1000, pieces=4000)) as console:
            context = browser.new_context(base_url=console.url, reduced_motion="reduce")
            page = signed_in(context)
            job = _start(page, "many")
            page.goto(f"/console/distributions/{job}")
            expect(page.locator(".heat")).to_be_visible(timeout=HANG)
            order = _order(console, job)
            for share in (0.2, 0.4):
                console.swarm.reach(order, share)
                expect(page.locator(".heat")).to_have_attribute(
                    "aria-label", re.compile("1,000 nodes by 4,000 pieces, (?!0)"), timeout=HANG
                )
            expect(page.get_by_role("table", name="Nodes of this job")).to_have_attribute(
                "aria-rowcount", "1001"
            )
            assert page.locator(".virtual tbody tr").count() < 60
            assert page.evaluate("document.querySelectorAll('*').length") < 2500
            context.close()


def _axe(page: Page) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    bad = [
        (v["id"], v["help"], [n["html"][:160] for n in v["nodes"][:3]])
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert not bad, bad
