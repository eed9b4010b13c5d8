"""Files whose listing does not tell their size are looked at many at once, and with care where that does not go well."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.errors import SourceBusyError, SourceError, SourceNotFoundError
from dragonfly_ray.model import Credentials, Manifest, Source
from dragonfly_ray.sources import resolve
from dragonfly_ray.sources.http import HttpAdapter
from tests.nginx import Nginx
from tests.origins import FolderOrigin
from tests.waiting import HANG

FILES = 300
SETTINGS = OriginSettings(retries=1, connect_timeout=60.0, read_timeout=60.0)


@pytest.fixture
def folder() -> Iterator[FolderOrigin]:
    with FolderOrigin({f"f{i:03}": b"x" * (i % 7 + 1) for i in range(FILES)}) as made:
        yield made


def manifest_of(url: str, settings: OriginSettings = SETTINGS) -> Manifest:
    return resolve(Source(url), Credentials(), settings).manifest


def assert_right(found: Manifest, folder: FolderOrigin) -> None:
    assert {e.path: e.size for e in found.entries} == {n: len(d) for n, d in folder.files.items()}
    assert all(e.version for e in found.entries)
    assert found.ranges


def test_each_is_asked_for_once_over_few_connections(folder: FolderOrigin) -> None:
    assert_right(manifest_of(folder.url, SETTINGS.model_copy(update={"small_connections": 5})), folder)
    assert folder.count("HEAD") == dict.fromkeys(folder.files, 1)
    assert folder.most_open <= 6


def test_one_that_fails_once_is_asked_for_again(folder: FolderOrigin) -> None:
    failed: Counter[str] = Counter()

    def once(method: str, path: str) -> int:
        failed[path] += 1
        return 500 if path == "f100" and failed[path] == 1 else 0

    folder.before = once
    assert_right(manifest_of(folder.url), folder)
    assert folder.count("HEAD")["f100"] == 2


def test_what_was_refused_in_one_look_is_nothing_to_the_next(folder: FolderOrigin) -> None:
    """A helper looks at one chunk of files after the other; the last one may be shorter."""
    names = sorted(folder.files)
    failing = {names[19]}
    folder.before = lambda method, path: 500 if path in failing else 0
    adapter = HttpAdapter(Source(folder.url), Credentials(), SETTINGS)
    try:
        with pytest.raises(SourceError, match=names[19]):
            adapter.look(names[:20])
        failing.clear()
        for chunk in (names[20:30], names[:20]):
            assert [seen.size for seen in adapter.look(chunk)] == [len(folder.files[name]) for name in chunk]
    finally:
        adapter.close()


def test_where_head_is_refused_most_files_are_asked_for_once(folder: FolderOrigin) -> None:
    folder.head_status = 405
    assert_right(manifest_of(folder.url), folder)
    assert folder.count("GET") == {"": 1} | dict.fromkeys(folder.files, 1)
    asked = sum(folder.count("HEAD").values())
    assert asked <= FILES + SETTINGS.small_connections


@pytest.mark.parametrize(("status", "error"), [(404, SourceNotFoundError), (429, SourceBusyError)])
def test_a_refusal_is_told_as_what_it_is(folder: FolderOrigin, status: int, error: type[Exception]) -> None:
    folder.files = {f"f{i:03}": b"x" for i in range(1000)}
    folder.before = lambda method, path: status if path == "f150" else 0
    with pytest.raises(error):
        manifest_of(folder.url)
    again = sum(path == "f150" for _, path, _ in folder.asked)
    assert again == 1 if status == 429 else again <= 4, "HEAD, again with care; a range, and once without"
    assert len(folder.asked) < 150 + 4 * SETTINGS.small_connections


def test_a_limit_of_requests_is_kept(folder: FolderOrigin) -> None:
    folder.files = {f"f{i}": b"x" for i in range(20)}
    assert_right(manifest_of(folder.url, SETTINGS.model_copy(update={"max_requests": 200.0})), folder)
    first, last = folder.times[1], folder.times[-1]
    assert last - first >= 0.9 * 19 / 200


def _cpu(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def test_looks_cost_little_more_than_the_page_that_lists_them(tmp_path: Path) -> None:
    """As ratios of what this process computes, whatever else the machine does."""
    tmp_path.chmod(0o755)
    many = tmp_path / "www" / "many"
    many.mkdir(parents=True)
    (many / "0000").write_bytes(b"x" * 20_000)
    for number in range(1, 3000):
        (many / f"{number:04}").hardlink_to(many / "0000")
    with Nginx(tmp_path / "www", tmp_path / "nginx", extra="autoindex_exact_size off;", real=True) as origin:
        url = f"{origin.url}/many/"
        page = httpx.get(url).text
        parsing, resolving = [], []
        for _ in range(3):
            at = time.process_time()
            HTMLParser().feed(page)
            parsing.append(time.process_time() - at)
            at = time.process_time()
            found = manifest_of(url)
            resolving.append(time.process_time() - at)
        assert {e.size for e in found.entries} == {20_000}
        assert len(found.entries) == 3000
        hits = Counter(hit.method for hit in origin.hits())
        assert hits == {"HEAD": 3 * 3000, "GET": 1 + 3}
        assert _cpu(resolving) < 30 * _cpu(parsing)


def test_connections_are_kept_from_one_look_to_the_next(folder: FolderOrigin) -> None:
    """A resolver with helpers looks at a few files at a time."""
    adapter = HttpAdapter(
        Source(folder.url), Credentials(), SETTINGS.model_copy(update={"small_connections": 4})
    )
    paths = sorted(folder.files)
    try:
        found = [seen for at in range(0, len(paths), 20) for seen in adapter.look(paths[at : at + 20])]
        assert [seen.size for seen in found] == [len(folder.files[path]) for path in paths]
        assert folder.opened <= 8
    finally:
        adapter.close()


def test_one_that_is_not_answered_does_not_hold_the_others_up(folder: FolderOrigin) -> None:
    """Far fewer than all are asked for before the oldest one is answered."""
    left = threading.Event()

    def before(method: str, path: str) -> int:
        if (method, path) == ("HEAD", "f000"):
            left.wait(HANG)
        return 0

    folder.before = before
    hasty = SETTINGS.model_copy(update={"small_connections": 4, "answer_timeout": 1.0, "retries": 0})
    try:
        assert_right(manifest_of(folder.url, hasty), folder)
    finally:
        left.set()
    assert folder.count("HEAD")["f000"] == 2, "with others, and with care"
