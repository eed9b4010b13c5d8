"""How long a folder takes to be listed by one peer, as ratios to what curl takes for the same requests.

    python -m tests.benchmarks.listings --files 20000 --rounds 3

Needs nginx and curl, no Ray and no root. Ratios of time; of two runs on a machine that does other things, too, compare
the least. `cpu` is what this process computes, as a multiple of parsing the pages with Python's own parser.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import httpx

from dragonfly_ray.config import OriginSettings
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.sources import resolve
from tests import programs
from tests.nginx import Nginx

SIZE = 20_000
"""Bytes of a file: so many that a rounded size does not tell them."""
PER_FOLDER = 10


@contextlib.contextmanager
def origin(files: int, *, rounded: bool, folders: bool) -> Iterator[str]:
    """The URL of a folder of so many files, in folders of ten each or all in one."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o755)
        first = root / "www" / "first"
        first.parent.mkdir()
        first.write_bytes(b"x" * SIZE)
        for number in range(files):
            folder = root / "www" / "many" / (f"{number // PER_FOLDER:06}" if folders else "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"file-{number:06}.bin").hardlink_to(first)
        extra = "autoindex_exact_size off;" if rounded else ""
        with Nginx(root / "www", root / "nginx", extra=extra, real=True) as server:
            yield f"{server.url}/many/"


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of this process."""
    began, computed = time.monotonic(), time.process_time()
    do()
    return time.monotonic() - began, time.process_time() - computed


def parse(pages: Sequence[str]) -> None:
    for page in pages:
        HTMLParser().feed(page)


def curl(urls: Sequence[str], connections: int, *, heads: bool) -> Callable[[], object]:
    """One `curl --parallel` for all of them."""
    program = programs.find("curl")
    assert program is not None
    lines = "".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls)
    command = [program, "-sf", "--parallel", "--parallel-max", str(connections), "--config", "-"]
    command += ["--head"] if heads else []
    return lambda: subprocess.run(command, input=lines.encode(), check=True, stderr=subprocess.DEVNULL)


def measure(name: str, files: int, rounds: int, *, rounded: bool = False, folders: bool = False) -> None:
    settings = OriginSettings()
    with origin(files, rounded=rounded, folders=folders) as url:
        below = [f"{url}{number:06}/" for number in range(files // PER_FOLDER)] if folders else []
        pages = [
            httpx.get(url, timeout=60.0).text,
            *[httpx.get(each).text for each in below[:1]] * len(below),
        ]
        heads = [f"{url}file-{number:06}.bin" for number in range(files)] if rounded else []
        times, computed = [], []
        for _ in range(rounds):
            floor, _ = timed(curl([url, *below], 8, heads=False))
            if heads:
                floor += timed(curl(heads, settings.small_connections, heads=True))[0]
            _, parsing = timed(lambda: parse(pages))
            ours, cpu = timed(lambda: resolve(Source(url), Credentials(), settings))
            times.append(ours / floor)
            computed.append(cpu / parsing)
            print(f"  {name}: curl {floor:.2f} s, ours {ours:.2f} s", flush=True)
    print(f"{name}, {files:,} names: {min(times):.2f} times curl's time, cpu {min(computed):.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    measure("sizes told", chosen.files, chosen.rounds)
    measure("sizes rounded", chosen.files, chosen.rounds, rounded=True)
    measure("in folders", chosen.files, chosen.rounds, folders=True)


if __name__ == "__main__":
    main()
