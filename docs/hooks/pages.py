"""MkDocs' hook: generated pages, generated tables within pages, and the files at the top of the checkout as pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from docs.hooks import tables

ROOT = Path(__file__).parents[2]
AT_THE_TOP = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "configs/README.md": "configuration-files.md",
}
_TABLE = re.compile(r"^<!-- table: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    for name, make in tables.PAGES.items():
        files.append(File.generated(config, name, content=make()))
    files.append(
        File.generated(config, "reference/openapi.json", content=json.dumps(tables.openapi(), indent=1))
    )
    for source, page in AT_THE_TOP.items():
        files.append(File.generated(config, page, content=_relinked((ROOT / source).read_text())))
    return files


def _relinked(text: str) -> str:
    """Links as they are from within the documentation."""
    for source, page in AT_THE_TOP.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text.replace("](docs/", "](")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return _TABLE.sub(lambda found: tables.TABLES[found[1]](), markdown)
