"""The scheduler's actor without Ray: an unexpected error costs its own message or question, nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dragonfly_ray import messages as m
from dragonfly_ray.actors import handles, scheduler
from dragonfly_ray.config import OriginSettings, SchedulerSettings, Settings, StorageSettings
from dragonfly_ray.model import Credentials
from dragonfly_ray.scheduling.actions import Ask, Send
from tests.unit.one_scheduler import SOURCE, host
from tests.waiting import HANG


class Method:
    """Of a peer's actor. `answer` is called with what it is told; what it raises is the answer."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def remote(self, *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._answer(*args))
        except KeyError as error:
            future.set_exception(error)
        return future


class Peer:
    def __init__(self, call: Callable[..., Any] = bytes, ask: Callable[..., Any] = bytes) -> None:
        self.call, self.ask = Method(call), Method(ask)


def actor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: Peer, **settings: Any
) -> scheduler.SchedulerActor:
    """With one host, which `peer` answers for. To be called in a loop."""
    monkeypatch.setattr(scheduler.SchedulerActor, "_start", lambda self: None)
    made = scheduler.SchedulerActor(0, Settings(storage=StorageSettings(root=tmp_path), **settings))
    made._act(made._core.announce(m.Announce(host(0)), 0.0))
    monkeypatch.setattr(handles, "find", lambda name, namespace: peer)
    return made


def test_a_message_that_cannot_be_sent_does_not_keep_back_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[m.Message] = []

    def call(payload: bytes, sender: str, number: int, objects: Sequence[Any] = ()) -> bytes:
        message = m.decode(payload)
        if message == m.Cancel("first.0"):
            raise KeyError("a fault of ours")
        heard.append(message)
        return b""

    async def send() -> None:
        made = actor(tmp_path, monkeypatch, Peer(call))
        for name in ("first", "second"):
            made._act([Send("h0", m.Cancel(f"{name}.0"))])
        while made._pumps:
            await asyncio.sleep(0)
        made._act([Send("h0", m.Cancel("third.0"))])
        while made._pumps:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(send(), HANG))
    assert heard == [m.Cancel("second.0"), m.Cancel("third.0")]


@pytest.mark.parametrize("fault", [KeyError("a fault of ours"), None], ids=["raises", "is no message"])
def test_a_question_whose_answer_cannot_be_used_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: KeyError | None
) -> None:
    asked: list[m.Message] = []

    def ask(payload: bytes) -> tuple[bytes, list[Any]]:
        asked.append(m.decode(payload))
        if fault:
            raise fault
        return b"no message", []

    async def submit() -> dict[str, Any] | None:
        made = actor(tmp_path, monkeypatch, Peer(ask=ask))
        monkeypatch.setattr(made, "_probe", lambda host: asyncio.sleep(0))
        made._act(made._core.submit(m.DistributionSpec("s.0", SOURCE, ("n0",)), Credentials(), 0.0))
        while made._core.specs["s.0"].phase != "ended":
            await asyncio.sleep(0)
        return made._core.view("s.0")

    view = asyncio.run(asyncio.wait_for(submit(), HANG))
    assert len(asked) > 1
    assert view is not None
    assert "no node could resolve it" in str(view), view


def test_a_look_is_waited_for_as_long_as_it_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(event: asyncio.Event) -> str:
        await event.wait()
        return "there"

    async def scenario() -> None:
        waits = {
            "origin": OriginSettings(answer_timeout=1.0),
            "scheduler": SchedulerSettings(resolve_timeout=1.0),
        }
        made = actor(tmp_path, monkeypatch, Peer(), **waits)
        made._keyed.set()
        (ask,) = made._core.submit(
            m.DistributionSpec("s.0", SOURCE, ("n0",), run="r"), Credentials(), time.monotonic()
        )
        assert isinstance(ask, Ask)
        never, in_the_end = asyncio.Event(), asyncio.Event()
        with pytest.raises(TimeoutError):
            await made._answer(ask, answer(never))
        work = asyncio.ensure_future(made._answer(ask, answer(in_the_end)))
        for _ in range(50):  # two and a half times as long as without a word
            await asyncio.sleep(0.1)
            await made.call(m.encode(m.StatPending("h0", "s.0", "r")))
        assert not work.done()
        in_the_end.set()
        assert await work == "there"

    asyncio.run(scenario())


@pytest.mark.parametrize("told", [True, False], ids=["told meanwhile", "not told"])
def test_a_record_that_others_fill_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    asked = 0

    def verify(message: m.Verify) -> m.Verified:
        nonlocal asked
        asked += 1
        return m.Verified(pending=not told or asked < 3)

    async def run() -> m.Message:
        made = actor(tmp_path, monkeypatch, Peer())
        made._keyed.set()
        monkeypatch.setattr(made._core, "verify", verify)
        monkeypatch.setattr(made._core, "waits_for_others", lambda message, answer: answer.pending)
        monkeypatch.setattr(scheduler, "RECORD_WAIT", HANG if told else 0.01)
        answer = asyncio.ensure_future(made.call(m.encode(m.Verify("h0", "t", b""))))
        while not answer.done():
            made._act([])  # news, of whatever
            await asyncio.sleep(0)
        return m.decode(answer.result())

    answer = asyncio.run(asyncio.wait_for(run(), HANG))
    assert answer == m.Verified(pending=not told)
    assert asked > 1


def test_submitting_and_watching_are_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["a.0", "b.0"]

    async def run() -> dict[str, Any]:
        made = actor(
            tmp_path, monkeypatch, Peer(ask=lambda payload: m.encode(m.Resolved(kind="source-not-found")))
        )
        made._keyed.set()
        known, payloads = (
            dict.fromkeys(ids, -1),
            [m.encode(m.DistributionSpec(i, SOURCE, ("n0",))) for i in ids],
        )
        return await made.submit_and_watch(payloads, Credentials(), known, HANG)

    views = asyncio.run(asyncio.wait_for(run(), HANG))
    assert set(views) == set(ids)
    assert "ended" in {view["phase"] for view in views.values()}, "an end is told at once"


def test_a_message_that_is_not_known_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a later version, or meant for somebody else: whoever sent it hears so, and no exception."""

    async def call(payload: bytes) -> m.Message:
        made = actor(tmp_path, monkeypatch, Peer())
        made._keyed.set()
        return m.decode(await made.call(payload))

    for payload, name, version in [
        (msgspec.msgpack.encode((m.VERSION + 1, {"type": "Teleport"})), "Teleport", m.VERSION + 1),
        (m.encode(m.Cancel("s")), "Cancel", 0),
    ]:
        assert asyncio.run(call(payload)) == m.Unsupported(name, version)


def test_what_a_peer_does_not_know_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[m.Message] = []

    def call(payload: bytes, sender: str, number: int, objects: Sequence[Any] = ()) -> bytes:
        heard.append(m.decode(payload))
        return m.encode(m.Unsupported("Cancel", 1))

    async def send() -> None:
        made = actor(tmp_path, monkeypatch, Peer(call))
        made._act([Send("h0", m.Cancel("first.0")), Send("h0", m.Cancel("second.0"))])
        while made._pumps:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(send(), HANG))
    assert heard == [m.Cancel("first.0"), m.Cancel("second.0")]
    assert "rejected a Cancel" in capsys.readouterr().err
