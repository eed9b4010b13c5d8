"""A bill of materials (CycloneDX) of what is shipped: the locked packages, and the console's libraries.

`python -m tests.sbom FILE`. The same sources give the same bytes, and where packages were got from is not in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
CONSOLE = ROOT / "serve" / "console" / "vendor" / "package.json"
BUILD_TOOLS = frozenset({"esbuild"})
"""Of the console's packages, those that are in nothing that is shipped."""


def bill() -> str:
    """The document. Raises `SystemExit` where it is none."""
    found = _of_packages()
    for component in found["components"]:
        # The address of an index, which need not be the one that anybody installs from.
        component.pop("externalReferences", None)
    for tool in found["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)
    found["components"] += _of_console()
    root = found["metadata"]["component"]["bom-ref"]
    refs = sorted(component["bom-ref"] for component in found["components"])
    found["dependencies"] = [{"ref": root, "dependsOn": refs}, *({"ref": ref} for ref in refs)]
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise SystemExit(f"not a CycloneDX document: {wrong}")
    return text


def _of_packages() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sbom.json"
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--sv", "1.6",
                   "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(file), str(LOCK)]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise SystemExit(f"cyclonedx-py failed: {ran.stderr.strip()}")
        document: dict[str, Any] = json.loads(file.read_text())
        return document


def _of_console() -> list[dict[str, Any]]:
    named: dict[str, str] = json.loads(CONSOLE.read_text())["devDependencies"]
    return [
        {
            "type": "library",
            "bom-ref": f"console-{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:npm/{quote(name, safe='/')}@{version}",
        }
        for name, version in sorted(named.items())
        if name not in BUILD_TOOLS
    ]


def main() -> None:
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(bill())
    print(f"{file}: {len(json.loads(file.read_text())['components'])} components")


if __name__ == "__main__":
    main()
