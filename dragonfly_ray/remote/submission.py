"""A job of a manager, seen from whoever started it or found it again."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import msgspec
from httpx_sse import EventSource, SSEError

from dragonfly_ray.distribution import Distribution, NodeProgress, Progress, told_apart
from dragonfly_ray.errors import (
    CancelledByUserError,
    ClusterError,
    DragonflyError,
    NotRunningError,
    from_report,
)
from dragonfly_ray.figures import Figures
from dragonfly_ray.outcome import NodeOutcome, Outcome
from dragonfly_ray.remote.http import Http
from dragonfly_ray.watched import Watched

log = logging.getLogger(__name__)

ENDED = frozenset({"succeeded", "partial", "failed", "cancelled"})
PATIENCE = 60.0
"""Seconds for which a manager may be away before whoever watches gives up; the job goes on."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0
_PHASES = {"queued": "resolving", "running": "running"}
_FEWEST_CELLS = 1


class RemoteSubmission(Watched):
    """Watches its job in a thread, by the manager's event stream; awaitable.

    The job belongs to the manager: it goes on when this object, or its process, is gone.
    """

    def __init__(self, http: Http, job: Mapping[str, Any]) -> None:
        super().__init__(str(job["id"]))
        self._http = http
        self._path = path_of(job)
        self._job = dict(job)
        self._nodes: dict[tuple[int, str], dict[str, Any]] = {}
        self._outcomes: list[dict[str, Any]] | None = None
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{self.id[:8]}", daemon=True)
        self._watcher.start()

    # --- for callers ------------------------------------------------------------------------

    @property
    def job(self) -> dict[str, Any]:
        """The manager's record, as of its last word."""
        with self._changed:
            return dict(self._job)

    def progress(self) -> Progress:
        """How far it is; never blocks."""
        with self._changed:
            return progress_of(self._job, list(self._nodes.values()))

    def _result(self) -> Distribution:
        return distribution_of(self._job, self._outcomes or [])

    def cancel(self, kind: str = "cancelled", message: str = "cancelled by its submitter") -> None:
        """Stops it everywhere; outputs that are there already stay. One that has ended stays as it is."""
        self._http.post_again(f"{self._path}/cancel")

    def task_ids(self) -> list[str]:
        """One for each URL, empty while it is not resolved."""
        with self._changed:
            return list(self._job["task_ids"]) or [""] * len(self._job["urls"])

    # --- watching ---------------------------------------------------------------------------

    def _over(self) -> bool:
        return self._outcomes is not None or self._error is not None

    def _closed(self) -> bool:
        with self._changed:
            return self._stopped

    def _watch(self) -> None:
        try:
            self._follow()
        except Exception as error:
            log.exception("stopped following job %s", self.id)
            text = f"distribution {self.id}: no longer tracked by this process ({type(error).__name__}); it is still running"
            self._give_up(ClusterError(text))

    def _follow(self) -> None:
        silent_since, pause = time.monotonic(), FIRST_PAUSE
        while not self._closed():
            try:
                for _ in self._listen():
                    silent_since, pause = time.monotonic(), FIRST_PAUSE
                    if self._closed():
                        return
                if self._job["state"] in ENDED:
                    self._end()
                    return
            except ClusterError as error:
                if error.details.get("final") or time.monotonic() - silent_since > PATIENCE:
                    self._give_up(NotRunningError(f"distribution {self.id}: {error}; it is still running"))
                    return
            except DragonflyError as error:
                self._give_up(error)
                return
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _listen(self) -> Generator[None, None, None]:
        """Yields at every word of one stream, which the manager ends after the job's end."""
        try:
            with self._http.stream(f"{self._path}/live", cells=_FEWEST_CELLS) as answer:
                for event in EventSource(answer).iter_sse():
                    self._take(event.event, event.data)
                    yield
                    if event.event == "end":
                        return
        except (SSEError, ValueError) as error:
            raise ClusterError(f"cannot read the manager's event stream ({type(error).__name__})") from None

    def _take(self, event: str, data: str) -> None:
        if event not in ("job", "nodes"):
            return
        found = json.loads(data)
        with self._changed:
            if event == "job":
                self._job = found
            else:
                self._nodes |= {(node["url_index"], node["node_id"]): node for node in found}

    def _end(self) -> None:
        """The record and every outcome as they are kept, whatever the stream said last."""
        job = self._http.get(self._path)
        outcomes = list(self._http.pages(f"{self._path}/nodes"))
        with self._changed:
            self._job = job
            self._nodes = {(node["url_index"], node["node_id"]): node for node in outcomes}
            self._outcomes = outcomes
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()


# --- the manager's records as this package's values ---------------------------------------------------


def path_of(job: Mapping[str, Any]) -> str:
    """Where a job is found, behind the API's prefix."""
    return f"/{'preheats' if job['kind'] == 'preheat' else 'distributions'}/{job['id']}"


def progress_of(job: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Progress:
    told = job["progress"]
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        rows.setdefault(node["node_id"], []).append(node)
    size, names = job["size"] or 0, _names(nodes)
    return Progress(
        phase=_PHASES.get(job["state"], "ended"),
        bytes_done=told["bytes_done"],
        bytes_total=told["bytes_total"],
        rate=told["rate"],
        eta=told["eta"],
        nodes=tuple(_node_progress(of_node, names[node], size) for node, of_node in rows.items()),
        waiting=told.get("waiting", ""),
    )


def _names(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return told_apart({node["node_id"]: node["node"] for node in nodes})


def _node_progress(rows: Sequence[Mapping[str, Any]], name: str, size: int) -> NodeProgress:
    states = {row["state"] for row in rows}
    state = next((s for s in ("failed", "running", "waiting") if s in states), "done")
    done = sum(row["bytes_done"] for row in rows)
    return NodeProgress(rows[0]["node_id"], name, state, done, max(size, done))


def distribution_of(job: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Distribution:
    """Raises the job's own error where no node has one to tell of it."""
    names = _names(nodes)
    found = Distribution(
        id=job["id"],
        urls=tuple(job["urls"]),
        outcomes=tuple(_outcome(node, names[node["node_id"]]) for node in nodes),
        seconds=job["seconds"] or 0.0,
        size=job["size"] or 0,
        figures=figures_of(job),
    )
    found.raise_if_cancelled()
    if job["state"] == "cancelled":
        raise CancelledByUserError(f"distribution {job['id']} was cancelled", distribution=found)
    if job["state"] == "succeeded" or not found.ok:
        return found
    error = job["error"]
    if error:
        raise from_report(error["kind"], error["message"])
    raise ClusterError(f"distribution {job['id']} ended as {job['state']} without an error message")


def figures_of(job: Mapping[str, Any]) -> Figures:
    """An older manager tells none, a newer one maybe more."""
    return msgspec.convert(job.get("figures") or {}, Figures)


def _outcome(node: Mapping[str, Any], name: str) -> Outcome:
    moved = node["bytes"]
    row = {**node, **{f"bytes_{source}": count for source, count in moved.items()}, **(node["error"] or {})}
    found = NodeOutcome.from_row(node["node_id"], row | {"bytes_small": moved["object_store"]})
    return Outcome.of(found, name, node["url"])
