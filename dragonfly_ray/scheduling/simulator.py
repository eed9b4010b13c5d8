"""Simulates a distribution in virtual time, with the code that runs in a cluster.

`DownloadState` and `SchedulerCore` are the real ones, and talk in the real messages; only the
links, the origin and the time are modelled. The same scenario gives the same result.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from array import array
from collections.abc import Callable

from dragonfly_ray import messages as m
from dragonfly_ray.model import Host, root_digest
from dragonfly_ray.scheduling.download.parent_state import RequestLimits
from dragonfly_ray.scheduling.download.record_wait import RecordWait, Step
from dragonfly_ray.scheduling.download.state import DownloadState
from dragonfly_ray.scheduling.download.superseed import SuperSeeder
from dragonfly_ray.scheduling.picker import Picker
from dragonfly_ray.scheduling.simulation.network import Clock, Line, Zone
from dragonfly_ray.scheduling.simulation.peer import Peer
from dragonfly_ray.scheduling.simulation.report import Report
from dragonfly_ray.scheduling.simulation.scenario import CHURN_PERIOD, MBIT, Link, Scenario
from dragonfly_ray.scheduling.simulation.scheduler import Scheduler, digest_of

__all__ = ["Report", "Scenario", "Simulation", "simulate"]

TICK = 0.25
"""Seconds between the scheduler's own turns."""
GIVE_UP = 20.0
"""Times the bound after which a simulation ends, whatever is missing."""
CURVE_POINTS = 200

PickerFactory = Callable[[int, int], Picker]
"""Pieces, seed -> the picker of a peer."""


def simulate(
    scenario: Scenario,
    *,
    picker: PickerFactory | None = None,
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Runs it to the end. `progress` hears the share of the bytes that are there, now and then."""
    collected = gc.isenabled()
    gc.disable()  # millions of small objects that live to the end
    try:
        return Simulation(scenario, picker).run(progress)
    finally:
        if collected:
            gc.enable()


class Simulation:
    """The world of one run: who exists, what happens when."""

    def __init__(self, scenario: Scenario, picker: PickerFactory | None = None) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.peers: dict[str, Peer] = {}
        self.hungry: dict[Peer, None] = {}
        """Peers that would ask for more, and found nobody to ask."""
        self.listening: dict[Peer, None] = {}
        """Peers that still fetch, and hear what their neighbours tell."""
        self.talkative: dict[Peer, None] = {}
        """Peers with something to tell."""
        self.told: list[int] = []
        """All that each peer has told everybody by the end of the last turn, by its number."""
        self.room = array("i")
        """Requests that each peer takes; with none left, it answers BUSY."""
        self.turn = 0
        self.from_origin = 0
        self.origin_failures = 0
        self.requests = 0
        """That peers have sent to each other."""
        self.origin = Line(scenario.origin_mbit * MBIT) if scenario.origin_mbit else None
        self.scheduler = Scheduler(scenario, self)
        self._picker = picker or (lambda count, seed: Picker(count, seed=seed))
        self._random = random.Random(scenario.seed)
        rate = scenario.region_mbit * MBIT if scenario.region_mbit else None
        self._regions = [Zone(f"region{i}", rate) for i in range(scenario.regions)]
        self._zones = [
            Zone(scenario.zone(i), scenario.zone_rate(i), self._regions[scenario.region(i)])
            for i in range(scenario.zones)
        ]
        self.home = None if scenario.origin_zone is None else self._zones[scenario.origin_zone]
        self._root = root_digest([digest_of(i) for i in range(scenario.pieces)])
        self._bound = scenario.bound()
        self._complete = 0
        self._expected = 0
        self._lost = 0
        self._memory = 0.0
        self._sole: list[Peer] = []
        """Those that alone read the origin, and tell each neighbour something else."""

    # --- what the scheduler sends -----------------------------------------------------------

    def deliver(self, host: str, message: m.Message, now: float) -> None:
        peer = self.peers[host]
        if not peer.alive:
            return
        match message:
            case m.Deliver():
                peer.delivered(message, now)
            case m.TaskUpdate():
                peer.news(message, now)

    def alive(self, host: str) -> bool:
        return self.peers[host].alive

    # --- the run ----------------------------------------------------------------------------

    def run(self, progress: Callable[[float], None] | None = None) -> Report:
        started, cpu = time.perf_counter(), time.process_time()
        self._populate()
        scenario, step = self.scenario, self.scenario.lag * self.scenario.piece_time
        end, point, watch = GIVE_UP * self._bound, 0.0, TICK
        curve: list[tuple[float, float, float]] = []
        for turn in itertools.count(1):
            now = turn * step
            self._turn(now)
            if now >= watch:
                self.scheduler.tick(now)
                watch = now + TICK
            over = self._complete >= self._expected or now > end
            if now >= point or over:
                curve.append(self._point(now))
                point = now + self._bound / CURVE_POINTS
                if progress:
                    progress(curve[-1][1])
            if over:
                break
        self.clock.run_until(now + 10 * scenario.piece_time)
        return self._report(time.perf_counter() - started, time.process_time() - cpu, curve)

    def _turn(self, now: float) -> None:
        """What happens up to `now`; then everybody tells what is new, and who waits for news asks."""
        self.clock.run_until(now)
        self.turn += 1
        talkative, self.talkative = self.talkative, {}
        news = {peer.id: fresh for peer in talkative if (fresh := peer.state.take_news())}
        if self.scenario.doubtful:
            for peer in list(self.listening) if news else ():
                peer.hear_claims(news, now)
        else:
            for host in news:
                peer = self.peers[host]
                self.told[peer.number] = peer.state.picker.have
        for peer in self._sole:
            if peer in self.listening:
                peer.hear()
            peer.carry_out(peer.state.take_tells(now), now)
        hungry, self.hungry = self.hungry, {}
        for peer in hungry:
            peer.ask(now)

    def _populate(self) -> None:
        """Everybody announces, then the distribution is submitted; losses and latecomers are planned."""
        s = self.scenario
        links = s.links()
        period = CHURN_PERIOD * s.piece_time
        late = round(s.joined * s.peers * self._bound / period)
        nodes = [f"n{i}" for i in range(s.peers + late)]
        for number in range(s.readers):
            self._start(f"s{number}", Link(s.mbit * MBIT, s.mbit * MBIT), number, 0.0, seed=True)
        for number, link in enumerate(links):
            self._start(nodes[number], link, number, 0.0)
        for number, node in enumerate(nodes[: s.liars + s.damaged]):
            self.peers[node].fault = "lies" if number < s.liars else "damages"
        self._expected = len(nodes) - s.liars
        self.scheduler.submit(nodes, 0.0, seeds_only=s.policy == "seeds")
        for number in range(late):
            when = self._random.uniform(0, self._bound)
            link = self._random.choice(links)
            self.clock.at(when, self._joins, nodes[s.peers + number], link, s.peers + number)
        if s.lost:
            self.clock.at(self._pause(period), self._loses, period)

    def _pause(self, period: float) -> float:
        return self._random.expovariate(self.scenario.lost * self.scenario.peers / period)

    def _start(self, name: str, link: Link, number: int, now: float, *, seed: bool = False) -> None:
        zone = self._zones[number % len(self._zones)]
        idc = zone.name if len(self._zones) > 1 else ""
        location = zone.region.name if zone.region and len(self._regions) > 1 else ""
        host = Host(name, name, (), name, seed, idc, location, incarnation="1")
        pieces = self.scenario.pieces
        sole = seed and self.scenario.seeds == 1
        state = DownloadState(
            self._picker(pieces, self._random.getrandbits(32)),
            self._limits(),
            host=name,
            zone=host.idc,
            location=location,
            seeder=SuperSeeder(pieces) if sole else None,
            now=now,
        )
        self.peers[name] = peer = Peer(self, host, link, zone, state, target=not seed)
        peer.joined_at = now
        if sole:
            self._sole.append(peer)
        self.scheduler.announce(host, now)

    def _limits(self) -> RequestLimits:
        s, transport = self.scenario, self.scheduler.core.settings.transport
        if s.admission == "late":
            return RequestLimits(together=s.requests)
        return RequestLimits.of(s.size, s.piece_bytes, transport.request_bytes, transport.pipeline)

    def _joins(self, now: float, name: str, link: Link, number: int) -> None:
        self._start(name, link, number, now)

    def _loses(self, now: float, period: float) -> None:
        """Any peer, whatever it has; the seed stays."""
        living = [p for p in self.peers.values() if p.alive and p.target]
        if len(living) > 1:
            victim = self._random.choice(living)
            self._lost += 1
            if victim.complete_at is None:
                self._expected -= 1
            victim.die(now)
        self.clock.at(now + self._pause(period), self._loses, period)

    def completed(self, peer: Peer, now: float) -> None:
        """A peer has everything: does the record agree?"""
        if peer.target and peer.fault != "lies":
            self._verify(now, peer, now, RecordWait(now))

    def _verify(self, now: float, peer: Peer, since: float, wait: RecordWait) -> None:
        if peer.complete_at != since:
            return  # it has lost something meanwhile
        answer = self.scheduler.verify(peer.id, peer.root(self._root), now)
        for step in wait.answered(now, known=answer.known, pending=answer.pending, ok=answer.ok):
            match step:
                case Step.ACCEPT:
                    self._accepted(peer, now)
                    return
                case Step.MEND:
                    peer.mend(answer.digests, now)
                    return
                case Step.VOUCH:
                    peer.vouch(answer.gaps, now)
        self.clock.at(now + wait.pause(), self._verify, peer, since, wait)

    def _accepted(self, peer: Peer, now: float) -> None:
        self._complete += 1
        if not self._memory and 2 * self._complete >= self._expected:
            self._memory = self.scheduler.bytes_per_peer()
        self.scheduler.ended(peer.id, now)

    # --- what came of it --------------------------------------------------------------------

    def _point(self, now: float) -> tuple[float, float, float]:
        there = [p for p in self.peers.values() if p.target and p.alive]
        pieces = sum(p.state.picker.have.bit_count() for p in there)
        complete = sum(p.complete_at is not None for p in there)
        most = max(1, len(there))
        return now, pieces / (most * self.scenario.pieces), complete / most

    def _report(self, wall: float, cpu: float, curve: list[tuple[float, float, float]]) -> Report:
        targets = [p for p in self.peers.values() if p.target]
        first = sorted(p.complete_at for p in targets if not p.joined_at and p.complete_at is not None)
        late = [p.complete_at - p.joined_at for p in targets if p.joined_at and p.complete_at is not None]
        received = sum(p.bytes_origin + p.bytes_peers for p in targets)
        return Report(
            scenario=self.scenario,
            bound=self._bound,
            seconds=first[-1] if first and self._complete >= self._expected else float("inf"),
            p50=first[len(first) // 2] if first else float("inf"),
            p99=first[min(len(first) - 1, int(0.99 * len(first)))] if first else float("inf"),
            complete=self._complete,
            lost=self._lost,
            late=len(late),
            late_seconds=max(late, default=0.0),
            origin_share=self.from_origin / self.scenario.pieces,
            cross_share=sum(p.bytes_far for p in targets) / max(1, received),
            into_zone=max(zone.entered for zone in self._zones) / self.scenario.size,
            into_region=max(region.entered for region in self._regions) / self.scenario.size,
            origin_failures=self.origin_failures,
            false_pieces=sum(p.false_pieces for p in targets),
            decisions=self.requests + self.scheduler.decisions,
            core_seconds=self.scheduler.seconds,
            cpu_seconds=cpu,
            memory_per_peer=self._memory,
            wall_seconds=wall,
            curve=tuple(curve),
        )
