"""Disused phrases do not come back: what people read says it in the words that an engineer of the field greps for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = ("dragonfly_ray", "actors", "serve", "sources", "configs", "docs", "examples", "README.md")
SUFFIXES = {".py", ".js", ".html", ".md", ".yaml", ".json"}
WORDS = {
    r"asks for patience|asked for patience": "HTTP 429 or 503, Retry-After",
    r"may not be asked\b": "blocked by URL policy",
    r"whoever submitted it has gone": "submitter heartbeat timed out",
    r"no word from the node": "node unresponsive",
    r"does not look for us any more": "helper failed; not retrying on it",
    r"is no name of a (file|host|folder)": "not a valid file name, host name, folder name",
    r"say one in dest|say it in dest": "set dest",
    r"[Nn]obody's word counts": "conflicts go to the scheduler's record",
    r"for want of a near holder": "fallback when no same-zone holder has a missing piece",
    r"feed nobody|[Ww]ho fed whom": "draining hosts stop serving; peer traffic",
    r"not wanted any more": "cancelled, no longer needed",
    r"since it was looked at": "since it was resolved",
    r"\bended too early\b": "truncated",
    r"does not say how long it is": "does not report its size",
    r"is a page, not a listing": "an HTML page, not a directory listing",
    r"leads? (round )?in a circle": "symlink loop",
    r"the host is not among those": "not in the URL policy's allow list",
    r"is not spoken here": "unsupported version",
    r"greeted with|its greeting\b": "WELCOME",
    r"the first word must be": "the first frame must be",
    r"asks more than it reads": "requests faster than it reads",
    r"\bis no selector\b": "not a valid selector",
    r"its end is cut off|is cut short in the store": "truncated",
    r"the disk is full; nothing was left there": "the disk is full; the partial output was removed",
    r"is not told now": "not notified",
    r"messages wait for the key": "messages are queued until the signing key arrives",
    r"lease of %s ran out": "lease expired",
    r"was banned lately": "was banned recently",
    r"without an answer\b": "timed out",
    r"there is none of this name": "unknown",
    r"these nodes did not fail": "nodes that did not fail",
    r"this comes from another site": "cross-site request rejected",
    r"Who are you\?": "Authentication required",
    r"the cluster is away|the database is away|the manager is away": "unavailable",
    r"waits for the database": "database unavailable, retrying",
    r"told to the cluster": "submitted to the cluster",
    r"[Kk]ept away from the origin": "origin traffic saved",
    r"\b[Aa]ll whole\b": "all succeeded",
    r"\b\d+ well\b|\bgood: \"well\"": "healthy",
    r">at rest<": "idle",
    r"Nothing runs\b": "No active distributions",
    r"Most moved": "Top sources",
    r"\b(Whole|Partly) on\b": "Complete on, Partial on",
    r"Left the origin": "Origin egress",
    r"Use again": "Duplicate",
    r"Would it be accepted\?": "Validate (dry run)",
    r"What lies where": "Cached content and where it is stored",
    r"and ends ok\b": "the node succeeds",
    r"[Nn]odes that shall have\b": "target nodes",
    r"least possible time": "lower bound",
    r"had to be started again": "restarted",
    r"origin_complaints(?!\")|silent_distribution_seconds(?!\")": "origin_throttled, stalled_distribution_seconds",
}
"""A phrase that is out of use -> what to say."""


def files() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", *READ], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in SUFFIXES and "vendor" not in path.parts and not path.is_symlink():
            yield path


def found(text: str, name: str) -> list[str]:
    """`file:line: phrase -> what to say`, for each."""
    return [
        f"{name}:{number}: {match[0]!r} -> {instead}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, instead in WORDS.items()
        if (match := re.search(pattern, line))
    ]


def test_no_disused_phrase_is_left() -> None:
    seen = list(files())
    assert len(seen) > 300
    wrong = [hit for path in seen for hit in found(path.read_text(), str(path.relative_to(ROOT)))]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ('raise SourceForbiddenError(f"{shown}: the host may not be asked")', "may not be asked"),
        ('log.info("task %.12s: lease of %s ran out", id)', "lease of %s ran out"),
        ("<dt>Kept away from the origin</dt>", "Kept away from the origin"),
        ("| a peer dies | it is started again, and ends ok |", "and ends ok"),
    ],
)
def test_a_disused_phrase_is_named_with_its_line_and_the_word_to_use(line: str, hit: str) -> None:
    (said,) = found(f"first\n{line}\n", "a.py")
    assert said.startswith(f"a.py:2: {hit!r} -> ")
