"""What the versions that an origin tells can prove (RFC 9110, 8.8)."""

from __future__ import annotations

import re
from typing import Literal

from dragonfly_ray.model import UNTOLD, Manifest

LISTED = "listed:"
"""Versions that come from a listing begin so: the file's own answer spells them in another way."""
Validator = Literal["strong", "weak", "none"]
"""`strong`: equal versions are equal bytes. `weak`: they may differ, for a second or in what the origin does not
count. `none`: the origin tells no version."""
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*, ?\d\d?[ -]")
"""What a version begins with that is a Last-Modified."""
_COARSE = ("LastModified=", "last_modified=", "mtime=", "modified=", "updated=", "created=", "ino=")
"""What filesystems tell of times, and numbers of files that stay when one is written again."""


def validator(version: str) -> Validator:
    """What one version is good for."""
    if not version or version.startswith(UNTOLD):
        return "none"
    weak = version.startswith((LISTED, "W/", *_COARSE)) or "=W/" in version or DATE.match(version)
    return "weak" if weak else "strong"


def validator_of(manifest: Manifest) -> Validator:
    """The least of its files'."""
    found = {validator(e.version) for e in manifest.entries if e.kind == "file" and e.size}
    return next((each for each in ("none", "weak") if each in found), "strong")
