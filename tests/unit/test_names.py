"""Names of files as text: each has one, and nothing that carries text breaks on it."""

from __future__ import annotations

import json
import logging
import os
import pickle

import msgspec
import pytest

from dragonfly_ray.errors import SourceError, from_report
from dragonfly_ray.logs import formatter
from dragonfly_ray.names import from_bytes, from_os, is_canonical, shown, to_bytes, to_os
from dragonfly_ray.urls import basename, local_url

NAMES = [
    b"plain",
    "ümlaut".encode(),
    b"caf\xe9",
    b"\xff\xfe/\x80",
    b"half \xc3",
    "\uf7e9".encode(),
    "a\uf780\uf7ff".encode() + b"\xe9",
    b"new\nline\t\x01\x7f",
    "\u202e\u2028".encode(),
    b"\xed\xb3\xa9",
    "😀".encode(),
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_every_name_has_one_text_and_back(name: bytes) -> None:
    text = from_bytes(name)
    assert to_bytes(text) == name
    assert from_os(os.fsdecode(name)) == text
    assert os.fsencode(to_os(text)) == name
    assert is_canonical(text)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(text)) == text
    assert json.loads(msgspec.json.encode(text)) == text
    assert shown(text).isprintable()


def test_no_two_names_have_one_text() -> None:
    assert len({from_bytes(name) for name in NAMES}) == len(NAMES)
    assert from_bytes(b"\xef\x9f\xa9") != from_bytes(b"\xe9")


@pytest.mark.parametrize("text", ["\ud800", "\uf7c3\uf7a9", "\uf7ef\uf79f\uf7a9x\uf7c3\uf7a9"])
def test_other_text_is_no_name(text: str) -> None:
    assert not is_canonical(text)


def test_what_does_not_print_is_escaped_for_people() -> None:
    assert shown("grün a") == "grün a"
    assert shown(from_bytes(b"caf\xe9\n")) == r"caf\xe9\n"
    assert shown("\udce9\u202e\ud800") == r"\xe9\u202e\ud800"


@pytest.mark.parametrize("name", [*NAMES, b"100%", b"%41", b"%e9", b"caf%e9\xe9"], ids=repr)
def test_a_local_url_carries_every_path(name: bytes) -> None:
    path = f"/d/{os.fsdecode(name)}"
    url = local_url(path)
    msgspec.json.encode(url)
    assert basename(url) == from_bytes(name).rpartition("/")[2]
    assert to_os(url.removeprefix("file://")) == path


# --- what tells of them -------------------------------------------------------------------------


def test_an_error_is_one_line_that_everything_carries() -> None:
    error = SourceError("/d/caf\udce9\nx: not found")
    assert str(error) == r"/d/caf\xe9\nx: not found"
    msgspec.msgpack.encode(str(error))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(from_report(error.kind, str(error))) == str(error)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_line_is_one_line(form: str) -> None:
    record = logging.makeLogRecord(
        {"msg": "at %s", "args": ("a\n2026 ERROR forged\udce9",), "levelname": "INFO"}
    )
    line = formatter("peer", form).format(record)  # type: ignore[arg-type]
    assert "\n" not in line
    line.encode()
