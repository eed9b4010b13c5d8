"""Faults of the download engine, each of which a simulator test and a test of real peers have to notice."""

from __future__ import annotations

from dataclasses import dataclass

VARIABLE = "DRAGONFLY_MUTATION"
ENGINE = "dragonfly_ray.scheduling.download"
STATE = f"{ENGINE}.state"
LEASES = f"{ENGINE}.lease_queue"
PICKER = "dragonfly_ray.scheduling.picker"
SIMULATOR = "tests/unit/test_simulator.py"
SWARM = "tests/unit/swarm"


@dataclass(frozen=True)
class Change:
    """`old` stands once in the module's text, and becomes `new`."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    changes: tuple[Change, ...]
    simulated: str
    """The test of the simulator that fails for it."""
    real: str = ""
    """The test of real peers that does; empty: none is named, the engine's own tests do."""


ENGINE_TESTS = f"{SWARM}/test_engine.py"

MUTATIONS: dict[str, Mutation] = {
    "the commonest first": Mutation(
        (Change(PICKER, "bitset.any_of(self._tally.rarest(free), self._random)",
                "bitset.any_of(free & ~self._tally.rarest(free) or free, self._random)"),),
        f"{SIMULATOR}::test_equal_links_come_near_to_the_bound",
        f"{ENGINE_TESTS}::test_what_few_have_is_asked_for_first",
    ),
    "everybody imports": Mutation(
        (Change(f"{ENGINE}.host_events", "return self._abroad(info) and not selective", "return False"),),
        f"{SIMULATOR}::test_zones_exchange_little_more_than_each_piece_once",
        f"{SWARM}/test_zones.py::test_each_byte_enters_each_zone_once",
    ),
    "no bound on what is due": Mutation(
        (Change(f"{ENGINE}.connections", "return min(limits.pieces, room - parent.due, parent.window.room(limits))",
                "return limits.pieces"),
         Change(f"{ENGINE}.parent_state", "return limits.together - self.due if limits.together else limits.due",
                "return limits.due"),
         Change(f"{ENGINE}.connections", "return near.due < most, far.due < most", "return True, True")),
        f"{SIMULATOR}::test_equal_links_come_near_to_the_bound",
        f"{ENGINE_TESTS}::test_no_more_is_due_on_a_connection_than_its_pipeline_holds",
    ),
    "neighbours hear of nothing new": Mutation(
        (Change(STATE, "        self._haves.fresh |= 1 << piece\n", ""),),
        f"{SIMULATOR}::test_equal_links_come_near_to_the_bound",
        f"{ENGINE_TESTS}::test_what_is_new_is_passed_on_before_all_is_here",
    ),
    "a sole reader tells everybody": Mutation(
        (Change(f"{ENGINE}.have_outbox", "            for host, pieces in self.seeder.due(now).items():",
                "            for host, pieces in dict.fromkeys(self._connections.hosts(), self._picker.have).items():"),),
        f"{SIMULATOR}::test_equal_links_come_near_to_the_bound",
        f"{SWARM}/test_distribution.py::test_the_only_reader_gives_out_every_piece_once_before_any_twice",
    ),
    "reports leave out what was read": Mutation(
        (Change(f"{ENGINE}.origin_events", "        self.report.news.origin.append((piece, found))\n", ""),),
        f"{SIMULATOR}::test_all_peers_read_the_origin_and_each_piece_leaves_it_once[400.0]",
        f"{SWARM}/test_distribution.py::test_each_byte_leaves_the_origin_once[0-all]",
    ),
    "nothing is given back": Mutation(
        (Change(LEASES, "        late = [p for p in self._queue if self._since.get(p, before) < before]",
                "        late: list[int] = []"),),
        f"{SIMULATOR}::test_who_reads_slowly_gives_back_what_others_read_sooner",
        f"{ENGINE_TESTS}::test_what_waits_at_a_slow_reader_is_given_back",
    ),
    "a failed origin is asked at once": Mutation(
        (Change(LEASES, "self._backoff = min(MAX_BACKOFF_S, self._backoff * 2 or FIRST_BACKOFF_S)",
                "self._backoff = 0.0"),),
        f"{SIMULATOR}::test_an_origin_that_fails_is_left_alone_for_a_while",
        f"{ENGINE_TESTS}::test_an_origin_that_fails_is_left_alone_for_a_while",
    ),
    "what comes is not compared": Mutation(
        (Change(STATE, "        if said != found or (said and", "        if (said and"),),
        f"{SIMULATOR}::test_what_is_not_as_promised_is_not_kept",
        f"{ENGINE_TESTS}::test_what_is_not_as_promised_is_not_kept",
    ),
    "what the record denies is kept": Mutation(
        (Change(STATE, "            if mine and mine != said:", "            if False:"),),
        f"{SIMULATOR}::test_who_was_lied_to_ends_with_what_the_origin_has",
        f"{SWARM}/test_lying_peers.py::test_a_neighbour_that_lies_first_gets_nobody_banned_but_itself",
    ),
    "nothing is asked for twice near the end": Mutation(
        (Change(PICKER, "        if missing.bit_count() > ENDGAME_PIECES:", "        if missing:"),),
        f"{SIMULATOR}::test_near_the_end_nobody_waits_for_a_slow_host_alone",
    ),
    "what the lost were asked for stays taken": Mutation(
        (Change(PICKER, "            for piece in list(holder.asked):\n                self._unask(holder, piece)\n",
                "            pass\n"),),
        f"{SIMULATOR}::test_what_the_lost_were_asked_for_is_asked_of_others_at_once",
    ),
    "nobody is banned": Mutation(
        (Change(f"{ENGINE}.host_events", "        self._banned.add(host)\n        return self._left(host)",
                "        return ()"),),
        f"{SIMULATOR}::test_what_is_not_as_promised_is_not_kept",
    ),
}  # fmt: skip
