"""The download engine: events in, effects out; checked after every event, and replayed."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dragonfly_ray import bitset
from dragonfly_ray.model import digest
from dragonfly_ray.scheduling.download.effects import Cancel, Close, Complain, Report, Tell, Wake
from dragonfly_ray.scheduling.download.event_log import SPAN, replay
from dragonfly_ray.scheduling.download.lease_limits import LeaseLimits
from dragonfly_ray.scheduling.download.parent_state import (
    BAD_PIECES,
    ENDGAME_LOOK_S,
    REFRESH_S,
    NeighbourInfo,
    RequestLimits,
)
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.scheduling.stragglers import FIRST_PAUSE_S

PIECES = 16
ALL = bitset.full(PIECES)
RIGHT = [digest(bytes([i])) for i in range(PIECES)]
WRONG = [digest(bytes([i, 1])) for i in range(PIECES)]
SIZE = 1000


def fresh(*, sole: bool = False, zone: str = "", limits: RequestLimits | None = None) -> DownloadState:
    seeder = SuperSeeder(PIECES) if sole else None
    picker = Picker(PIECES, seed=1)
    state = DownloadState(
        picker, limits or RequestLimits(4, 2), host="me", zone=zone, seeder=seeder, recorded=True
    )
    state.may_read(LeaseLimits(2, 0.2, SIZE), True, 0.0, 0)
    return state


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DownloadState, "checked", True)


def claims(pieces: range | list[int]) -> tuple[tuple[int, bytes], ...]:
    return tuple((p, RIGHT[p]) for p in pieces)


def keeps(state: DownloadState, connection: int, piece: int, now: float = 0.0) -> None:
    verdict, effects = state.answered(connection, piece, RIGHT[piece], RIGHT[piece], 1e6, now)
    assert (verdict, effects) == ("keep", ())


def test_a_piece_is_asked_for_kept_told_and_reported() -> None:
    state = fresh()
    assert state.connected(1, "a", ALL, claims(range(PIECES)), 0.0) == ()
    assert state.connected(2, "b", 0, (), 0.0) == ()
    run = state.next_request(1, 0.0)
    assert len(run) == 4
    assert state.due(1) == 4
    assert len(state.next_request(1, 0.0)) == 4
    assert state.next_request(1, 0.0) == (), "the window is full"
    keeps(state, 1, run[0], 0.01)
    assert state.stored(run[0], "a", SIZE, 0.0) == ()
    assert state.take_tells(0.01) == (Tell(2, 1 << run[0]),), "a has it itself"
    part = state.take_report(5.0, 0.0, False)
    assert part.taken.pending.got == [run[0]]
    assert part.taken.fed == (("a", SIZE),)
    assert part.claim > 0
    assert state.bytes.peers == SIZE


def test_with_the_last_piece_everybody_is_told_and_nobody_waits() -> None:
    state = fresh()
    state.opened(RequestLimits(), ALL & ~1, (), (), 15 * SIZE)
    (tell,) = state.connected(1, "a", 1, claims([0]), 0.0)
    assert tell == Tell(1, ALL & ~1, last=True)
    state.connected(2, "b", 1, claims([0]), 0.0)
    assert list(state.next_request(1, 0.0)) == [0]
    assert list(state.next_request(2, 1.0)) == [0], "near the end twice"
    keeps(state, 1, 0, 1.0)
    assert state.stored(0, "a", SIZE, 0.0) == (Cancel(2, 0), Report(), Wake())
    assert state.done


def test_who_has_nothing_to_ask_waits_for_the_endgame_or_asks_anew_what_is_there() -> None:
    state = fresh()
    state.connected(1, "a", ALL, (), 0.0)
    state.connected(2, "b", 1, (), 0.0)
    assert state.idle(2, 0.0) == (ENDGAME_LOOK_S, False), "what is asked of one may be asked of another"
    state.left("a")
    assert list(state.next_request(2, 0.0)) == [0]
    keeps(state, 2, 0)
    state.stored(0, "b", SIZE, 0.0)
    assert state.idle(2, 0.0) == (REFRESH_S, True), "nobody has anything"


def test_what_is_said_on_a_connection_that_has_a_successor_counts_for_nothing() -> None:
    state = fresh()
    state.connected(1, "a", ALL, (), 0.0)
    state.next_request(1, 0.0)
    state.replaced("a")
    state.connected(2, "a", ALL, (), 0.0)
    assert not state.next_request(1, 0.0)
    asked = state.next_request(2, 0.0)
    assert state.answered(1, asked[0], RIGHT[0], RIGHT[0], 0.0, 0.0) == ("drop", ())
    state.missing(1, asked[0])
    assert not state.busy(1, asked[0], 1)
    assert state.disconnected(1, 0.0) == ()
    assert state.due(2) == len(asked) == state.picker.outstanding("a")


def test_who_sends_what_it_does_not_promise_is_complained_about_and_banned() -> None:
    state = fresh()
    state.connected(1, "a", ALL, claims(range(PIECES)), 0.0)
    pieces = [*state.next_request(1, 0.0), *state.next_request(1, 0.0)]
    for count, piece in enumerate(pieces[:BAD_PIECES], 1):
        verdict, effects = state.answered(1, piece, RIGHT[piece], WRONG[piece], 0.0, 0.0)
        assert verdict == "corrupt"
        assert effects[:2] == (Complain(1, piece), Report())
        assert (Close("a") in effects) == (count == BAD_PIECES)
    assert state.banned("a")
    assert not state.next_request(1, 0.0)
    assert state.have("a", claims([3])) == ()
    assert not state.picker.holder_bits("a")
    assert state.take_report(0.0, 0.0, True).taken.pending.bad == ["a"] * BAD_PIECES


def test_what_the_record_denies_is_dropped_and_who_said_so_is_named() -> None:
    state = fresh()
    state.connected(1, "a", ALL, ((0, WRONG[0]),), 0.0)
    state.connected(2, "b", ALL, claims([0]), 0.0)
    assert state.take_report(0.0, 0.0, False).disputed == (0,)
    state.next_request(1, 0.0)
    state.stored(0, "a", SIZE, 0.0)
    wrong, effects = state.settled(((0, RIGHT[0], WRONG[0]),))
    assert wrong == (0,)
    assert effects == (Report(),)
    assert state.lost(wrong) == (Report(), Wake())
    part = state.take_report(0.0, 0.0, False)
    assert part.taken.pending.misled == [("a", 0)]
    assert part.taken.pending.lost == [0]
    assert 0 not in state.provenance
    assert not state.picker.holder_bits("a") & 1
    assert state.picker.holder_bits("b") & 1


def test_a_slow_parent_is_given_up_only_where_others_have_the_piece_and_then_left_alone() -> None:
    state = fresh(limits=RequestLimits(1, 1))
    state.connected(1, "a", ALL, (), 0.0)
    (piece,) = state.next_request(1, 0.0)
    assert not state.too_slow(1, piece, 10.0, 100.0, False, 5.0), "nobody else has it"
    state.connected(2, "b", ALL, (), 0.0)
    (other,) = state.next_request(2, 0.0)
    verdict, _ = state.answered(2, other, b"", b"", 1e6, 0.1)
    assert verdict == "keep"
    assert not state.too_slow(1, piece, 1e6, 100.0, False, 5.0), "as quick as the other"
    assert state.too_slow(1, piece, 10.0, 100.0, False, 5.0)
    state.disconnected(1, 5.0)
    state.connected(3, "a", ALL, (), 6.0)
    assert state.connections.paused("a", 6.0) == pytest.approx(FIRST_PAUSE_S - 1.0)
    assert state.idle(3, 6.0) == (REFRESH_S, False)
    assert state.next_request(3, 6.0) == ()
    assert state.next_request(3, 5.0 + FIRST_PAUSE_S)


def test_no_more_is_due_than_a_parent_gives_in_a_short_while() -> None:
    state = fresh(limits=RequestLimits(1, 8))
    state.connected(1, "a", ALL, (), 0.0)
    (piece,) = state.next_request(1, 0.0)
    assert state.answered(1, piece, b"", b"", 1e6, 0.15)[0] == "keep"
    state.stored(piece, "a", SIZE, 0.0)
    asked = 0
    while state.next_request(1, 0.2):
        asked += 1
    assert asked == 2, "0.15 s a piece"


def test_what_is_leased_and_here_from_before_is_vouched_for_and_not_read() -> None:
    state = fresh()
    state.opened(RequestLimits(), 0b11, claims([0, 1]), (), 2 * SIZE)
    state.leased((0, 1, 2), claims([0, 1]), 0.0)
    assert state.next_origin_run(0, 0.0, 0.0)[0] == range(2, 3)
    assert state.take_report(0.0, 0.0, False).taken.pending.origin == list(claims([0, 1]))
    state.origin_read(2, RIGHT[2], b"")
    state.stored(2, "", SIZE, 0.0)
    state.origin_ended(0, ())
    assert state.take_report(0.0, 0.0, False).taken.pending.origin == list(claims([2]))


def test_what_the_origin_gives_settles_what_is_here() -> None:
    state = fresh()
    assert not state.origin_read(1, RIGHT[1], b""), "nothing is here"
    assert not state.origin_read(1, RIGHT[1], RIGHT[1])
    assert state.origin_read(1, RIGHT[1], WRONG[1])


def test_audits_are_read_one_by_one_in_order_and_told() -> None:
    state = fresh()
    assert not state.to_audit(())
    assert state.to_audit((5, 3))
    assert not state.to_audit((4,)), "somebody is at it"
    assert state.next_audit(0.0) == (5, ())
    assert state.audited(5, RIGHT[5]) == (Report(),)
    assert [state.next_audit(0.0)[0] for _ in range(3)] == [3, 4, None]
    assert state.audited(3, None) == (Report(),)
    assert state.to_audit((6,)), "whoever was at it has ended"
    news = state.take_report(5.0, 0.0, False).taken.pending
    assert (news.audited, news.unaudited) == ([(5, RIGHT[5])], [3])


def test_audits_are_given_back_at_once_where_the_origin_is_not_to_be_asked() -> None:
    state = fresh()
    state.to_audit((5, 3, 4))
    assert state.next_audit(0.0) == (5, ())
    assert state.origin_busy(0.0, 30.0) == 30.0
    assert state.next_audit(1.0) == (None, (Report(),))
    assert state.take_report(5.0, 0.0, False).taken.pending.unaudited == [3, 4]
    assert state.to_audit((6,))
    assert state.next_audit(31.0) == (6, ())


def test_a_sole_reader_tells_each_fresh_piece_to_one_neighbour_first() -> None:
    state = fresh(sole=True)
    state.connected(1, "a", 0, (), 0.0)
    state.connected(2, "b", 0, (), 0.0)
    for piece in (0, 1):
        state.origin_read(piece, RIGHT[piece], b"")
        state.stored(piece, "", SIZE, 0.0)
    assert set(state.take_tells(0.0)) == {Tell(1, 1), Tell(2, 2)}
    assert (state.shown("a"), state.shown("b")) == (1, 2)
    state.have("a", claims([0]))
    assert state.take_tells(0.0) == ()
    assert state.shown("unknown") == 0


def test_who_is_silent_feeds_nobody_and_hears_everything() -> None:
    state = fresh()
    state.have("a", claims([3]))
    state.met("a", NeighbourInfo(silent=True))
    state.connected(1, "a", ALL, claims([0]), 0.0)
    assert not state.next_request(1, 0.0)
    state.stored(0, "", SIZE, 0.0)
    assert state.take_tells(0.0) == (Tell(1, 1),)


def test_what_others_wait_for_is_told_early_and_what_is_here_with_the_rest() -> None:
    state = fresh()
    state.replied(5, 0.0, 0.0)
    state.origin_read(0, RIGHT[0], b"")
    assert state.report_due(0.0, 0.0, early=True), "there is more to claim"
    state.replied(0, 0.0, 0.0)
    assert not state.report_due(0.0, 0.0, early=True)
    assert state.report_due(0.0, 0.0)
    state.audited(1, RIGHT[1])
    assert state.report_due(0.0, 0.0, early=True)
    state.take_report(0.0, 0.0, False)
    for piece in range(PIECES):
        state.stored(piece, "", SIZE, 0.0)
    assert state.done
    assert not state.report_due(0.0, 0.0, early=True), "the question for the record tells it"
    state.audited(2, None)
    assert state.report_due(0.0, 0.0, early=True), "all wait for it"


def test_a_report_that_did_not_arrive_is_told_again() -> None:
    state = fresh()
    state.stored(0, "", SIZE, 0.0)
    part = state.take_report(0.0, 0.0, False)
    state.untold(part.taken, False)
    assert state.take_report(0.0, 0.0, False).taken.pending.got == [0]
    state.stored(1, "", SIZE, 0.0)
    part = state.take_report(0.0, 0.0, False)
    state.untold(part.taken, True)
    assert state.take_report(0.0, 0.0, False).taken.pending.got == [0, 1], "it has forgotten all"


@pytest.mark.parametrize("imports", [True, False])
def test_a_sole_reader_that_has_told_everything_is_for_importers_to_ask(imports: bool) -> None:
    state = fresh(zone="x")
    state.met("me", NeighbourInfo(importer=imports))
    state.met("mate", NeighbourInfo("x", importer=not imports))
    state.met("seed", NeighbourInfo("y", sole=True))
    state.connected(1, "seed", 0, (), 0.0)
    state.have("seed", claims([3]))
    assert list(state.next_request(1, 0.0)) == [3], "told to this host alone"
    keeps(state, 1, 3)
    state.have("seed", claims(range(PIECES)))
    asked = state.next_request(1, 0.1)
    assert bool(asked) == imports


class Download(RuleBasedStateMachine):
    """Whatever comes in whatever order, the state agrees with itself, and happens the same way once more."""

    def __init__(self) -> None:
        super().__init__()
        DownloadState.checked = True
        self.state = fresh(sole=self.sole, zone=self.zone)
        self.now = 0.0
        self.next = 0
        self.open: dict[int, str] = {}
        self.asked: dict[int, list[int]] = {}
        self.answers = 0

    sole = False
    zone = ""

    @rule(host=st.sampled_from("abc"), held=st.integers(0, ALL))
    def connect(self, host: str, held: int) -> None:
        if self.state.banned(host):
            return
        self.next += 1
        self.open[self.next], self.asked[self.next] = host, []
        said = tuple((p, RIGHT[p]) for p in bitset.members(held))
        self.state.connected(self.next, host, held, said, self.now)

    @rule(host=st.sampled_from("abc"), zone=st.sampled_from("xyz"), how=st.tuples(*[st.booleans()] * 4))
    def meet(self, host: str, zone: str, how: tuple[bool, bool, bool, bool]) -> None:
        if not self.state.banned(host):
            self.state.met(host, NeighbourInfo(zone, *how))

    @rule(importer=st.booleans())
    def name(self, importer: bool) -> None:
        self.state.met("me", NeighbourInfo(importer=importer))

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        if self.open:
            connection = data.draw(st.sampled_from(sorted(self.open)))
            self.asked[connection] += self.state.next_request(connection, self.now)

    @rule(data=st.data(), what=st.sampled_from(["piece", "corrupt", "missing", "busy", "cached"]))
    def answer(self, data: st.DataObject, what: str) -> None:
        waiting = sorted(c for c, pieces in self.asked.items() if pieces)
        if not waiting:
            return
        connection = data.draw(st.sampled_from(waiting))
        piece, host, state = self.asked[connection].pop(0), self.open[connection], self.state
        match what:
            case "missing":
                state.missing(connection, piece)
            case "busy":
                state.busy(connection, piece, 1)
            case "cached":
                if state.due(connection):
                    state.cached(connection, piece, SIZE, 0.0)
            case _:
                found = RIGHT[piece] if what == "piece" else WRONG[piece]
                verdict, _ = state.answered(connection, piece, RIGHT[piece], found, 1e6, self.now)
                assert verdict != "keep" or what == "piece", "never what is not as promised"
                if verdict == "keep":
                    state.stored(piece, host, SIZE, self.now)

    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        if self.open:
            connection = data.draw(st.sampled_from(sorted(self.open)))
            del self.open[connection], self.asked[connection]
            self.state.disconnected(connection, self.now)

    @rule(host=st.sampled_from("abc"), pieces=st.sets(st.integers(0, PIECES - 1)), right=st.booleans())
    def have(self, host: str, pieces: set[int], right: bool) -> None:
        said = RIGHT if right else WRONG
        self.state.have(host, tuple((p, said[p]) for p in sorted(pieces)))

    @rule(pieces=st.sets(st.integers(0, PIECES - 1), max_size=3))
    def lose(self, pieces: set[int]) -> None:
        self.state.lost(tuple(sorted(p for p in pieces if self.state.picker.have >> p & 1)))

    @rule(piece=st.integers(0, PIECES - 1))
    def settle(self, piece: int) -> None:
        self.state.settled(((piece, RIGHT[piece], b""),))

    @rule(pieces=st.sets(st.integers(0, PIECES - 1), max_size=3))
    def lease(self, pieces: set[int]) -> None:
        self.state.leased(tuple(sorted(pieces)), (), self.now)

    @rule(worker=st.integers(0, 1))
    def read(self, worker: int) -> None:
        run, _ = self.state.next_origin_run(worker, self.now, 0.0)
        for piece in run or ():
            self.state.origin_read(piece, RIGHT[piece], b"")
            self.state.stored(piece, "", SIZE, 0.0)
        self.state.origin_ended(worker, ())

    @rule(host=st.sampled_from("abc"), how=st.sampled_from(["left", "ban", "replaced"]))
    def lose_host(self, host: str, how: str) -> None:
        match how:
            case "left":
                self.state.left(host)
            case "ban":
                self.state.ban(host)
            case "replaced":
                self.state.replaced(host)

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(reached=st.booleans())
    def tell(self, reached: bool) -> None:
        self.state.take_tells(self.now)
        part = self.state.take_report(self.now, 0.0, False)
        if not reached:
            self.state.untold(part.taken, False)

    @invariant()
    def holds(self) -> None:
        self.state.validate()

    def teardown(self) -> None:
        dump = self.state.dump()
        again, answers = replay(dump)
        assert answers == [each.answer for each in dump.events]
        assert again.picker.have == self.state.picker.have
        DownloadState.checked = False


class SoleDownload(Download):
    sole = True


class ZonedDownload(Download):
    zone = "x"


class ZonedSoleDownload(Download):
    sole, zone = True, "x"


for machine in (Download, SoleDownload, ZonedDownload, ZonedSoleDownload):
    machine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestDownload = Download.TestCase
TestSoleDownload = SoleDownload.TestCase
TestZonedDownload = ZonedDownload.TestCase
TestZonedSoleDownload = ZonedSoleDownload.TestCase


def test_the_last_events_are_kept_and_happen_the_same_way_once_more() -> None:
    state = fresh()
    now = 0.0
    for turn in range(2 * SPAN):
        state.connected(turn, "ab"[turn % 2], ALL, claims(range(PIECES)), now)
        for piece in state.next_request(turn, now):
            now += 0.01
            keeps(state, turn, piece, now)
            state.stored(piece, "ab"[turn % 2], SIZE, 0.0)
        if state.done:
            state.lost(tuple(range(PIECES)))
    dump = state.dump()
    assert SPAN <= len(dump.events) < 2 * SPAN + 1
    again, answers = replay(dump)
    assert answers == [each.answer for each in dump.events]
    assert list(again.next_request(turn, now)) == list(state.next_request(turn, now)), "and go on alike"
    assert again.take_report(now, 0.0, True) == state.take_report(now, 0.0, True)
