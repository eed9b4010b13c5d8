"""Nanoseconds of the picker's two hot calls: `python -m tests.benchmarks.picker`."""

from __future__ import annotations

import random
import time

from dragonfly_ray import bitset as bits
from dragonfly_ray.scheduling.picker import Picker

CALLS = 4000


def measure(pieces: int, holders: int) -> dict[str, float]:
    """Each piece arrives in turn from a random holder, while all holders tell of a piece each."""
    rng = random.Random(1)
    picker = Picker(pieces, seed=1)
    names = [f"h{i}" for i in range(holders)]
    for name in names:
        picker.joined(name, rng.getrandbits(pieces))
    spent = {"has": 0, "bitmap": 0, "pick": 0, "got": 0}
    calls = min(CALLS, pieces - pieces // 8)
    for _ in range(calls):
        name, piece = rng.choice(names), rng.randrange(pieces)
        started = time.perf_counter_ns()
        picker.has(name, (piece,))
        spent["has"] += time.perf_counter_ns() - started
        burst = bits.of(rng.sample(range(pieces), 8))
        started = time.perf_counter_ns()
        picker.has(name, burst)
        spent["bitmap"] += time.perf_counter_ns() - started
        started = time.perf_counter_ns()
        run = picker.pick(rng.choice(names), 1, 0.0)
        spent["pick"] += time.perf_counter_ns() - started
        for piece in run:
            started = time.perf_counter_ns()
            picker.got(piece)
            spent["got"] += time.perf_counter_ns() - started
    return {name: nanoseconds / calls for name, nanoseconds in spent.items()}


def main() -> None:
    print(
        f"{'pieces':>7} {'holders':>8} {'has, 1 piece':>13} {'has, 8 pieces':>14} {'pick':>7} {'got':>7}   ns"
    )
    for pieces in (256, 1024, 16384):
        for holders in (8, 40):
            found = measure(pieces, holders)
            print(
                f"{pieces:>7} {holders:>8} {found['has']:>13.0f} {found['bitmap']:>14.0f} {found['pick']:>7.0f} {found['got']:>7.0f}"
            )


if __name__ == "__main__":
    main()
