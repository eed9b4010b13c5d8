"""Content inside Ray tasks: as a path, as a stream that is read while it arrives, as one copy in shared memory.

python examples/tasks_and_actors.py URL
"""

from __future__ import annotations

import hashlib
import sys

import ray

import dragonfly_ray as d


@ray.remote(num_cpus=0)
def by_path(url: str) -> str:
    """The whole file on this node's disk."""
    return hashlib.sha256(d.fetch(url).read_bytes()).hexdigest()


@ray.remote(num_cpus=0)
def by_stream(url: str) -> str:
    """Read while it arrives: the first bytes are there long before the last ones."""
    digest = hashlib.sha256()
    with d.open(url) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@ray.remote(num_cpus=0)
def by_shared_memory(url: str) -> str:
    """One read-only copy for all workers of the node."""
    return hashlib.sha256(d.load(url)).hexdigest()


def main(url: str) -> int:
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    d.up()
    ways = {"path": by_path, "stream": by_stream, "memory": by_shared_memory}
    digests = dict(zip(ways, ray.get([way.remote(url) for way in ways.values()]), strict=True))
    for way, digest in digests.items():
        print(f"{way}: sha256 {digest}")
    return 0 if len(set(digests.values())) == 1 else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
