"""Rules for the outcome of a job from those of its URLs and nodes: it succeeds only if all of them succeed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dragonfly_ray.serve.schemas.jobs import State

CANCELLED = "cancelled"
MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """One URL on one node."""

    node_id: str
    node: str
    done: bool
    kind: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    state: State
    nodes_done: int
    nodes_failed: int
    kind: str = ""
    message: str = ""


def verdict(outcomes: Iterable[Ended], *, cancel_requested: bool) -> JobOutcome:
    """A node is done if it has every URL, and has failed otherwise."""
    nodes: set[str] = set()
    failed: dict[str, Ended] = {}
    stopped = False
    for outcome in outcomes:
        nodes.add(outcome.node_id)
        if not outcome.done:
            failed.setdefault(outcome.node_id, outcome)
            stopped = stopped or outcome.kind == CANCELLED
    good, bad = len(nodes) - len(failed), len(failed)
    if not bad and nodes:
        return JobOutcome("succeeded", good, 0)
    if cancel_requested and stopped:
        return JobOutcome(
            "cancelled", good, bad, CANCELLED, f"cancelled; {good} of {len(nodes)} nodes had succeeded"
        )
    kind, message = _reason(list(failed.values()), len(nodes))
    return JobOutcome("partial" if good else "failed", good, bad, kind, message)


def _reason(failed: list[Ended], total: int) -> tuple[str, str]:
    if not failed:
        return "unknown-nodes", "no target node is left"
    kind = Counter(each.kind for each in failed).most_common(1)[0][0]
    messages = list(dict.fromkeys(each.message for each in failed if each.message))
    names = ", ".join(each.node for each in failed[:MOST_SHOWN]) + (", …" if len(failed) > MOST_SHOWN else "")
    return kind, f"{len(failed)} of {total} nodes failed ({names}): {'; '.join(messages[:MOST_SHOWN])}"
