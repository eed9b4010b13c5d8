"""The documentation builds without a network, strictly, and is made of the code as it is."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from dragonfly_ray import errors, telemetry
from dragonfly_ray.cli.app import app
from dragonfly_ray.config import Settings
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.transport import protocol

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?([^\" >]+)", re.IGNORECASE)
ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
QUESTIONS = {
    "Which ports must be open between nodes?": ("security.html", "network"),
    "Who may read the origin, and how do I protect it?": ("architecture.html", "the-way-of-an-order"),
    "What survives a crash of a peer, and of the machine?": ("storage.html", "journal"),
    "What does a frame on the wire look like?": ("wire-protocol.html", "frame-layout"),
    "In which order are locks taken?": ("threads.html", "lock-order"),
    "Why no gRPC?": ("decisions/0001-ray-actors-own-frames.html", None),
    "How do I take a node out for maintenance?": ("operations.html", "maintain-nodes"),
    "What do I alert on?": ("operations.html", "what-to-watch"),
    "It is slow: what limits it?": ("operations.html", "symptoms"),
    "How do I add a source, a policy?": ("contributing.html", "how-to-add-a-source"),
}
"""What somebody asks who knows the field and not this project, and where the answer stands."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def text(site: Path, page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", (site / page).read_text()))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        found = [url for url in LOADED.findall(page.read_text()) if ELSEWHERE.match(url)]
        assert not found, (page.name, found)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text()), style
    # Before the theme's own script, which fetches one where there is none.
    scripts = re.findall(r"<script src=\"?([^\" >]+)", (site / "architecture.html").read_text())
    (drawing,) = (n for n, url in enumerate(scripts) if url == "assets/mermaid.js")
    (theme,) = (n for n, url in enumerate(scripts) if "bundle" in url)
    assert theme != drawing
    assert "globalThis" in (site / "assets" / "mermaid.js").read_text()


def test_every_setting_is_described(site: Path) -> None:
    found = text(site, "reference/settings.html")
    for name, field in Settings.model_fields.items():
        fields = getattr(field.annotation, "model_fields", None)
        for each in [f"{name}.{n}" for n in fields] if fields else [name]:
            assert each in found, each
    managers = text(site, "reference/manager-settings.html")
    for name in ManagerSettings.model_fields:
        assert name in managers, name


def test_every_metric_command_error_and_frame_is_described(site: Path) -> None:
    metrics = text(site, "reference/metrics.html")
    for name in (*telemetry.COUNTERS, *telemetry.GAUGES, "dragonfly_manager_ready"):
        assert name in metrics, name
    commands = text(site, "reference/cli.html")
    group = typer.main.get_command(app)
    for name in group.commands:  # type: ignore[attr-defined]
        assert f"dragonfly {name}" in commands, name
    kinds = text(site, "reference/errors.html")
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, errors.DragonflyError):
            assert each.kind in kinds, each
    frames = text(site, "wire-protocol.html")
    for cls in protocol._TYPES:
        assert cls.__name__ in frames, cls


def test_every_route_is_described(site: Path) -> None:
    document = json.loads((site / "reference" / "openapi.json").read_text())
    assert len(document["paths"]) > 40
    found = text(site, "reference/rest.html")
    for path, item in document["paths"].items():
        for method in item:
            if method in ("get", "post", "put", "patch", "delete"):
                assert f"{method.upper()} {path}" in found, path


def test_every_public_call_is_described(site: Path) -> None:
    import dragonfly_ray

    page = (site / "reference" / "python.html").read_text()
    for name in dragonfly_ray.__all__:
        if name != "Settings":  # which has a page of its own
            assert re.search(rf'id="dragonfly_ray\.[\w.]*\b{name}"', page), name
    assert "{options}" not in text(site, "reference/python.html")


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_have_their_place(site: Path, question: str) -> None:
    page, anchor = QUESTIONS[question]
    content = (site / page).read_text()
    assert anchor is None or f'id="{anchor}"' in content


def test_links_of_files_at_the_top_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "configs/README.md"):
        file = ROOT / name
        for link in re.findall(r"\]\(([^)#]+)", file.read_text()):
            if "://" not in link:
                assert (file.parent / link).exists(), (name, link)


def test_what_symptoms_quote_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("## Symptoms")[2].partition("\n## ")[0]
    quoted = [
        q
        for row in section.splitlines()
        for q in re.findall(r"`([^`]+)`", row.split("|")[1] if "|" in row else "")
    ]
    parts = [
        part.strip() for each in quoted if " " in each for part in each.split("…") if " " in part.strip()
    ]
    assert len(parts) >= 4
    folders = ("dragonfly_ray", "actors", "serve", "sources")
    code = "".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py"))
    for part in parts:
        assert part in code, part
