"""Jobs as rows, and as what a cluster is told."""

from __future__ import annotations

from dragonfly_ray.model import Source
from dragonfly_ray.serve.cluster import Order
from dragonfly_ray.serve.database.tables import Job
from dragonfly_ray.serve.jobs.links import opened
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.vault import Vault


def order_of(row: Job, vault: Vault, settings: ManagerSettings) -> Order:
    """The policy is that of now: what was allowed when the job was made may not be any more."""
    options = row.options
    return Order(
        id=row.id,
        sources=tuple(
            Source(
                url=url,
                tag=options.get("tag", ""),
                application=options.get("application", ""),
                filtered_query_params=tuple(options.get("filtered_query_params", ())),
                include=tuple(options.get("include", ())),
                exclude=tuple(options.get("exclude", ())),
            )
            for url in opened(row.urls, row.sealed_urls, vault, row.id)
        ),
        targets=tuple(row.targets or ()),
        dest=row.dest,
        dest_roots=settings.dest_roots,
        digest=options.get("digest") or "",
        link=bool(options.get("link", True)),
        policy=settings.urls,
    )
