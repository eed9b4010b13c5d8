"""Which of the core's decisions each message of a peer asks for: one table, for whoever carries messages."""

from __future__ import annotations

from dragonfly_ray import messages as m
from dragonfly_ray.scheduling.scheduler import Action, SchedulerCore


def dispatch(core: SchedulerCore, message: m.Message, now: float) -> tuple[m.Message | None, list[Action]]:
    """The answer to a peer's message (None: it wants none), and what is to be done.

    Two want more than the core, first: a `Stat` is passed on by whoever carries messages, and an `Announce` under a
    host id that a `rival` holds is refused if that one lives. What is not for a scheduler is answered with `Unsupported`.
    """
    match message:
        case m.Report():
            return core.report(message, now)
        case m.Announce():
            answer = m.Announced(core.follows(message))
            return answer, core.announce(message, now)
        case m.Verify():
            return core.asked_to_verify(message, now)
        case m.Ended():
            return core.ended(message, now)
        case m.Digests():
            return None, core.digests(message, now)
        case m.StatPending():
            return None, core.looking(message, now)
        case m.Throttled():
            return None, core.throttled(message, now)
        case m.OriginFailed():
            return None, core.origin_failed(message, now)
        case m.Evicted():
            return None, core.evicted(message.host_id, message.task_id, now)
        case _:
            return m.Unsupported(type(message).__name__), []
