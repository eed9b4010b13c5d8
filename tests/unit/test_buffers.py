"""The pool of buffers: all at once or none, in order, and no owner is stopped by another."""

from __future__ import annotations

import threading

import pytest

from dragonfly_ray.peer.buffers import BufferPool, Lender, NotLentError
from tests.waiting import HANG, until

KIB = 1024


def test_two_batches_never_hold_a_part_while_they_wait_for_the_rest() -> None:
    pool, rounds = BufferPool(4 * KIB), 50
    done = threading.Semaphore(0)

    def work() -> None:
        with Lender(pool, "task") as lender:
            for _ in range(rounds):
                lender.reserve([KIB] * 3)
                views = [lender.take(number, KIB) for number in range(3)]
                assert all(len(view) == KIB for view in views)
                lender.release()
        done.release()

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    assert all(done.acquire(timeout=HANG) for _ in range(4))
    assert len(pool.take([KIB] * 4, "other")) == 4


def test_a_batch_is_not_starved_by_those_that_want_less() -> None:
    pool = BufferPool(4 * KIB)
    small = [pool.take([KIB], "task") for _ in range(4)]
    had = threading.Event()

    def batch() -> None:
        pool.take([KIB] * 3, "task")
        had.set()

    threading.Thread(target=batch, daemon=True).start()
    until(lambda: pool.waiting == 1)
    threading.Thread(target=lambda: pool.take([KIB], "task"), daemon=True).start()
    until(lambda: pool.waiting == 2)
    for buffers in small[:3]:
        assert not had.is_set()
        pool.give(buffers, "task")
    assert had.wait(HANG)
    assert pool.waiting == 1, "who came later waits longer"


def test_whoever_holds_nothing_goes_on_whatever_others_hold() -> None:
    pool = BufferPool(4 * KIB)
    pool.take([KIB] * 4, "slow")
    assert len(pool.take([2 * KIB, KIB], "quick")) == 2


def test_a_wait_ends_when_it_is_over() -> None:
    pool, over, ended = BufferPool(KIB), threading.Event(), threading.Event()
    pool.take([KIB], "task")

    def wait() -> None:
        with pytest.raises(NotLentError):
            pool.take([KIB], "task", over.is_set)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    until(lambda: pool.waiting == 1)
    over.set()
    pool.wake()
    assert ended.wait(HANG)
    assert pool.waiting == 0


def test_a_reserve_serves_one_piece_after_the_other() -> None:
    pool = BufferPool(4 * KIB)
    with Lender(pool, "task") as lender:
        lender.reserve([KIB, 2 * KIB])
        for number in range(5):
            assert len(lender.take(2 * number, 2 * KIB)) == 2 * KIB
            assert len(lender.take(2 * number + 1, 100)) == 100
            lender.give(2 * number)
            lender.give(2 * number + 1)
    assert len(pool.take([KIB] * 4, "other")) == 4
    assert pool.waiting == 0
