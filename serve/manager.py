"""One replica's parts, put together; what the application's routes find behind `app.state.manager`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from dragonfly_ray.serve.accounts import secrets, setup
from dragonfly_ray.serve.accounts.refusals import Refusals
from dragonfly_ray.serve.accounts.throttle import Throttle
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.maintenance import DatabaseMaintenance
from dragonfly_ray.serve.events.feed import EventFeed
from dragonfly_ray.serve.events.quota import StreamQuota
from dragonfly_ray.serve.events.streams import Streams
from dragonfly_ray.serve.fleet import Fleet
from dragonfly_ray.serve.jobs import Jobs
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.readiness import Readiness
from dragonfly_ray.serve.retention import Housekeeping
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.stats.service import Stats
from dragonfly_ray.serve.vault import Vault
from dragonfly_ray.serve.webhooks.dispatcher import Webhooks


class Service(Protocol):
    """Work in the background, in threads of its own."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Returns when nothing of it runs any more."""


@dataclass(frozen=True)
class Manager:
    """`services` are started in this order, and stopped in the reverse one."""

    settings: ManagerSettings
    database: Database
    cluster: Cluster
    leadership: Leadership
    vault: Vault
    throttle: Throttle
    refusals: Refusals
    jobs: Jobs
    fleet: Fleet
    feed: EventFeed
    streams: Streams
    stats: Stats
    readiness: Readiness
    webhooks: Webhooks
    services: tuple[Service, ...] = ()

    @classmethod
    def build(cls, settings: ManagerSettings, cluster: Cluster) -> Manager:
        """With the database migrated."""
        database = Database(settings.database)
        database.migrate()
        setup.builtin_roles(database)
        setup.first_admin(database, settings)
        vault = Vault.of(settings)
        secrets.check_key(database, vault)
        leadership = Leadership(database)
        jobs = Jobs(settings, database, cluster, leadership, vault)
        fleet = Fleet(database, cluster, leadership)
        feed = EventFeed(database)
        quota = StreamQuota(database, settings.limits.user_streams)
        streams = Streams(settings.limits.streams, quota)
        stats = Stats(database, cluster, leadership)
        webhooks = Webhooks(database, leadership, vault, settings.webhook_urls)
        return cls(
            settings,
            database,
            cluster,
            leadership,
            vault,
            Throttle(database, settings.limits.logins),
            Refusals(database),
            jobs,
            fleet,
            feed,
            streams,
            stats,
            Readiness(database, cluster),
            webhooks,
            # Streams end before what they show.
            services=(
                database.listener,
                DatabaseMaintenance(database),
                leadership,
                fleet,
                jobs,
                feed,
                stats,
                webhooks,
                Housekeeping(database, leadership, settings.retention),
                quota,
                streams,
            ),
        )

    def start(self) -> None:
        for service in self.services:
            service.start()

    def stop(self) -> None:
        for service in reversed(self.services):
            service.stop()
        self.database.close()


def manager_of(connection: HTTPConnection) -> Manager:
    found: Manager = connection.app.state.manager
    return found


Here = Annotated[Manager, Depends(manager_of)]
