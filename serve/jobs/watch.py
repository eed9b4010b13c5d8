"""Hears of the active jobs' parts from the schedulers: a thread for each of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.jobs.board import Board, Key

log = logging.getLogger(__name__)
LOOK = 0.5
"""Seconds that one look waits for news: so late at most is a job heard of that began meanwhile."""
PAUSE = 0.3
"""Seconds until a scheduler that did not answer, or did not know a job, is asked again."""
JOIN = 30.0


class Watch:
    """`of`: which keys each shard is to be asked for. What is heard goes onto the board."""

    def __init__(self, cluster: Cluster, board: Board) -> None:
        self._cluster = cluster
        self._board = board
        self._changed = threading.Condition()
        self._keys: dict[int, tuple[Key, ...]] = {}
        self._away: set[int] = set()
        self._stopping = threading.Event()
        self._threads: dict[int, threading.Thread] = {}

    def of(self, keys: Mapping[int, tuple[Key, ...]]) -> None:
        """Shard -> what to watch there from now on."""
        with self._changed:
            self._keys = dict(keys)
            for shard in keys.keys() - self._threads.keys():
                thread = threading.Thread(
                    target=self._run, args=(shard,), name=f"watch-jobs-{shard}", daemon=True
                )
                self._threads[shard] = thread
                thread.start()
            self._changed.notify_all()

    def stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads.values():
            thread.join(JOIN)

    def _run(self, shard: int) -> None:
        while not self._stopping.is_set():
            with self._changed:
                keys = self._keys.get(shard, ())
                if not keys:
                    self._answers(shard)
                    self._changed.wait(LOOK)
                    continue
            known = self._board.known(keys)
            if not known:
                # All have ended, or wait to be told again; whoever adds one wakes this up.
                with self._changed:
                    self._changed.wait(PAUSE / 3)
                continue
            try:
                self._board.take(self._cluster.watch(shard, known, LOOK), PAUSE)
                self._answers(shard)
            except DragonflyError as error:
                self._silent(shard, str(error))
            except Exception as error:
                # Whatever it is, the watch must outlive it.
                log.exception("scheduler shard %d: poll failed", shard)
                self._silent(shard, type(error).__name__)

    def _answers(self, shard: int) -> None:
        if shard in self._away:
            self._away.discard(shard)
            self._board.silent(shard, "")
            log.info("scheduler shard %d available again", shard)

    def _silent(self, shard: int, why: str) -> None:
        if shard not in self._away:
            log.warning("scheduler shard %d unavailable: %s", shard, why)
        self._away.add(shard)
        self._board.silent(shard, why)
        self._stopping.wait(PAUSE)
