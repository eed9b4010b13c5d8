"""Every diagram of the documentation, by the script that comes with it, in a browser without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.console
DOCS = Path(__file__).parents[2] / "docs"
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
DRAW = "async text => (await mermaid.render('drawn', text)).svg"


def test_every_diagram_is_drawn(browser: Browser) -> None:
    found = [(f, each) for f in sorted(DOCS.rglob("*.md")) for each in DIAGRAM.findall(f.read_text())]
    assert len(found) >= 6
    context = browser.new_context(offline=True)
    try:
        page = context.new_page()
        page.set_content("<!doctype html><title>diagrams</title>")
        page.add_script_tag(path=DOCS / "assets" / "mermaid.js")
        for file, diagram in found:
            assert "<svg" in page.evaluate(DRAW, diagram), file.name
    finally:
        context.close()
