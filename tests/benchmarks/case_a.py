"""Case A: 256 MiB from an origin with 200 Mbit/s to four hosts with 400 Mbit/s each.

The clock is the wall time of `distribute(dest=…)` as the driver sees it, actors up, content unknown,
until the last output is visible. The floor is one curl alone to a file, in the same run.

    sudo .venv/bin/python -m tests.benchmarks.case_a
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from tests.testbed.bed import Testbed, root_file

_ROUND = """
t = time.time()
done = d.distribute({url!r}, dest={dest!r})
seconds = time.time() - t
answer({{"seconds": seconds, "ok": done.ok, "outcomes": done.to_dict()["outcomes"]}})
"""
_MEMORY = """
import glob
def anonymous():
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            name = open(path).read().replace(chr(0), " ").strip()
            if name.startswith("ray::Peer"):
                status = open(path.replace("cmdline", "status")).read()
                found[path.split("/")[2]] = int(status.split("RssAnon:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            pass
    return found
answer(anonymous())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--seed", action="store_true", help="host 1 is a seed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    labels = {1: {"dragonfly.io/seed": "true"}} if options.seed else {}
    with Testbed(options.hosts, labels=labels) as bed:
        size = options.mib << 20
        print("peers up:", len(bed.run("answer(list(d.up()))")), flush=True)
        before = bed.run(_MEMORY)
        floors, times, ratios = [], [], []
        for number in range(options.rounds):
            file = bed.origin.root / f"f{number}.bin"
            root_file(file, size)
            url = f"{bed.origin.url}/{file.name}"
            started = time.monotonic()
            bed.hosts[0].link.run(["curl", "-sf", "-o", str(bed.folder / "curl.out"), url])
            floors.append(time.monotonic() - started)
            origin = bed.origin.sent(f"/{file.name}")
            found = bed.run(_ROUND.format(url=url, dest=str(bed.folder / "out" / "{node}" / "f.bin")))
            assert found["ok"], found
            times.append(found["seconds"])
            ratios.append((bed.origin.sent(f"/{file.name}") - origin) / size)
            file.unlink()
            print(f"round {number}: curl {floors[-1]:.2f} s, distribute {times[-1]:.2f} s "
                  f"= {times[-1] / floors[-1]:.3f}, origin {ratios[-1]:.4f}", flush=True)  # fmt: skip
        after = bed.run(_MEMORY)
        report = {
            "floor": statistics.median(floors),
            "distribute": statistics.median(times),
            "ratio": statistics.median(t / f for t, f in zip(times, floors, strict=True)),
            "origin": statistics.median(ratios),
            "memory_growth": max(after[pid] - before.get(pid, 0) for pid in after),
        }
        print(json.dumps(report) if options.json else "\n".join(f"{k}: {v:.3f}" for k, v in report.items()))


if __name__ == "__main__":
    main()
