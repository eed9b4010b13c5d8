"""What its tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.origins import Behaviour, FolderOrigin, ScriptedOrigin
from tests.reading import CONTENT


@pytest.fixture
def origin() -> Iterator[ScriptedOrigin]:
    with ScriptedOrigin(Behaviour(CONTENT)) as made:
        yield made


@pytest.fixture
def folder() -> Iterator[FolderOrigin]:
    files = {f"f{i:03}": os.urandom(i * 100) for i in range(40)} | {"large": CONTENT}
    with FolderOrigin(files) as made:
        yield made
