"""The console's forms and dialogs in Chromium: what an operator makes, changes and takes away with them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.serve.database.tables import Secret
from dragonfly_ray.serve.webhooks.backoff import Backoff
from tests.console.conftest import Console, Open, Watched, running
from tests.console.swarm import Swarm
from tests.console.test_screens import HANG, URL, _axe, _head, _order, _settled, _start
from tests.manager import people
from tests.manager.receivers import Receiver, receiving

pytestmark = pytest.mark.console
LOOPBACK = UrlPolicy(schemes=("http", "https"), networks=("127.0.0.0/8",))
NODES = 12


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """As everywhere, but its webhooks may go to receivers of the test."""
    with running(
        tmp_path_factory.mktemp("manager"), Swarm(NODES, pieces=64, size=1 << 30), webhook_urls=LOOPBACK
    ) as found:
        people.user(people.database_of(found.app), "vera", "viewer")
        yield found


def _row(page: Page, table: str, name: str) -> Locator:
    return page.get_by_role("table", name=table, exact=True).get_by_role("row", name=re.compile(name))


def _press(page: Page, name: str) -> None:
    """A button of the dialog that is open; it closes."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=name, exact=True).click()
    expect(dialog).to_have_count(0, timeout=HANG)


def _answers(watched: Watched) -> list[tuple[str, str]]:
    """What the API answered: method with path, and text. Streams have no end, and are left out."""
    found = []
    for response in watched.responses:
        told = "json" in response.headers.get("content-type", "")
        if told and "/api/" in response.url and not response.request.failure:
            path = response.url.partition("/api/v1")[2]
            found.append((f"{response.request.method} {path}", response.text()))
    return found


def _held(page: Page, console: Console, name: str) -> str:
    """Content that lies on all nodes. Returns its task's id."""
    url = f"https://example.com/models/{name}"
    page.goto(f"/console/distributions/{_start(page, name, urls=[url])}")
    expect(page.locator(".heat")).to_be_visible(timeout=HANG)
    console.swarm.reach(_order(console, page.url.rpartition("/")[2]), 1.0)
    expect(page.locator(".page-head [data-state=succeeded]")).to_be_visible(timeout=HANG)
    return next(task for task, view in console.swarm.contents.items() if view.url == url)


def _axe_in_both_themes(page: Page) -> None:
    """By the system's theme: a dialog covers the button that changes the console's own."""
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for theme in themes:
        page.emulate_media(color_scheme=theme)
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        _axe(page)


class TestSecrets:
    VALUES = ("Bearer 3f8a11c0-first", "5d20bb77-second")

    def test_made_replaced_and_deleted_with_its_values_shown_nowhere(
        self, open_page: Open, watched: Watched
    ) -> None:
        page = open_page("/secrets")
        page.get_by_role("button", name="New secret").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("models")
        dialog.get_by_label("HTTP headers: name 1").fill("Authorization")
        dialog.get_by_label("HTTP headers: value 1").fill(self.VALUES[0])
        dialog.get_by_label("Allowed hosts").fill("cdn.example.com\nmodels.example.com")
        _press(page, "Save")
        row = _row(page, "Secrets", "models")
        expect(row).to_contain_text("headers.Authorization", timeout=HANG)
        expect(row).to_contain_text("cdn.example.com, models.example.com")
        self._hidden(page, watched)

        expect(row).to_contain_text("may use it")
        row.get_by_role("button", name="Grant models").click()
        expect(dialog.get_by_label("Users")).to_be_enabled(timeout=HANG)
        _axe(page)
        dialog.get_by_label("Users").fill("vera")
        dialog.get_by_label("Roles").fill("operator\nviewer")
        _press(page, "Save")
        row.get_by_role("button", name="Grant models").click()
        expect(dialog.get_by_label("Users")).to_have_value("vera", timeout=HANG)
        expect(dialog.get_by_label("Roles")).to_have_value("operator\nviewer")
        _press(page, "Back")

        row.get_by_role("button", name="Replace models").click()
        expect(dialog).to_contain_text("All its values are replaced")
        expect(dialog.get_by_label("Allowed hosts")).to_have_value("cdn.example.com\nmodels.example.com")
        for field in ("name", "value"):
            expect(dialog.get_by_label(f"HTTP headers: {field} 1")).to_have_value("")
        dialog.get_by_label("Storage options: name 1").fill("key")
        dialog.get_by_label("Storage options: value 1").fill(self.VALUES[1])
        _press(page, "Save")
        expect(row).to_contain_text("storage_options.key", timeout=HANG)
        expect(row).not_to_contain_text("Authorization")
        self._hidden(page, watched)

        row.get_by_role("button", name="Delete models").click()
        _press(page, "Back")
        row.get_by_role("button", name="Delete models").click()
        expect(dialog).to_contain_text("Jobs and schedules that name it fail")
        _press(page, "Delete")
        expect(page.get_by_text("No secrets")).to_be_visible(timeout=HANG)

    def _hidden(self, page: Page, watched: Watched) -> None:
        answers = _answers(watched)
        assert any("models.example.com" in text for _, text in answers), "nothing was looked at"
        for value in self.VALUES:
            assert value not in page.content()
            assert not [path for path, text in answers if value in text]

    def test_a_refusal_is_told_in_the_dialog_which_keeps_what_was_written(
        self, open_page: Open, watched: Watched
    ) -> None:
        watched.expected = {409}
        page = open_page("/secrets")
        dialog = page.get_by_role("dialog")
        for _ in range(2):
            page.get_by_role("button", name="New secret").first.click()
            dialog.get_by_label("Name", exact=True).fill("taken")
            dialog.get_by_label("Storage options: name 1").fill("key")
            dialog.get_by_label("Storage options: value 1").fill(self.VALUES[1])
            dialog.get_by_label("Allowed hosts").fill("bucket")
            dialog.get_by_role("button", name="Save").click()
            expect(_row(page, "Secrets", "taken")).to_be_visible(timeout=HANG)
        expect(dialog.get_by_role("alert")).to_contain_text("secret 'taken' already exists", timeout=HANG)
        expect(dialog.get_by_label("Storage options: value 1")).to_have_value(self.VALUES[1])
        _axe(page)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)

    def test_one_without_hosts_says_why_it_opens_nothing(
        self, open_page: Open, watched: Watched, console: Console
    ) -> None:
        page = open_page("/secrets")
        page.get_by_role("button", name="New secret").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("relic")
        dialog.get_by_label("HTTP headers: name 1").fill("Authorization")
        dialog.get_by_label("HTTP headers: value 1").fill("Bearer x")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.get_by_label("Allowed hosts")).to_be_focused()  # the browser asks for what is required
        dialog.get_by_label("Allowed hosts").fill("cdn.example.com")
        _press(page, "Save")
        expect(_row(page, "Secrets", "relic")).not_to_contain_text("Disabled", timeout=HANG)
        with people.database_of(console.app).write() as session:
            secret = session.get_one(Secret, "relic")
            secret.hosts, secret.disabled = [], "no-hosts"
        page.reload()
        expect(_row(page, "Secrets", "relic")).to_contain_text("Disabled", timeout=HANG)
        expect(_row(page, "Secrets", "relic")).to_contain_text("it lists no hosts")
        page.goto("/console/distributions/new")
        expect(page.get_by_label("Secret")).to_be_visible(timeout=HANG)
        expect(page.get_by_label("Secret").get_by_role("option", name="relic")).to_have_count(0)


class TestSchedules:
    def test_by_cron_with_its_next_runs_run_now_and_disabled(self, open_page: Open, console: Console) -> None:
        page = open_page("/schedules")
        page.get_by_role("link", name="New schedule").first.click()
        self._fill(page, "nightly")
        cron = page.get_by_label("Cron", exact=True)
        cron.fill("every night")
        expect(page.get_by_text("Five fields:")).to_be_visible()
        page.get_by_role("button", name="Save").click()
        expect(cron).to_be_focused()
        _head(page, "New schedule")
        cron.fill("15 4 * * *")
        expect(page.get_by_text("Five fields:")).to_have_count(0)
        page.get_by_label("Time zone").select_option("Europe/Berlin")
        page.get_by_role("button", name="Save").click()
        _head(page, "nightly")
        expect(page).to_have_url(re.compile(r"/schedules/(?!new)\w"))
        expect(page.locator(".page-head")).to_contain_text("15 4 * * * Europe/Berlin")
        expect(page.locator(".upcoming li")).to_have_count(5, timeout=HANG)
        schedule = page.url

        page.get_by_role("button", name="Run now").click()
        expect(page).to_have_url(re.compile("/console/distributions/"), timeout=HANG)
        job = page.url.rpartition("/")[2]
        expect(page.locator(".heat")).to_be_visible(timeout=HANG)
        assert [s.url for s in console.swarm.orders[_order(console, job)].sources] == [URL]

        page.goto(schedule)
        page.get_by_label("Enabled").uncheck()
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".page-head [data-state=disabled]")).to_be_visible(timeout=HANG)
        expect(page.get_by_text("None while it is disabled.")).to_be_visible(timeout=HANG)
        expect(page.get_by_label("Enabled")).not_to_be_checked()
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Schedules").click()
        row = _row(page, "Schedules", "nightly")
        expect(row.locator("[data-state=disabled]")).to_be_visible(timeout=HANG)
        expect(row.locator(f'a[href$="/distributions/{job}"]')).to_be_visible()

    def test_by_interval_and_deleted(self, open_page: Open) -> None:
        page = open_page("/schedules/new")
        self._fill(page, "often")
        page.get_by_role("radio", name="Interval").check()
        page.get_by_role("radio", name="A preheat").check()
        every = page.get_by_label("Every")
        every.fill("0")
        expect(page.get_by_text("At least ten seconds.")).to_be_visible()
        page.get_by_role("button", name="Save").click()
        expect(every).to_be_focused()
        every.fill("2")
        page.get_by_label("Unit").select_option("days")
        page.get_by_role("button", name="Save").click()
        _head(page, "often")
        expect(page.locator(".page-head")).to_contain_text("every 2 d")
        expect(page.locator(".upcoming li")).to_have_count(5, timeout=HANG)
        expect(every).to_have_value("2")
        expect(page.get_by_label("Unit")).to_have_value("86400")
        page.get_by_role("link", name="Schedules").first.click()
        row = _row(page, "Schedules", "often")
        expect(row).to_contain_text("preheat", timeout=HANG)
        row.get_by_role("button", name="Delete often").click()
        _press(page, "Delete")
        expect(row).to_have_count(0, timeout=HANG)

    def test_a_time_that_never_comes_is_told_and_nothing_is_lost(
        self, open_page: Open, watched: Watched
    ) -> None:
        watched.expected = {422}
        page = open_page("/schedules/new")
        self._fill(page, "never")
        page.get_by_label("Cron", exact=True).fill("0 0 31 2 *")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("form").get_by_role("alert")).to_be_visible(timeout=HANG)
        _head(page, "New schedule")
        expect(page.get_by_label("URLs")).to_have_value(URL)

    def test_one_whose_secret_is_gone_says_so_and_can_do_without(
        self, open_page: Open, watched: Watched
    ) -> None:
        watched.expected = {422}
        page = open_page("/secrets")
        page.get_by_role("button", name="New secret").first.click()
        page.get_by_label("Name", exact=True).fill("short-lived")
        page.get_by_label("HTTP headers: name 1").fill("Authorization")
        page.get_by_label("HTTP headers: value 1").fill("Bearer x")
        page.get_by_label("Allowed hosts").fill(urlsplit(URL).netloc)
        _press(page, "Save")
        page.goto("/console/schedules/new")
        self._fill(page, "with a secret")
        secret = page.get_by_label("Secret")
        secret.select_option("short-lived")
        page.get_by_role("button", name="Save").click()
        _head(page, "with a secret")
        schedule = page.url
        page.goto("/console/secrets")
        page.get_by_role("button", name="Delete short-lived").click()
        _press(page, "Delete")
        page.goto(schedule)
        expect(secret).to_have_value("short-lived", timeout=HANG)
        page.get_by_role("button", name="Save").click()
        expect(page.locator("form").get_by_role("alert")).to_contain_text("short-lived", timeout=HANG)
        secret.select_option("none")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("form").get_by_role("alert")).to_have_count(0, timeout=HANG)
        page.reload()
        expect(secret).to_have_value("", timeout=HANG)

    def test_axe_on_one_that_there_is(self, open_page: Open) -> None:
        page = open_page("/schedules/new")
        self._fill(page, "looked at")
        page.get_by_role("button", name="Save").click()
        _head(page, "looked at")
        expect(page.locator(".upcoming li")).to_have_count(5, timeout=HANG)
        expect(page.get_by_text(f"Reaches {NODES} nodes")).to_be_visible(timeout=HANG)
        _axe_in_both_themes(page)

    def _fill(self, page: Page, name: str) -> None:
        page.get_by_role("textbox", name="Name", exact=True).fill(name)
        page.get_by_label("URLs").fill(URL)


class TestWebhooks:
    def test_from_a_failure_to_a_delivery(
        self, open_page: Open, watched: Watched, console: Console, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One attempt and no more, so that nothing but Redeliver makes another."""
        monkeypatch.setattr(console.app.state.manager.webhooks, "backoff", Backoff(over=0.0))
        answers = iter([500, 204])
        with receiving(Receiver(lambda received: (next(answers), {}))) as receiver:
            page = open_page("/webhooks")
            key = self._made(page, "pipeline", receiver.url, "config.*")
            assert [path for path, text in _answers(watched) if key in text] == ["POST /webhooks"]
            page.get_by_role("link", name="pipeline").click()
            _head(page, "pipeline")
            expect(page.get_by_text("No deliveries yet")).to_be_visible(timeout=HANG)

            page.get_by_role("button", name="Send a test").click()
            row = _row(page, "Deliveries", "^test ")
            expect(row.locator("[data-state=failed]")).to_be_visible(timeout=HANG)
            expect(row).to_contain_text("HTTP 500")
            expect(page.get_by_text("Deliveries are failing")).to_be_visible(timeout=HANG)
            expect(page.locator(".page-head [data-state=failing]")).to_be_visible()
            refused = receiver.next()
            assert refused.verified(key)["type"] == "test"
            _axe_in_both_themes(page)

            row.get_by_role("button", name="Send delivery").click()
            expect(row.locator("[data-state=delivered]")).to_be_visible(timeout=HANG)
            expect(row).not_to_contain_text("HTTP 500")
            expect(page.get_by_text("Deliveries are failing")).to_have_count(0, timeout=HANG)
            again = receiver.next()
            assert again.verified(key) == refused.verified(key)
            assert again.headers["webhook-id"] == refused.headers["webhook-id"]
            assert key not in page.content()

    def test_what_is_sent_meanwhile_is_seen_and_it_is_deleted(self, open_page: Open) -> None:
        with receiving() as receiver:
            page = open_page("/webhooks")
            self._made(page, "chat", receiver.url, "job.*")
            page.get_by_role("link", name="chat").click()
            expect(page.get_by_text("No deliveries yet")).to_be_visible(timeout=HANG)
            job = _start(page, "told of")
            assert job.encode() in receiver.next().body
            row = _row(page, "Deliveries", "job.created")
            expect(row.locator("[data-state=delivered]")).to_be_visible(timeout=HANG)
            page.get_by_role("button", name="Delete").click()
            expect(page.get_by_role("dialog")).to_contain_text("Its deliveries go with it.")
            _press(page, "Delete")
            _head(page, "Webhooks")
            expect(page.get_by_role("link", name="chat")).to_have_count(0, timeout=HANG)

    def _made(self, page: Page, name: str, url: str, events: str) -> str:
        """Its signing key, which is shown once."""
        page.get_by_role("button", name="New webhook").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_label("URL").fill(url)
        dialog.get_by_role("button", name=f"Add {events}").click()
        expect(dialog.get_by_role("textbox", name="Events")).to_have_value(events)
        dialog.get_by_role("button", name="Save").click()
        expect(dialog).to_contain_text("It is shown this once.", timeout=HANG)
        key = dialog.locator(".once code").inner_text()
        assert key.startswith("whsec_")
        _press(page, "I have stored it")
        expect(_row(page, "Webhooks", name)).to_contain_text(events, timeout=HANG)
        assert key not in page.content()
        return key


class TestTasks:
    def test_pinned_for_a_time_unpinned_and_evicted(
        self, open_page: Open, console: Console, watched: Watched
    ) -> None:
        # 404: the page may hear of the eviction before it has left.
        watched.expected = {404, 409}
        page = open_page("/")
        task = _held(page, console, "kept.bin")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Tasks").click()
        page.get_by_role("link", name="kept.bin").click()
        _head(page, "kept.bin")
        expect(page.get_by_text("Not pinned")).to_be_visible(timeout=HANG)

        page.get_by_role("button", name="Pin", exact=True).click()
        page.get_by_label("How long").select_option("a day")
        _press(page, "Pin")
        pins = page.get_by_role("table", name="Pins").get_by_role("row")
        expect(pins).to_have_count(NODES + 1, timeout=HANG)
        expect(pins.nth(1)).to_contain_text("manager:admin")
        held = console.swarm.pins(task)
        assert {pin.node_id for pin in held} == set(console.swarm.views)
        assert all(0 < (pin.expires_at or 0) - time.time() <= 86_400 for pin in held)

        page.get_by_role("button", name="Evict").click()
        page.get_by_role("dialog").get_by_role("button", name="Evict").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("is pinned", timeout=HANG)
        _press(page, "Back")
        assert len(console.swarm.contents[task].holders) == NODES

        page.get_by_role("button", name="Unpin").click()
        _press(page, "Unpin")
        expect(page.get_by_text("Not pinned")).to_be_visible(timeout=HANG)
        assert not console.swarm.pins(task)

        page.get_by_role("button", name="Evict").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"The copies of {NODES} nodes go")
        _press(page, "Evict")
        _head(page, "Tasks")
        expect(page.locator("#main")).to_be_focused()
        _settled(page)
        expect(page.get_by_role("link", name="kept.bin")).to_have_count(0)
        assert task not in console.swarm.contents


class TestPeople:
    PASSWORD = "a pass phrase of ivan"

    def test_a_user_is_made_signs_in_is_given_a_role_disabled_and_deleted(
        self, open_page: Open, watched: Watched
    ) -> None:
        watched.expected = {401}
        page = open_page("/users")
        self._user(page, "ivan", "viewer")
        expect(_row(page, "Users", "^ivan")).to_contain_text("viewer", timeout=HANG)
        his = open_page("/distributions", user="")
        self._sign_in(his, "ivan")
        _settled(his)
        expect(his.get_by_role("link", name="New distribution")).to_have_count(0)

        page.get_by_role("button", name="Change ivan").click()
        page.get_by_label("Role").select_option("operator")
        _press(page, "Save")
        expect(_row(page, "Users", "^ivan")).to_contain_text("operator", timeout=HANG)
        his.reload()
        expect(his.get_by_role("link", name="New distribution").first).to_be_visible(timeout=HANG)

        page.get_by_role("button", name="Change ivan").click()
        page.get_by_label("Disabled").check()
        _press(page, "Save")
        expect(_row(page, "Users", "^ivan").locator("[data-state=disabled]")).to_be_visible(timeout=HANG)
        his.reload()
        _head(his, "Sign in")
        self._sign_in(his, "ivan")
        expect(his.get_by_role("alert")).to_be_visible(timeout=HANG)

        page.get_by_role("button", name="Delete ivan").click()
        _press(page, "Delete")
        expect(_row(page, "Users", "^ivan")).to_have_count(0, timeout=HANG)
        expect(_row(page, "Users", "^admin").get_by_role("button", name="Delete")).to_have_count(0)

    def test_a_role_is_made_of_permissions_and_given(self, open_page: Open, watched: Watched) -> None:
        watched.expected = {409}
        page = open_page("/roles")
        page.get_by_role("button", name="New role").click()
        dialog = page.get_by_role("dialog")
        name = dialog.get_by_label("Name")
        name.fill("Release Team")
        for resource, verb in (("nodes", "read"), ("jobs", "read"), ("tasks", "read")):
            dialog.get_by_role("group", name=resource).get_by_label(verb).check()
        dialog.get_by_role("button", name="Save").click()
        expect(name).to_be_focused()
        assert not name.evaluate("input => input.validity.valid")
        name.fill("release-team")
        _press(page, "Save")
        row = _row(page, "Roles", "^release-team")
        expect(row.get_by_role("cell").nth(1)).to_have_text("3", timeout=HANG)

        page.get_by_role("navigation", name="Main").get_by_role("link", name="Users").click()
        self._user(page, "rita", "release-team")
        expect(_row(page, "Users", "^rita")).to_contain_text("release-team", timeout=HANG)
        hers = open_page("/nodes", user="")
        self._sign_in(hers, "rita")
        _head(hers, "Nodes")
        menu = hers.get_by_role("navigation", name="Main")
        expect(menu.get_by_role("link", name="Tasks")).to_be_visible(timeout=HANG)
        for hidden in ("Config", "Users", "Secrets"):
            expect(menu.get_by_role("link", name=hidden)).to_have_count(0)

        page.get_by_role("button", name="Change rita").click()
        expect(dialog.get_by_label("Role")).to_have_value("release-team", timeout=HANG)
        _press(page, "Back")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Roles").click()
        row.get_by_role("button", name="Change release-team").click()
        dialog.get_by_role("group", name="config").get_by_label("read").check()
        _press(page, "Save")
        expect(row.get_by_role("cell").nth(1)).to_have_text("4", timeout=HANG)
        row.get_by_role("button", name="Delete release-team").click()
        expect(dialog).to_contain_text("1 user")
        dialog.get_by_role("button", name="Delete").click()
        expect(dialog.get_by_role("alert")).to_be_visible(timeout=HANG)
        _press(page, "Back")

    def _user(self, page: Page, name: str, role: str) -> None:
        page.get_by_role("button", name="New user").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_label("Role").select_option(role)
        dialog.get_by_label("Password").fill(self.PASSWORD)
        _press(page, "Create")

    def _sign_in(self, page: Page, name: str) -> None:
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(self.PASSWORD)
        page.get_by_role("button", name="Sign in").click()


def _pressing(path: str, button: str) -> Callable[[Page, Console], None]:
    def opened(page: Page, console: Console) -> None:
        page.goto(f"/console{path}")
        page.get_by_role("button", name=button, exact=True).first.click()

    return opened


def _all_of_a_token(page: Page, console: Console) -> None:
    _pressing("/tokens", "New token")(page, console)
    page.get_by_label("All permissions of its owner").uncheck()


def _pinning(page: Page, console: Console) -> None:
    page.goto(f"/console/tasks/{_held(page, console, 'looked-at.bin')}")
    page.get_by_role("button", name="Pin", exact=True).click()


def _reviewing(page: Page, console: Console) -> None:
    page.goto("/console/config")
    page.get_by_label("transport.pipeline").fill("7")
    page.get_by_role("button", name="Review changes").click()


DIALOGS: dict[str, Callable[[Page, Console], None]] = {
    "New secret": _pressing("/secrets", "New secret"),
    "New token": _all_of_a_token,
    "New webhook": _pressing("/webhooks", "New webhook"),
    "New user": _pressing("/users", "New user"),
    "New role": _pressing("/roles", "New role"),
    "Pin it on all holders": _pinning,
    "Cordon node-0?": _pressing("/nodes", "Cordon"),
    "Review changes": _reviewing,
}


class TestDialogs:
    @pytest.mark.parametrize("title", DIALOGS)
    def test_axe_finds_nothing_serious_light_and_dark(
        self, open_page: Open, console: Console, title: str
    ) -> None:
        page = open_page("/")
        _head(page, "Overview")
        DIALOGS[title](page, console)
        expect(page.get_by_role("dialog", name=title)).to_be_visible(timeout=HANG)
        _axe_in_both_themes(page)
