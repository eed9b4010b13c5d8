"""What one replica knows of the cluster at the moment, and who keeps it as the database says."""

from __future__ import annotations

from typing import Any

from dragonfly_ray.serve.cluster import Cluster, NodeView, TaskView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.fleet.cached import Cached
from dragonfly_ray.serve.fleet.config import ConfigKeeper
from dragonfly_ray.serve.fleet.nodes import NodeKeeper
from dragonfly_ray.serve.leadership import Leadership


class Fleet:
    """A service. The views are about a second old at most; they raise `ClusterError` while the cluster is unavailable."""

    def __init__(self, database: Database, cluster: Cluster, leadership: Leadership) -> None:
        self.nodes: Cached[dict[str, NodeView]] = Cached(
            "nodes", lambda: {v.node_id: v for v in cluster.nodes()}
        )
        self.tasks: Cached[dict[str, TaskView]] = Cached(
            "tasks", lambda: {t.task_id: t for t in cluster.tasks()}
        )
        self.settings: Cached[tuple[int, dict[str, Any]]] = Cached("settings", cluster.settings)
        self.node_keeper = NodeKeeper(database, cluster, leadership)
        self.config_keeper = ConfigKeeper(database, cluster, leadership, self.nodes)

    @property
    def alive(self) -> bool:
        return self.node_keeper.alive and self.config_keeper.alive

    def start(self) -> None:
        self.node_keeper.start()
        self.config_keeper.start()

    def stop(self) -> None:
        self.config_keeper.stop()
        self.node_keeper.stop()
