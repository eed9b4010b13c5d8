"""`python -m tests.commit_subject FILE`: whether a commit's message begins with `area: what changes`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

SUBJECT = re.compile(r"[a-z][a-z0-9_./-]*(, [a-z][a-z0-9_./-]*)*: \S.*[^.\s]")
OF_GIT = ("Merge ", "Revert ", "fixup! ", "squash! ")


def problem(message: str) -> str:
    """What is wrong with it; empty: nothing."""
    first, *rest = message.splitlines() or [""]
    if first.startswith(OF_GIT):
        return ""
    if not SUBJECT.fullmatch(first):
        return f"{first!r}: the subject is `area: what changes`, without a full stop"
    if len(first) > 120:
        return f"the subject has {len(first)} characters, 120 are allowed"
    if rest and rest[0].strip() and not rest[0].startswith("#"):
        return "a blank line stands between subject and body"
    return ""


if __name__ == "__main__":
    if said := problem(Path(sys.argv[1]).read_text()):
        sys.exit(said)
