"""Where the actors' log lines go: one file each beside Ray's own logs, which the dashboard shows."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s {name} %(threadName)s %(message)s"
MOST_BYTES = 16 * 1024 * 1024


def logs_folder() -> Path | None:
    """Ray's folder for logs on this node."""
    try:
        from ray._private.worker import global_worker
    except ImportError:
        return None
    node = getattr(global_worker, "node", None)
    return None if node is None else Path(node.get_logs_dir_path())


def setup(name: str, level: str = "INFO") -> None:
    """Lines are prefixed with `name` (the actor); warnings go to stderr too, and so to the driver."""
    logger = logging.getLogger("dragonfly_ray")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.setLevel(level)
    logger.propagate = False
    formatter = logging.Formatter(FORMAT.format(name=name))
    shown = logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    shown.setFormatter(formatter)
    logger.addHandler(shown)
    folder = logs_folder()
    if folder is not None and folder.is_dir():
        file = logging.handlers.RotatingFileHandler(
            folder / f"dragonfly-{name.replace(':', '-')}.log", maxBytes=MOST_BYTES, backupCount=2, delay=True
        )
        file.setFormatter(formatter)
        logger.addHandler(file)
