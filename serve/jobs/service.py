"""The jobs of one replica: what runs beside requests, put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dragonfly_ray.model import Credentials
from dragonfly_ray.serve.accounts.secrets import credentials_for
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.jobs.board import Board
from dragonfly_ray.serve.jobs.orders import order_of
from dragonfly_ray.serve.jobs.runner import Runner
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
        self.runner = Runner(
            database,
            cluster,
            leadership,
            self.board,
            order_of=partial(order_of, vault=vault, settings=settings),
            credentials=partial(_credentials, database, vault),
        )

    def start(self) -> None:
        self.runner.start()

    def stop(self) -> None:
        self.runner.stop()


def _credentials(database: Database, vault: Vault, name: str, urls: Sequence[str]) -> Credentials:
    """Raises `InvalidRequestError` where it is gone, or not for one of these."""
    with database.write() as session:
        found = [credentials_for(session, vault, name, url) for url in urls]
    return found[0]
