"""The last check before a task is done: do all digests agree with the scheduler's record?"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dragonfly_ray import messages as m
from dragonfly_ray.errors import DragonflyError
from dragonfly_ray.model import DIGEST_SIZE, root_digest

if TYPE_CHECKING:
    from dragonfly_ray.peer.task import TaskRun
    from dragonfly_ray.storage.task_store import TaskStore

PATIENCE = 1.0
"""Seconds to wait for those who read the origin to fill the record."""
LONGEST_PAUSE = 0.25


def agrees_with_record(run: TaskRun) -> bool:
    """Waits for the record to be whole. Pieces that do not agree with it are dropped, to be fetched again."""
    store = run.store
    assert store is not None
    deadline = time.monotonic() + PATIENCE
    pause = 0.005
    introduced = not run.was_here  # else whoever reads the origin fills the record
    while not run.stopping.is_set():
        digests = [d or bytes(DIGEST_SIZE) for d in store.digests]
        answer: m.Message | None = None
        try:
            places = run.deliveries.places()
            verify = m.Verify(run.context.host_id, run.task.id, root_digest(digests), places)
            answer = run.reporter.ask(verify)
            if isinstance(answer, m.Verified) and not answer.known:
                run.context.announce(run.task.source_id)
        except DragonflyError:
            pass  # a scheduler that is away comes back, and is asked again
        if isinstance(answer, m.Verified):
            run.audits.take(answer.audit)
            if answer.known and not answer.pending:
                if not answer.ok:
                    return _mend(run, digests, answer.digests)
                run.deliveries.placed(places, answer)
                return True
            if answer.known and not introduced:
                introduced = _introduce(run, store)
            if time.monotonic() > deadline:
                # Either nobody has read those pieces, whatever others say that they have; or whoever
                # did is gone, and what is here was checked against the digests of its senders. If two
                # peers disagree, both are dropped and read again.
                _teach(run, store, answer.gaps)
                if run.origin:
                    run.origin.doubt()
                deadline = time.monotonic() + PATIENCE
        run.stopping.wait(pause)
        pause = min(LONGEST_PAUSE, pause * 2)
        with run.lock:
            if run.error or not run.picker.done:
                return False
    return False


def _introduce(run: TaskRun, store: TaskStore) -> bool:
    """The scheduler does not know what was here all the time: one root says it, and no piece is claimed to be told."""
    try:
        run.context.introduce(store)
    except DragonflyError:
        return False  # once more, when it is back
    return True


def ask_for_places(run: TaskRun) -> bool:
    """Asks who writes the outputs that are still due; False: there was no answer.

    The copy was found right before. A scheduler that has forgotten since is told what it needs.
    """
    store = run.store
    assert store is not None
    places = run.deliveries.places()
    root = root_digest([d or bytes(DIGEST_SIZE) for d in store.digests])
    try:
        answer = run.reporter.ask(m.Verify(run.context.host_id, run.task.id, root, places))
        if not isinstance(answer, m.Verified):
            return False
        if not answer.known:
            run.context.announce(run.task.source_id)
            return False
    except DragonflyError:
        return False
    if answer.pending:
        _teach(run, store, answer.gaps)
        return False
    run.deliveries.placed(places, answer)
    return True


def _teach(run: TaskRun, store: TaskStore, gaps: Iterable[int]) -> None:
    with run.lock:
        run.state.vouched(tuple((i, d) for i in gaps if (d := store.digests[i]) is not None))


def _mend(run: TaskRun, mine: list[bytes], record: bytes) -> bool:
    said = [record[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE] for i in range(len(mine))]
    wrong = [(i, said[i]) for i, digest in enumerate(mine) if digest != said[i]]
    run.settle(wrong)
    return not wrong
