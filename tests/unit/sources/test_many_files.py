"""Many small files at once."""

from __future__ import annotations

import os

import pytest

from dragonfly_ray.errors import (
    SourceBusyError,
    SourceChangedError,
)
from dragonfly_ray.model import Manifest
from tests.origins import FolderOrigin
from tests.reading import SETTINGS, look, read_all

SMALL = {f"f{i:03}": os.urandom(100 + i) for i in range(120)}


def small_folder(server: FolderOrigin) -> Manifest:
    manifest = look(server.url).manifest
    server.asked.clear()
    return manifest


def test_many_small_files_are_one_request_each_over_few_connections() -> None:
    with FolderOrigin(SMALL) as server:
        manifest = small_folder(server)
        before = server.most_open = len(server.open)
        assert read_all(server.url, manifest) == b"".join(SMALL.values())
        assert sorted(path for _, path, _ in server.asked) == sorted(SMALL)
        assert server.most_open <= before + SETTINGS.small_connections


def test_one_of_many_that_fails_once_is_asked_for_again_with_care() -> None:
    failed: list[str] = []

    def once(method: str, path: str) -> int:
        if path == "f007" and not failed:
            failed.append(path)
            return 500
        return 0

    with FolderOrigin(SMALL) as server:
        manifest = small_folder(server)
        server.before = once
        assert read_all(server.url, manifest) == b"".join(SMALL.values())
        assert len(server.asked) == len(SMALL) + 1


def test_one_of_many_that_has_another_length_is_noticed() -> None:
    with FolderOrigin(dict(SMALL)) as server:
        manifest = small_folder(server)
        server.files["f005"] = b"something else, and longer"
        with pytest.raises(SourceChangedError):
            read_all(server.url, manifest)


def test_a_busy_answer_to_one_of_many_ends_all_of_them() -> None:
    told: list[int] = []

    def busy(method: str, path: str) -> int:
        told.append(1)
        return 429 if len(told) == 10 else 0

    with FolderOrigin(SMALL) as server:
        manifest = small_folder(server)
        server.before = busy
        with pytest.raises(SourceBusyError):
            read_all(server.url, manifest)
        # Those that were under way come in; nothing is asked after the answer.
        assert len(server.asked) <= 10 + SETTINGS.small_connections
