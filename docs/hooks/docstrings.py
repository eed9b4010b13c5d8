"""Griffe's extension: docstrings as they are at run time, for what reads the source alone."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SEVERAL = re.compile(r"^( *)(\w+(?:, \w+)+): (.*)$", re.MULTILINE)
"""Several parameters described in one line."""


class Docstrings(griffe.Extension):
    """`{options}` stands for the options of a call, which have a table of their own."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring is None:
            return
        text = func.docstring.value.replace("{options}", "**options: See [options](#options).")
        func.docstring.value = _SEVERAL.sub(_apart, text)


def _apart(found: re.Match[str]) -> str:
    indent, names, text = found.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
