"""Cases F and G: a host that dies or falls silent half way, and the only seed that dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.benchmarks.bulk import seeds_only
from tests.benchmarks.measures import Measure, Report, Rounds, say
from tests.benchmarks.rig import MIB, BenchError, Call, Content, Rig, ok
from tests.testbed.bed import BedHost

SIZE = 256 * MIB
RETURN = 15.0
"""Seconds from the last survivor's end within which the call returns."""


def _half_way(rig: Rig, victim: BedHost, before: int, timeout: float = 120.0) -> float:
    """Waits until the victim's link has carried half of the content; the share that it then has."""
    deadline = time.monotonic() + timeout
    while (share := (rig.sampler.counters()[str(victim.number)][0] - before) / SIZE) < 0.5:
        if time.monotonic() > deadline:
            raise BenchError("the victim does not get half of it")
        time.sleep(0.01)
    return share


def _disturbed(rig: Rig, content: Content, victim: BedHost, strike: Callable[[], None]) -> Call:
    """A distribution with a blow in the middle. Raises `BenchError` where a survivor fails."""
    with rig.sampler.record() as trace:
        before = rig.sampler.counters()[str(victim.number)][0]
        rig.start(content)
        share = _half_way(rig, victim, before)
        strike()
        struck = (rig.sampler.counters()[str(victim.number)][0] - before) / SIZE
        found = rig.driver.receive(360)
    if not 0.1 < share <= struck < 0.9:
        raise BenchError(f"the victim had {100 * struck:.0f} % when it was struck: not half way")
    call = rig.finish(content, found, trace)
    others = {a: why for a, why in call.failed.items() if a != victim.address}
    if others or victim.address not in call.failed:
        raise BenchError(f"failed: {call.failed or 'nobody, not even the victim'}"[:300])
    return call


def _survivors_end(call: Call, survivors: Sequence[BedHost]) -> float:
    return max(call.visible[host.address] for host in survivors)


class _Blow:
    """One way to lose a host: its two lines."""

    def __init__(
        self, report: Report, word: str, target: float, victim: BedHost, strike: Callable[[], None]
    ) -> None:
        self.word, self.victim, self.strike = word, victim, strike
        self.slower: Measure = report.measure(f"{word}: the others ÷ undisturbed", target)
        self.returns: Measure = report.measure(f"{word}: the call returns after the last survivor, s", RETURN)

    def round(self, rig: Rig, report: Report, undisturbed: Call) -> None:
        survivors = [host for host in rig.hosts if host is not self.victim]
        with rig.content(SIZE) as content:
            try:
                call = _disturbed(rig, content, self.victim, self.strike)
            finally:
                rig.heal()
        end = _survivors_end(call, survivors)
        self.slower.add(_survivors_end(undisturbed, survivors), end)
        self.returns.value(call.seconds - end)
        call.trace.floor = self.slower.floors[-1]
        report.traces[f"{report.case} {self.word}"] = call.trace
        say(f"  {report.case} {self.word}: others {end:.2f} s, undisturbed {self.slower.floors[-1]:.2f} s "
            f"= {self.slower.ratios[-1]:.3f}, returned {self.returns.ours[-1]:.2f} s later")  # fmt: skip


def _rounds(rig: Rig, report: Report, rounds: Rounds, blows: Sequence[_Blow]) -> None:
    for number in rounds:
        say(f"  {report.case} round {number + 1}/{rounds.count}")
        with rig.content(SIZE) as content:
            undisturbed = ok(rig.distribute(content))
        for blow in blows:
            blow.round(rig, report, undisturbed)


def f(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(400, 200)
    rig.settings({})
    killed, cut = rig.hosts[2], rig.hosts[3]
    blows = [_Blow(report, "killed", 1.20, killed, killed.kill), _Blow(report, "cut off", 1.20, cut, cut.cut)]
    _rounds(rig, report, rounds, blows)


def g(rig: Rig, report: Report, rounds: Rounds) -> None:
    rig.shape(400, 200)
    seed = rig.hosts[1]
    rig.settings(seeds_only(seed))
    _rounds(rig, report, rounds, [_Blow(report, "only seed killed", 1.35, seed, seed.kill)])
