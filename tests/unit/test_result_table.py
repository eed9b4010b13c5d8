"""What people read at the end, on a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from dragonfly_ray.cli import show
from dragonfly_ray.distribution import Distribution, told_apart
from dragonfly_ray.errors import StorageFullError
from dragonfly_ray.figures import Figures, LimitedBy
from dragonfly_ray.outcome import Outcome
from dragonfly_ray.result_table import figures, split

WIDTH = 80
LONG = "/tmp/dragonfly-demo-5e2ye2y/nodes"
URL = "http://127.0.0.1:44359/big.bin"


def outcome(number: int, where: str, **more: object) -> Outcome:
    values: dict[str, object] = {
        "node_id": f"{number:056x}",
        "node": f"192.0.2.2 (5bb70{number})",
        "url": URL,
        "state": "done",
        "path": Path(where.format(node=f"{number:056x}")),
        "size": 268_435_456,
        "seconds": 6.07,
        "bytes_origin": 1,
        "bytes_peers": 3,
    }
    return Outcome(**(values | more))  # type: ignore[arg-type]


def printed(*outcomes: Outcome) -> str:
    console = Console(width=WIDTH, force_terminal=False)
    with console.capture() as captured:
        console.print(Distribution(id="d", urls=(URL,), outcomes=outcomes, seconds=6.3, size=268_435_456))
    found = captured.get()
    rows = [line for line in found.splitlines() if line[:1] in "┃┏│"]
    assert rows
    assert all(line[-1] in "┃┓│" for line in rows), f"cut off:\n{found}"
    return found


def test_one_path_for_all_is_said_once_and_whole() -> None:
    found = printed(*(outcome(n, LONG + "/{node}/big.bin") for n in range(4)))
    assert found.count(f"path: {LONG}/{{node}}/big.bin") == 1
    assert "path or error" not in found
    for number in range(4):
        (line,) = [line for line in found.splitlines() if f"(5bb70{number})" in line]
        assert "192.0.2.2" in line
        assert "25\u00a0%" in line


def test_what_differs_is_seen() -> None:
    found = printed(*(outcome(n, f"{LONG}/{{node}}/part-{n}.bin") for n in range(4)))
    assert f"…: {LONG}/{{node}}" in found
    assert all(f"…/part-{n}.bin" in found for n in range(4))
    assert "…" not in found.replace("…/part-", "").replace("…: /", ""), "nothing is cut"


def test_an_error_is_said_whole_and_once_with_its_nodes() -> None:
    error = StorageFullError("no space left on the device of /data/models, 3 MiB are free")
    failed = [outcome(n, LONG, state="failed", path=None, error=error) for n in range(1, 6)]
    found = printed(outcome(0, LONG + "/{node}/b"), *failed)
    lines = " ".join(found.split())
    who = ", ".join(f"192.0.2.2 (5bb70{n})" for n in (1, 2, 3))
    assert lines.count(f"{who} and 2 more: {error.kind}: {error}") == 1
    assert f"path: {LONG}/{{node}}/b" in found


def test_who_wrote_nothing_is_told_apart() -> None:
    found = printed(outcome(0, LONG + "/x"), outcome(1, LONG + "/x", written_by="0" * 56))
    assert found.count("(shared)") == 1
    assert f"path: {LONG}/x" in found


def test_short_or_unlike_paths_stay_as_they_are() -> None:
    assert split(["/a/x", "/a/y"]) == ("", ["/a/x", "/a/y"])
    assert split(["/models/one/x", "/data/one/x"]) == ("", ["/models/one/x", "/data/one/x"])
    assert split([]) == ("", [])
    assert split(["", ""]) == ("", ["", ""])
    assert split(["/models/llama/x", "", "/models/llama/x/y"]) == (
        "/models/llama",
        ["…/x", "", "…/x/y"],
    )


def test_urls_of_a_listing_are_told_apart_by_their_ends() -> None:
    start = "https://models.example.org/a/very/long/way/to/the/content/of/the/release/number/"
    urls = [f"{start}{n}.bin" for n in range(2)]
    rows = [{"url": url, "host": "10.0.0.7", "size": 1, "share": 1.0} for url in urls]
    console = Console(width=WIDTH, force_terminal=False)
    with console.capture() as captured:
        console.print(show.listing(rows))
    joined = "".join(line.split("│")[1].strip() for line in captured.get().splitlines() if "│" in line)
    assert all(url in joined for url in urls)


def test_nodes_of_one_name_get_as_much_of_their_ids_as_it_takes() -> None:
    names = {"aaaaaaaa1": "n", "aaaaaaaa2": "n", "bbbbbbbbb": "n", "cccccccc": "other"}
    assert told_apart(names) == {
        "aaaaaaaa1": "n (aaaaaaaa1)",
        "aaaaaaaa2": "n (aaaaaaaa2)",
        "bbbbbbbbb": "n (bbbbbbbbb)",
        "cccccccc": "other",
    }
    assert told_apart({"12345678": "n", "87654321": "n"}) == {
        "12345678": "n (123456)",
        "87654321": "n (876543)",
    }


def test_what_was_read_twice_at_the_origin_is_said_apart() -> None:
    line = "read at the origin a second time"
    assert line not in printed(outcome(0, LONG))
    found = printed(outcome(0, LONG, bytes_audit=100_000), outcome(1, LONG, bytes_audit=31_072))
    (said,) = [each for each in found.splitlines() if line in each]
    assert "131" in said


MEASURED: dict[str, Any] = {
    "floor": 6.0,
    "floor_ratio": 1.05,
    "p99_p50_ratio": 1.1,
    "origin_ratio": 1.0,
    "cross_zone_share": 0.08,
}


def test_figures_are_one_line_of_what_is_known() -> None:
    found = figures(Figures(**MEASURED, limited_by="node", limited_at="n1"), {"n1": "host-1"})
    assert found == (
        "time 1.05 × floor (6.00 s) · limited by node host-1 (link, disk or CPU) · p99 1.10 × p50 · "
        "origin read 1.00 × · 8 % of peer traffic across zones"
    )
    assert figures(Figures(), {}) == ""


@pytest.mark.parametrize("limited_by", [each for each in get_args(LimitedBy) if each])
def test_every_limit_has_its_words(limited_by: LimitedBy) -> None:
    assert figures(Figures(limited_by=limited_by), {}).startswith("limited by ")
    assert "{" not in figures(Figures(limited_by=limited_by, limited_at="x"), {})


def test_figures_stand_below_the_table_and_in_a_notebook() -> None:
    measured = Figures(**MEASURED, limited_by="zone", limited_at="eu<1>")
    done = Distribution("d", (URL,), (outcome(0, LONG + "/x"),), 6.3, 268_435_456, measured)
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        console.print(done)
    assert "time 1.05 × floor (6.00 s) · limited by the links into zone eu<1>" in captured.get()
    assert "<td>succeeded</td>" in done._repr_html_()
    assert "1/1 succeeded" in repr(done)
    assert "the links into zone eu&lt;1&gt;" in done._repr_html_()
    assert done.to_dict()["figures"]["limited_by"] == "zone"


def test_a_view_of_an_older_scheduler_has_no_figures() -> None:
    view = {"url": URL, "seconds": 2.0, "size": 10, "nodes": {}}
    found = Distribution.from_views("d", [view], {})
    assert found.figures == Figures()
