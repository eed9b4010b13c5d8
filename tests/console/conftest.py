"""The real application behind a real server, and Chromium in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright
from pydantic import SecretStr

from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.settings import Limits, ManagerSettings
from tests import programs
from tests.console.swarm import Swarm
from tests.manager import people
from tests.manager.serving import serving

PASSWORD = "correct horse battery"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Console:
    """A manager that serves its console. `swarm` is moved by hand."""

    url: str
    app: FastAPI
    swarm: Swarm


@dataclass
class Watched:
    """What a page did that nobody wanted. `expected`: statuses that a test provokes."""

    origin: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def follow(self, page: Page) -> Page:
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("response", lambda response: self.responses.append(response))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        return page

    def check(self) -> None:
        elsewhere = [url for url in self.requests if urlsplit(url).netloc != self.origin]
        assert not elsewhere, f"asked elsewhere: {elsewhere}"
        told = [e for e in self.errors if not any(f"status of {code}" in e for code in self.expected)]
        assert not told, f"the browser's console says {told}"


def settings(state: Path, **more: Any) -> ManagerSettings:
    """Without the limits that a suite of one user at one address would meet."""
    often = "100000/minute"
    return ManagerSettings(
        state_dir=state,
        DRAGONFLY_ADMIN_PASSWORD=SecretStr(PASSWORD),
        dest_roots=("/data",),
        **{"limits": Limits(requests=often, anonymous=often, logins=often)} | more,
    )


@contextlib.contextmanager
def running(state: Path, swarm: Swarm, **more: Any) -> Iterator[Console]:
    app = create_app(settings(state, **more), swarm)
    with serving(app) as url:
        yield Console(url, app, swarm)


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Debian's Chromium; `CHROMIUM` names another one."""
    found = programs.need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: Playwright's loop must not run beside other tests' own."""
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running(tmp_path_factory.mktemp("manager"), Swarm(12, pieces=256, size=1 << 30)) as found:
        database = people.database_of(found.app)
        people.user(database, "vera", "viewer")
        yield found


def signed_in(context: BrowserContext, name: str = "admin", password: str = PASSWORD) -> Page:
    """By the form, as people do. Ends on the overview."""
    page = context.new_page()
    page.goto("/console/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    return page


@pytest.fixture(scope="module")
def sessions(browser: Browser, console: Console) -> dict[str, Any]:
    """User -> what a browser keeps of having signed in."""
    found: dict[str, Any] = {}
    for name, password in (("admin", PASSWORD), ("vera", people.PASSWORD)):
        context = browser.new_context(base_url=console.url)
        signed_in(context, name, password)
        found[name] = context.storage_state()
        context.close()
    return found


Open = Callable[..., Page]


@pytest.fixture
def watched(console: Console) -> Iterator[Watched]:
    found = Watched(urlsplit(console.url).netloc)
    yield found
    found.check()


@pytest.fixture
def open_page(
    browser: Browser, console: Console, sessions: dict[str, Any], watched: Watched
) -> Iterator[Open]:
    """A page of the console, as a user who is signed in already; "" is nobody."""
    contexts: list[BrowserContext] = []

    def opened(path: str = "/", user: str = "admin", **options: Any) -> Page:
        state = sessions[user] if user else None
        context = browser.new_context(
            base_url=console.url, storage_state=state, reduced_motion="reduce", **options
        )
        contexts.append(context)
        page = watched.follow(context.new_page())
        page.goto(f"/console{path}")
        # Without it the window may be one that has no focus.
        page.bring_to_front()
        return page

    yield opened
    for context in contexts:
        context.close()
