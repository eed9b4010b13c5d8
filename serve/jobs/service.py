"""The jobs of one replica: what runs beside requests, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.accounts import grants, rights
from dragonfly_ray.serve.accounts.secrets import credentials_for
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.jobs.board import Board
from dragonfly_ray.serve.jobs.live_queries import LiveQueries
from dragonfly_ray.serve.jobs.orders import order_of
from dragonfly_ray.serve.jobs.runner import Runner
from dragonfly_ray.serve.jobs.timetable import Timetable
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.vault import Vault


class Jobs:
    """A service."""

    def __init__(
        self,
        settings: ManagerSettings,
        database: Database,
        cluster: Cluster,
        leadership: Leadership,
        vault: Vault,
    ) -> None:
        self.board = Board()
        self.looks = LiveQueries(cluster)
        self.runner = Runner(
            database,
            cluster,
            leadership,
            self.board,
            order_of=partial(order_of, vault=vault, settings=settings),
            credentials=partial(_credentials, database, vault),
        )

        self.timetable = Timetable(_Around(settings, database, cluster, vault), leadership)

    @property
    def alive(self) -> bool:
        return self.runner.alive and self.timetable.alive

    def start(self) -> None:
        self.runner.start()
        self.timetable.start()

    def stop(self) -> None:
        self.timetable.stop()
        self.runner.stop()


@dataclass(frozen=True)
class _Around:
    """Of the manager, what schedules need."""

    settings: ManagerSettings
    database: Database
    cluster: Cluster
    vault: Vault


def _credentials(
    database: Database, vault: Vault, name: str, user_id: str, urls: Sequence[str]
) -> Credentials:
    """Raises `InvalidRequestError` where it is gone, not for one of these, or not for that user any more."""
    with database.write() as session:
        found = [credentials_for(session, vault, name, url) for url in urls]
        principal = rights.of_user(session, user_id, "job")
        if principal is None or not grants.may_use(session, name, principal):
            raise InvalidRequestError(f"secret {name!r}: its use is no longer granted")
    return found[0]
