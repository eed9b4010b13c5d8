"""Names of files as text that everything can carry, and as text for people.

A name on Linux is bytes. Where these are UTF-8, they are the text. A byte that is not becomes one character of a
private range (`U+F780` to `U+F7FF`, its low byte), and so does every byte of a character of that range itself: so
each name has one text and each text one name, and it is valid Unicode in JSON, messages and databases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

_ESCAPE = 0xF700
_ESCAPED = re.compile("[\uf780-\uf7ff]")
_FOREIGN = re.compile("[\udc80-\udcff\uf780-\uf7ff]")
"""What Python makes of bytes that are no UTF-8, and characters that would be taken for ours."""
_LONE = re.compile("[\ud800-\udfff]")


def from_os(name: str) -> str:
    """The text of a name as `os` gives it (with surrogates for bytes that are no UTF-8)."""
    return name if name.isascii() else _FOREIGN.sub(_escape, name)


def from_bytes(name: bytes) -> str:
    """The text of a name."""
    return from_os(name.decode(errors="surrogateescape"))


def to_bytes(text: str) -> bytes:
    """The name. Raises `UnicodeEncodeError` for what is no text of one."""
    if text.isascii() or not _ESCAPED.search(text):
        return text.encode(errors="surrogateescape")
    return _ESCAPED.sub(_unescape, text).encode(errors="surrogateescape")


def to_os(text: str) -> str:
    """The name as `os` takes it."""
    return text if text.isascii() or not _ESCAPED.search(text) else os.fsdecode(to_bytes(text))


def is_text(text: str) -> bool:
    """Whether it is valid Unicode, which everything can carry."""
    return text.isascii() or not _LONE.search(text)


def is_canonical(text: str) -> bool:
    """Whether `text` is the one that stands for its name."""
    if text.isascii():
        return True
    return is_text(text) and (not _ESCAPED.search(text) or from_bytes(to_bytes(text)) == text)


def without_half(text: str) -> str:
    """Without what is left at the end of a character that was cut in two."""
    return text.rstrip("".join(map(chr, range(0xF780, 0xF800))))


def inside(path: str, roots: Sequence[str]) -> str | None:
    """The root that `path` lies below, by its names alone; the root itself does not count."""
    place = PurePosixPath(path)
    if not place.is_absolute() or ".." in place.parts:
        return None
    found = [root for root in roots if place.is_relative_to(root) and place != PurePosixPath(root)]
    return max(found, key=len, default=None)


def shown(text: str) -> str:
    """For errors, logs and screens: on one line, and everything that does not print is escaped."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xF780 <= code <= 0xF7FF or 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code & 0xFF:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character < "\ue000":
        return chr(_ESCAPE | ord(character) & 0xFF)
    return "".join(chr(_ESCAPE | byte) for byte in character.encode())


def _unescape(found: re.Match[str]) -> str:
    return chr(0xDC00 | ord(found[0]) & 0xFF)
