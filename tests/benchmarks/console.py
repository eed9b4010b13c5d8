"""Whether the console stays smooth while a distribution to many nodes streams in.

python -m tests.benchmarks.console [--nodes 1000] [--pieces 4000] [--seconds 30]

Prints the browser's long tasks (over 50 ms on the main thread, by the clock) of the first load and of what follows,
the processor time of the longest of them, which other work on the machine does not lengthen, frames a second, and
what was loaded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.console.conftest import launched, running, signed_in
from tests.console.screenshots import START
from tests.console.swarm import Swarm

OBSERVE = """
window.longTasks = [];
new PerformanceObserver((list) => {
    for (const task of list.getEntries()) window.longTasks.push([task.startTime, task.duration]);
}).observe({ type: "longtask", buffered: true });
window.frames_ = 0;
const frame = () => { window.frames_ += 1; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
"""
LOADED = """() => performance.getEntriesByType("resource")
    .filter((entry) => entry.name.includes("/console/"))
    .reduce((sum, entry) => sum + entry.decodedBodySize, 0)"""


@dataclass(frozen=True, slots=True)
class Found:
    loading: list[float]
    streaming: list[float]
    processor: list[float]
    frames: float
    elements: int
    rows_drawn: int
    loaded: int


def measure(nodes: int, pieces: int, seconds: float) -> Found:
    swarm = Swarm(nodes, pieces=pieces)
    with (
        tempfile.TemporaryDirectory() as state,
        running(Path(state), swarm) as console,
        launched() as browser,
    ):
        context = browser.new_context(base_url=console.url, viewport={"width": 1440, "height": 900})
        page = signed_in(context)
        job = page.evaluate(START, ["many", "https://example.com/many.bin"])
        page.add_init_script(OBSERVE)
        page.goto(f"/console/distributions/{job}")
        page.locator(".heat").wait_for()
        page.wait_for_timeout(3000)
        loading = _long(page)
        page.evaluate("window.longTasks = []; window.frames_ = 0")
        browser.start_tracing(page=page, categories=["toplevel"])
        stop = threading.Event()
        mover = threading.Thread(target=_move, args=(swarm, job, seconds, stop))
        mover.start()
        began = time.monotonic()
        page.wait_for_timeout(seconds * 1000)
        frames = page.evaluate("window.frames_") / (time.monotonic() - began)
        found = Found(
            loading,
            _long(page),
            _processor(browser.stop_tracing()),
            frames,
            page.evaluate("document.querySelectorAll('*').length"),
            page.evaluate("document.querySelector('.heat').painter.rowsDrawn"),
            page.evaluate(LOADED),
        )
        stop.set()
        mover.join()
        return found


def _long(page: Page) -> list[float]:
    tasks: list[Any] = page.evaluate("window.longTasks")
    return sorted((duration for _, duration in tasks), reverse=True)


def _processor(trace: bytes) -> list[float]:
    """Milliseconds of processor time of the main thread's tasks in all renderers, the longest first."""
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    main = {
        (e["pid"], e["tid"])
        for e in events
        if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    return sorted(
        (e["tdur"] / 1000 for e in events if "tdur" in e and (e["pid"], e["tid"]) in main), reverse=True
    )


def _move(swarm: Swarm, job: str, seconds: float, stop: threading.Event) -> None:
    order = next(o for o in swarm.submitted if o.startswith(job))
    began = time.monotonic()
    while not stop.wait(0.5):
        swarm.reach(order, min(0.97, (time.monotonic() - began) / seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pieces", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    found = measure(given.nodes, given.pieces, given.seconds)
    print(f"{given.nodes} nodes x {given.pieces} pieces, {given.seconds:.0f} s")
    for name, tasks in (("first load", found.loading), ("streaming", found.streaming)):
        worst = ", ".join(f"{task:.0f} ms" for task in tasks[:5]) or "none"
        print(f"long tasks, {name}: {len(tasks)} ({worst})")
    print(f"longest by processor time: {', '.join(f'{task:.0f} ms' for task in found.processor[:5])}")
    print(f"frames: {found.frames:.0f}/s; elements: {found.elements}; rows drawn: {found.rows_drawn}")
    print(f"loaded: {found.loaded / 1024:.0f} KiB, not packed")


if __name__ == "__main__":
    main()
