"""Log lines for machines: one JSON document each, with the ids by which a request is followed to every node."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from dragonfly_ray import logs


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[_Kept]:
    """What the package's logger would write as JSON."""
    logger = logging.getLogger("dragonfly_ray")
    before, level, propagate = list(logger.handlers), logger.level, logger.propagate
    logs.setup("peer:a", form="json")
    found = _Kept()
    found.setFormatter(logger.handlers[0].formatter)
    found.filters = list(logger.handlers[0].filters)
    logger.addHandler(found)
    yield found
    logger.handlers[:] = before
    logger.setLevel(level)
    logger.propagate = propagate


log = logging.getLogger("dragonfly_ray.test")


def test_a_line_tells_its_request_its_job_and_its_task(kept: _Kept) -> None:
    with logs.about(request_id="r1"):
        log.info("accepted %s", "it", extra=logs.about_spec("job7.0", "task9"))
        with logs.about(task_id="t"):
            log.info("inside")
    log.info("outside")
    first, inside, outside = (json.loads(line) for line in kept.lines)
    assert first["message"] == "accepted it"
    assert {first[k] for k in logs.IDS} == {"r1", "job7", "task9"}
    assert first["actor"] == "peer:a"
    assert first["level"] == "INFO"
    assert first["logger"] == "dragonfly_ray.test"
    assert first["time"].endswith("Z")
    assert (inside["request_id"], inside["task_id"]) == ("r1", "t")
    assert not set(logs.IDS) & set(outside)


def test_what_a_line_says_of_itself_goes_before_what_is_bound(kept: _Kept) -> None:
    with logs.about(task_id="bound"):
        log.info("x", extra={"task_id": "own"})
    assert json.loads(kept.lines[0])["task_id"] == "own"


def test_an_error_with_its_trace_is_still_one_line(kept: _Kept) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    (line,) = kept.lines
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exc_info"]


def test_threads_do_not_share_what_is_bound(kept: _Kept) -> None:
    def work(number: int) -> None:
        with logs.about(task_id=str(number)):
            barrier.wait()
            log.info("%d", number)

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line) for line in kept.lines]
    assert sorted(line["message"] for line in found) == ["0", "1", "2", "3"]
    assert all(line["message"] == line["task_id"] for line in found)


def test_the_text_format_stays() -> None:
    record = logging.LogRecord("dragonfly_ray.x", logging.INFO, "", 0, "said", None, None)
    line = logs.formatter("scheduler:0").format(record)
    assert line.endswith("INFO scheduler:0 MainThread said")
