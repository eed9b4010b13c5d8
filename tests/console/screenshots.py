"""The pictures of the README and of docs, from the real application over a swarm that is moved by hand.

python -m tests.console.screenshots [folder]
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Page
from sqlalchemy import delete

from dragonfly_ray.serve.database import tables
from tests.console.conftest import Console, launched, running, signed_in
from tests.console.swarm import Swarm
from tests.manager import people

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = (
    ("Llama 3.1 70B", "https://models.example.org/llama-3.1-70b/", 0.62),
    ("whisper-large-v3", "https://models.example.org/whisper-large-v3.safetensors", 0.31),
    ("ImageNet, train", "https://data.example.org/imagenet/train.tar", 1.0),
)
START = """async ([name, url]) => {
    const me = await (await fetch("/api/v1/session")).json();
    const answer = await fetch("/api/v1/distributions", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": me.csrf },
        body: JSON.stringify({ urls: [url], name, dest: "/data/{name}" }),
    });
    return (await answer.json()).id;
}"""


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    swarm = Swarm(48, pieces=1024)
    nodes = list(swarm.views)
    swarm.broken[nodes[17]] = ("disk-full", "no space left on device: /data needs 16.0 GiB, 2.1 GiB are free")
    with (
        tempfile.TemporaryDirectory() as state,
        running(Path(state), swarm) as console,
        launched() as browser,
    ):
        _history(console)
        context = browser.new_context(
            base_url=console.url, viewport={"width": 1360, "height": 880}, color_scheme="dark"
        )
        page = signed_in(context)
        jobs = [page.evaluate(START, [name, url]) for name, url, _ in SOURCES]
        stop = threading.Event()
        mover = threading.Thread(target=_move, args=(swarm, jobs, stop))
        mover.start()
        page.goto(f"/console/distributions/{jobs[0]}")
        page.locator(".failure").wait_for()
        time.sleep(6)
        _shot(page, folder / "console-distribution.png")
        page.emulate_media(color_scheme="light")
        page.goto("/console/")
        page.locator(".u-over").wait_for()
        time.sleep(6)
        _shot(page, folder / "console-overview.png")
        stop.set()
        mover.join()


def _move(swarm: Swarm, jobs: list[str], stop: threading.Event) -> None:
    """Towards where each is to be seen, more and more slowly."""
    shares = dict.fromkeys(jobs, 0.0)
    while not stop.wait(0.25):
        for job, (_, _, wanted) in zip(jobs, SOURCES, strict=True):
            order = next((o for o in swarm.submitted if o.startswith(job)), "")
            if not order or shares[job] >= 1.0:
                continue
            shares[job] = wanted if wanted == 1.0 else shares[job] + (wanted - shares[job]) * 0.06
            swarm.reach(order, shares[job])
        for i, node in enumerate(swarm.views):
            view = swarm.views[node]
            swarm.set_node(
                node,
                active_tasks=i % 3 and 2,
                store_used=(i * 37 % 80 + 10) << 33,
                bytes_origin=view.bytes_origin + 1_200_000,
                bytes_peers=view.bytes_peers + 34_000_000 + i * 300_000,
                bytes_cache=view.bytes_cache + 3_000_000,
            )


def _history(console: Console) -> None:
    """An hour of traffic as it is after some distributions: waves of peers, and little from the origin."""
    database = people.database_of(console.app)
    with database.write() as session:
        session.execute(delete(tables.Traffic))
        at = tables.now().replace(second=0, microsecond=0)
        total: Counter[str] = Counter()
        for minute in range(1, 61):
            wave = (
                0.75
                + 0.55 * math.sin(minute / 5.1)
                + 0.3 * math.sin(minute / 1.7)
                + 0.12 * math.sin(minute * 2.9)
            )
            moved = {
                "bytes_origin": int(wave * 14e9),
                "bytes_peers": int(wave * 380e9),
                "bytes_cache": int(wave * 40e9 * (1.2 + math.sin(minute / 9))),
                "bytes_object_store": int(wave * 9e9),
            }
            session.add(tables.Traffic(at=at - timedelta(minutes=minute), seconds=60, node_id="", **moved))
            total.update(moved)
        session.merge(tables.TrafficMark(node_id="", **total))


def _shot(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    if pngquant := shutil.which("pngquant"):
        subprocess.run([pngquant, "--force", "--ext", ".png", "--strip", "128", str(path)], check=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
