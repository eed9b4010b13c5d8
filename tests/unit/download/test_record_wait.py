"""How the scheduler's record is awaited, once all pieces are here."""

from __future__ import annotations

import pytest

from dragonfly_ray.scheduling.download.record_wait import (
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    VOUCH_AFTER_S,
    RecordWait,
    Step,
)


@pytest.mark.parametrize(("ok", "step"), [(True, Step.ACCEPT), (False, Step.MEND)])
def test_a_whole_record_decides_at_once(ok: bool, step: Step) -> None:
    wait = RecordWait(0.0, announced=False)
    assert wait.answered(VOUCH_AFTER_S + 1, known=True, pending=False, ok=ok) == (step,)


def test_what_nobody_vouches_for_is_vouched_for_after_a_while_and_again_after_as_long() -> None:
    wait = RecordWait(10.0)
    vouched = []
    for tenths in range(1, 45):
        now = 10.0 + tenths / 10
        if wait.answered(now, known=True, pending=True, ok=True):
            vouched.append(now)
    assert vouched == pytest.approx([11.1, 12.2, 13.3, 14.4])


def test_what_was_here_before_is_announced_until_that_is_heard() -> None:
    wait = RecordWait(0.0, announced=False)
    assert wait.answered(0.1, known=False, pending=True, ok=True) == (), (
        "a scheduler that knows nothing of it"
    )
    assert wait.answered(0.2, known=True, pending=True, ok=True) == (Step.ANNOUNCE,)
    assert wait.answered(VOUCH_AFTER_S + 1, known=True, pending=True, ok=True) == (Step.ANNOUNCE, Step.VOUCH)
    wait.announced = True
    assert wait.answered(VOUCH_AFTER_S + 1.1, known=True, pending=True, ok=True) == ()


def test_it_is_asked_again_after_growing_pauses() -> None:
    wait = RecordWait(0.0)
    pauses = [wait.pause() for _ in range(9)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == MAX_PAUSE_S
