"""Jobs as rows, and as what a cluster is told."""

from __future__ import annotations

from typing import Any

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.options import JobOptions, options_of
from dragonfly_ray.serve.cluster import Order
from dragonfly_ray.serve.database.tables import Job
from dragonfly_ray.serve.jobs.links import opened
from dragonfly_ray.serve.schemas.jobs import DistributionCreate
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.source_identity import check_links_option, servers_of

_COLUMNS = frozenset(("dest", "secret", "name", "id"))
OPTIONS = tuple(name for name in options_of(JobOptions) if name not in _COLUMNS)
"""Those of a distribution that are kept together; the others have columns of their own."""
SERVERS = "servers"
"""Of a job's options: `Source.server` of each URL, as the secret had it when the job was made."""


def job_options(row: Job) -> dict[str, Any]:
    """All that a job may have been asked with; what an older manager did not know of is as if it was left out."""
    return {name: DistributionCreate.model_fields[name].default for name in OPTIONS} | row.options


def check_servers(order: Order, credentials: Credentials, secret: str) -> None:
    """Raises `InvalidRequestError` where the secret has come to choose another server since."""
    urls = [source.url for source in order.sources]
    if servers_of(urls, credentials) != [source.server for source in order.sources]:
        raise InvalidRequestError(
            f"secret {secret!r}: its server or headers have changed since the job was created; create the job again"
        )


def order_of(row: Job, vault: Vault, settings: ManagerSettings) -> Order:
    """The policy is that of now: what was allowed when the job was made may not be any more."""
    options = job_options(row)
    urls = opened(row.urls, row.sealed_urls, vault, row.id)
    return Order(
        id=row.id,
        sources=tuple(
            Source(
                url=url,
                tag=options["tag"],
                application=options["application"],
                filtered_query_params=tuple(options["filtered_query_params"]),
                include=tuple(options["include"]),
                exclude=tuple(options["exclude"]),
                server=server,
                links=check_links_option(url, options["links"]),
            )
            for url, server in zip(urls, options.get(SERVERS) or [""] * len(urls), strict=True)
        ),
        targets=tuple(row.targets or ()),
        dest=row.dest,
        dest_roots=settings.dest_roots,
        digest=options["digest"] or "",
        link=bool(options["link"]),
        policy=settings.urls,
    )
