"""The console's files, as the manager serves them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.routes import console
from tests.console.conftest import settings
from tests.console.swarm import Swarm

FOLDER = Path(__file__).parents[2] / "serve" / "console"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(settings(tmp_path_factory.mktemp("manager")), Swarm(1))
    with TestClient(app, base_url="http://manager") as found:
        yield found


def _asset(name: str, version: str = "") -> str:
    return f"/console/assets/{version or console.assets().version}/{name}"


@pytest.mark.parametrize("path", ["/", "/console"])
def test_the_start_leads_to_the_console(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/console/")


@pytest.mark.parametrize("path", ["", "distributions", "distributions/0123", "nodes/x%2Fy", "no/such/screen"])
def test_every_screen_is_the_same_page(client: TestClient, path: str) -> None:
    answer = client.get(f"/console/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "{{" not in answer.text
    again = client.get(f"/console/{path}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_policy_is_strict_and_the_page_keeps_to_it(client: TestClient) -> None:
    answer = client.get("/console/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", answer.text)
    for named in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert client.get(named).status_code == 200, named


def test_files_are_kept_for_good_and_are_what_they_say(client: TestClient) -> None:
    for name, kind in (
        ("app.js", "text/javascript; charset=utf-8"),
        ("style/parts.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("vendor/fonts/geist-latin-wght-normal.woff2", "font/woff2"),
    ):
        answer = client.get(_asset(name))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.content == (FOLDER / name).read_bytes()
        assert client.get(_asset(name), headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_another_version_s_files_are_not_kept(client: TestClient) -> None:
    answer = client.get(_asset("app.js", "0000000000000000"))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name",
    [
        "../routes/console.py",
        "..%2froutes%2fconsole.py",
        "%2e%2e/%2e%2e/pyproject.toml",
        "/etc/passwd",
        "style/../../settings.py",
        "style\\..\\..\\settings.py",
        "vendor/package.json",
        "vendor/vendor.mjs",
        "index.html",
        "nothing.js",
        "",
    ],
)
def test_nothing_else_comes_out(client: TestClient, name: str) -> None:
    answer = client.get(_asset(name))
    assert answer.status_code == 404 or answer.text == client.get("/console/").text
    assert "import" not in answer.text or answer.text == client.get("/console/").text


def test_all_of_it_is_small_as_it_is_served(client: TestClient) -> None:
    """Every screen, every library, both fonts, and not packed."""
    found = console.assets()
    loaded = {
        n: a for n, a in found.files.items() if not n.startswith(("vendor/licences/", "vendor/entries/"))
    }
    assert sum(len(a.body) for a in loaded.values()) < 1024 * 1024
    assert sum(len(a.packed or a.body) for a in loaded.values()) < 300 * 1024
    answer = client.get(_asset("vendor/uplot.js"), headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == found.files["vendor/uplot.js"].body


def test_libraries_are_pinned_and_keep_their_licences() -> None:
    named = json.loads((FOLDER / "vendor" / "package.json").read_text())["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in named.values()), named
    texts = [path.read_text() for path in (FOLDER / "vendor" / "licences").iterdir()]
    for name, version in named.items():
        if name != "esbuild":
            assert any(text.startswith(f"{name} {version}\n") for text in texts), name
