"""Where the log lines of actors and of the manager go: one file each beside Ray's own, which the dashboard shows.

Lines are text, or JSON (`DRAGONFLY_LOG_FORMAT=json`) with what they are about: `request_id` (of the manager's
API), `job_id` (a distribution), `task_id` (a version of its content). So one can follow a request to its job, the
job to its tasks, and a task to every node.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

from dragonfly_ray.names import shown

Format = Literal["text", "json"]
FORMAT = "%(asctime)s %(levelname)s {name} %(threadName)s %(message)s"
IDS = ("request_id", "job_id", "task_id")
MOST_BYTES = 16 * 1024 * 1024
_ids: ContextVar[Mapping[str, str]] = ContextVar("dragonfly_ids", default={})  # noqa: B039, never changed


@contextlib.contextmanager
def about(**ids: str) -> Iterator[None]:
    """What is logged inside is about these: `request_id`, `job_id`, `task_id`. Empty ones do not count."""
    token = _ids.set({**_ids.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _ids.reset(token)


def about_spec(spec_id: str, task_id: str = "") -> dict[str, str]:
    """The same as `extra` of a single line: for the part of a distribution that a scheduler knows as `spec_id`."""
    ids = {"job_id": spec_id.rpartition(".")[0] or spec_id}
    return ids | {"task_id": task_id} if task_id else ids


class _AddIds(logging.Filter):
    """What a line says of itself goes before what is bound round it."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _ids.get().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def logs_folder() -> Path | None:
    """Ray's folder for logs on this node."""
    try:
        from ray._private.worker import global_worker
    except ImportError:
        return None
    node = getattr(global_worker, "node", None)
    return None if node is None else Path(node.get_logs_dir_path())


class _OneLine(logging.Formatter):
    """A message is one line, whatever names it tells of; only a traceback has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = shown(record.message)
        return super().formatMessage(record)


def formatter(name: str, form: Format = "text") -> logging.Formatter:
    """`name`: of the actor."""
    if form == "text":
        return _OneLine(FORMAT.format(name=name))
    from pythonjsonlogger.json import JsonFormatter

    found = JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%SZ",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "threadName": "thread"},
        static_fields={"actor": name},
    )
    found.converter = time.gmtime
    return found


def setup(name: str, level: str = "INFO", form: Format = "text") -> None:
    """Lines are prefixed with `name` (the actor); warnings go to stderr too, and so to the driver."""
    logger = logging.getLogger("dragonfly_ray")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.setLevel(level)
    logger.propagate = False
    shown = logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    handlers: list[logging.Handler] = [shown]
    folder = logs_folder()
    if folder is not None and folder.is_dir():
        handlers.append(
            logging.handlers.RotatingFileHandler(
                folder / f"dragonfly-{name.replace(':', '-')}.log",
                maxBytes=MOST_BYTES,
                backupCount=2,
                delay=True,
                encoding="utf-8",
                errors="backslashreplace",
            )
        )
    for handler in handlers:
        handler.setFormatter(formatter(name, form))
        handler.addFilter(_AddIds())
        logger.addHandler(handler)
