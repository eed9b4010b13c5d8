"""The two state tables, against each other and against the connections that use them."""

from __future__ import annotations

from typing import get_args

import pytest

from dragonfly_ray.errors import LocalProtocolError, RemoteProtocolError, from_report
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.memory import pair
from dragonfly_ray.transport.parent_connection import ParentConnection
from dragonfly_ray.transport.states import CHILD, PARENT, Machine, State, Step, Table
from tests.piece_bench import COUNT, PATIENT

FRAMES = get_args(p.Frame)
GREETING: list[Step] = [
    ("received", p.Challenge), ("sent", p.Hello), ("received", p.Accepted), ("received", p.Welcome),
    ("received", p.Digests), ("received", p.Digests),
]  # fmt: skip
"""Of a child."""


def mirrored(step: Step) -> Step:
    return "received" if step[0] == "sent" else "sent", step[1]


def go(machine: Machine, step: Step) -> None:
    (machine.sent if step[0] == "sent" else machine.received)(step[1])


def at(table: Table, state: State) -> Machine:
    machine = Machine(table, "peer")
    machine.state = state
    return machine


def test_what_one_end_may_send_the_other_may_receive() -> None:
    for state in State:
        assert CHILD[state] == {mirrored(step): then for step, then in PARENT[state].items()}


def test_every_frame_has_its_place() -> None:
    assert {frame for steps in CHILD.values() for _, frame in steps} == set(FRAMES)


def test_a_conversation_goes_from_the_first_word_to_the_last() -> None:
    child, parent = Machine(CHILD), Machine(PARENT)
    for step in GREETING:
        go(child, step)
        go(parent, mirrored(step))
        assert child.state is parent.state
    child.greeted()
    for done, frame in [
        ("sent", p.Request),
        ("received", p.DataHeader),
        ("sent", p.Have),
        ("received", p.Missing),
    ]:
        go(child, (done, frame))  # type: ignore[arg-type]
        assert child.state is State.OPEN


@pytest.mark.parametrize("table", [CHILD, PARENT], ids=["child", "parent"])
@pytest.mark.parametrize("state", State)
def test_what_is_in_no_table_is_whose_fault_it_is(table: Table, state: State) -> None:
    for frame in FRAMES:
        if ("received", frame) not in table[state]:
            with pytest.raises(
                RemoteProtocolError, match=f"peer: unexpected {frame.__name__} in state {state.value}"
            ):
                at(table, state).received(frame)
        if ("sent", frame) not in table[state]:
            with pytest.raises(
                LocalProtocolError, match=f"{frame.__name__} cannot be sent in state {state.value}"
            ):
                at(table, state).sent(frame)


def test_after_a_refusal_nothing_is_said() -> None:
    child = at(CHILD, State.IDENTIFIED)
    child.received(p.Refused)
    assert not CHILD[child.state]


def test_nothing_is_sent_by_an_end_that_breaks_the_protocol() -> None:
    """It is told by another error than what the other end does wrong: nobody is banned for it."""
    ours, theirs = pair(10.0, 0.0)
    connection = ParentConnection(ours, "parent", PATIENT, COUNT)
    with pytest.raises(LocalProtocolError, match="Request cannot be sent in state connected"):
        connection.request(5, 1)
    with pytest.raises(BlockingIOError):
        theirs.recv_into([memoryview(bytearray(1))])
    connection.close()


@pytest.mark.parametrize("kind", ["protocol", "local-protocol", "remote-protocol"])
def test_their_kinds_come_back_from_a_report(kind: str) -> None:
    assert from_report(kind, "text").kind == kind
