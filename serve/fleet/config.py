"""Live settings: versions in the database, the newest of which the cluster works with.

Nothing is changed in place: every change, a way back too, is a new version with all its values.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from dragonfly_ray.config import Settings
from dragonfly_ray.errors import ClusterError, DragonflyError
from dragonfly_ray.live_settings import changed
from dragonfly_ray.serve.background import Loop
from dragonfly_ray.serve.cluster import Cluster, NodeView
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.engine import serialise
from dragonfly_ray.serve.database.tables import ConfigVersion, now
from dragonfly_ray.serve.fleet.cached import Cached
from dragonfly_ray.serve.fleet.nodes import LEAD_WAIT
from dragonfly_ray.serve.leadership import Leadership
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.records import emit

log = logging.getLogger(__name__)
CONFIG = "config"
INTERVAL = 1.0
"""Seconds after which a change of another replica, or a controller that has restarted, is noticed."""


def newest(session: Session) -> ConfigVersion | None:
    return session.scalars(select(ConfigVersion).order_by(ConfigVersion.version.desc()).limit(1)).first()


def version_of(row: ConfigVersion | None) -> int:
    """0: nothing was ever changed."""
    return 0 if row is None else row.version


def followers(views: Mapping[str, NodeView]) -> list[NodeView]:
    """The nodes whose peers work with live settings."""
    return [v for v in views.values() if v.alive and v.state != "missing"]


def check(values: Mapping[str, Any], effective: Mapping[str, Any], now_changed: Mapping[str, Any]) -> None:
    """Raises `InvalidRequestError` that names what is wrong.

    Values are judged together with the settings that the cluster was started with: `effective` without
    what `now_changed` has done to it, as far as that is known.
    """
    changed(_started(effective, now_changed), values)


def _started(effective: Mapping[str, Any], now_changed: Mapping[str, Any]) -> Settings:
    base: dict[str, Any] = {s: dict(v) if isinstance(v, Mapping) else v for s, v in effective.items()}
    for dotted in now_changed:
        section, _, name = dotted.partition(".")
        if isinstance(base.get(section), dict):
            base[section].pop(name, None)
    try:
        return Settings.model_validate(base)
    except ValidationError:
        # A cluster of another version: what this one knows is the best that there is.
        return Settings()


class ConfigKeeper:
    """A service; only the leader's does something."""

    def __init__(
        self,
        database: Database,
        cluster: Cluster,
        leadership: Leadership,
        nodes: Cached[dict[str, NodeView]],
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._leadership = leadership
        self._nodes = nodes
        self._trouble = ""
        self._loop = Loop("config", INTERVAL, self.round)

    @property
    def alive(self) -> bool:
        return self._loop.alive

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def wake(self) -> None:
        """There is a new version."""
        self._loop.wake()

    def round(self, stopping: threading.Event) -> None:
        if not self._leadership.wait(LEAD_WAIT) or stopping.is_set():
            return
        with self._database.read() as session:
            row = newest(session)
        if row is None:
            return
        try:
            if not self._bring(row):
                return
            views = followers(self._nodes.get())
        except ClusterError as error:
            self._note(f"cluster unavailable: {error}")
            return
        self._note("")
        if row.applied_at is None and views and all(v.settings_version >= row.version for v in views):
            self._arrived(row.version, len(views))

    def _bring(self, row: ConfigVersion) -> bool:
        """Whether the cluster works with this version, or is about to."""
        there, _ = self._cluster.settings()
        if there > row.version:
            self._note(f"the cluster uses version {there} of another manager, this one has {row.version}")
            return False
        if there == row.version:
            return True
        try:
            self._cluster.apply(row.version, row.values)
        except ClusterError:
            raise
        except DragonflyError as error:
            self._refused(row.version, str(error))
            return False
        log.info("config: version %d sent to the cluster (it had %d)", row.version, there)
        return True

    def _arrived(self, version: int, nodes: int) -> None:
        with self._database.write() as session:
            row = session.get_one(ConfigVersion, version, with_for_update=True)
            if row.applied_at is None:
                row.applied_at = now()
                emit(session, "config.applied", CONFIG, str(version), {"version": version, "nodes": nodes})

    def _refused(self, version: int, error: str) -> None:
        """Versions are checked before they are stored: this one is from before the cluster became another one."""
        if self._note(f"version {version} rejected by the cluster: {error}"):
            with self._database.write() as session:
                emit(session, "config.failed", CONFIG, str(version), {"version": version, "error": error})

    def _note(self, trouble: str) -> bool:
        """Logs what is wrong once, and says whether it is news."""
        if trouble == self._trouble:
            return False
        self._trouble = trouble
        if trouble:
            log.warning("config: %s", trouble)
        return bool(trouble)


def store(
    session: Session,
    by: Principal,
    values: Mapping[str, Any],
    comment: str,
    *,
    after: int,
    rollback_of: int | None = None,
) -> ConfigVersion:
    """A new version above `after`. Whoever calls has serialised changes, and checked the values."""
    row = ConfigVersion(
        version=after + 1,
        values=dict(values),
        comment=comment,
        rollback_of=rollback_of,
        created_by=by.user_id,
        created_by_name=by.name,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    emit(
        session,
        "config.changed",
        CONFIG,
        str(row.version),
        {"version": row.version, "by": by.name, "comment": comment, "rollback_of": rollback_of},
    )
    return row


def only_one(session: Session) -> None:
    """Until this transaction ends nobody else changes settings."""
    serialise(session, CONFIG)
