"""A directory so large that its pieces are of 16 MiB, with the defaults: four of them fill the pool of buffers.

Takes 27 GB of the disk below the temporary folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dragonfly_ray.model import MAX_LEAF
from tests.nginx import Nginx
from tests.swarm import Swarm

FILES, EACH, PEERS = 9000, 1_000_000, 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nine_thousand_files_of_a_megabyte_to_three_peers(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "www" / "many"
    folder.mkdir(parents=True)
    content = os.urandom(EACH)
    (folder / "0").write_bytes(content)
    for number in range(1, FILES):
        (folder / f"{number}").hardlink_to(folder / "0")
    swarm = Swarm(tmp_path / "swarm", PEERS)
    try:
        with Nginx(tmp_path / "www", tmp_path / "nginx") as origin:
            swarm.submit(f"{origin.url}/many/")
            view = swarm.wait(timeout=1500.0)
            assert [record["state"] for record in view["nodes"].values()] == ["done"] * PEERS, view
            assert origin.sent("/many/") <= 1.01 * FILES * EACH + len(content)
        (task,) = swarm.peers["n0"].store.tasks()
        assert task.table.leaf == MAX_LEAF
        for record in view["nodes"].values():
            found = Path(record["path"])
            assert sum(1 for _ in found.iterdir()) == FILES
            assert all((found / f"{number}").read_bytes() == content for number in range(0, FILES, 97))
    finally:
        swarm.close()
