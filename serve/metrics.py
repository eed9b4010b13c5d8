"""What the manager tells Prometheus of itself. The cluster's own metrics are Ray's to tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dragonfly_ray.serve.database.tables import Delivery, Event, Job, Webhook, now
from dragonfly_ray.serve.manager import Manager
from dragonfly_ray.serve.readiness import OK
from dragonfly_ray.serve.web.measured import RequestMetrics

log = logging.getLogger(__name__)
PREFIX = "dragonfly_manager_"


class Metrics:
    """Of one replica, in a registry of its own: several applications in a process do not mix."""

    def __init__(self, manager: Callable[[], Manager]) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestMetrics(self.registry)
        self.registry.register(_State(manager))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _State(Collector):
    """Looked up when it is asked for."""

    def __init__(self, manager: Callable[[], Manager]) -> None:
        self._manager = manager

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        manager = self._manager()
        yield _gauge("leader", "Whether this replica is the leader.", manager.leadership.leading)
        yield _gauge("open_streams", "Open event streams of this replica.", manager.streams.open)
        yield _gauge("event_readers", "Readers of this replica's event feed.", manager.feed.readers)
        attempts = CounterMetricFamily(
            PREFIX + "webhook_attempts", "Webhook delivery attempts, by outcome.", labels=("outcome",)
        )
        for outcome in ("delivered", "failed"):
            attempts.add_metric((outcome,), manager.webhooks.attempts[outcome])
        yield attempts
        ready = all(found == OK for found in manager.readiness.checks().values())
        yield _gauge("ready", "Whether this replica is ready (/readyz).", ready)
        try:
            with manager.database.read() as session:
                found = [
                    *_jobs(session),
                    _gauge(
                        "event_lag_seconds",
                        "Age of the oldest event not streamed yet, in seconds.",
                        _lag(session, manager),
                    ),
                    *_deliveries(session),
                    _gauge("webhooks_failing", "Webhooks whose deliveries all fail.", _failing(session)),
                ]
        except SQLAlchemyError as error:
            # What does not need the database is told all the same: among it that this replica is not ready.
            log.warning("metrics of the database left out: %s", type(error).__name__)
            return
        yield from found


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _jobs(session: Session) -> Iterator[Metric]:
    found = GaugeMetricFamily(PREFIX + "jobs", "Jobs in the database, by state.", labels=("state",))
    for state, count in session.execute(select(Job.state, func.count()).group_by(Job.state)):
        found.add_metric((state,), count)
    yield found


def _lag(session: Session, manager: Manager) -> float:
    oldest = session.scalar(select(Event.at).where(Event.id > manager.feed.head).order_by(Event.id).limit(1))
    return max(0.0, (now() - oldest).total_seconds()) if oldest else 0.0


def _failing(session: Session) -> int:
    query = select(func.count()).where(Webhook.enabled, Webhook.failing_since.is_not(None))
    return session.scalar(query) or 0


def _deliveries(session: Session) -> Iterator[Metric]:
    found = GaugeMetricFamily(
        PREFIX + "webhook_deliveries", "Webhook deliveries in the database, by state.", labels=("state",)
    )
    for state, count in session.execute(select(Delivery.state, func.count()).group_by(Delivery.state)):
        found.add_metric((state,), count)
    yield found
