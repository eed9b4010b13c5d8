"""The schema, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, update

from dragonfly_ray.figures import Figures
from dragonfly_ray.serve.database import Database, engine
from dragonfly_ray.serve.database.engine import migrations
from dragonfly_ray.serve.database.tables import Audit, Base, Job, JobNode, Node
from dragonfly_ray.serve.jobs import presenters
from dragonfly_ray.serve.jobs.board import Board
from tests import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'manager.db'}"
    else:
        server: postgres.Postgres = request.getfixturevalue("postgres_server")
        with server.database() as url:
            yield url


def test_migrations_lead_to_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_that_is_up_to_date_is_left_alone(database: Database) -> None:
    with database.write() as session:
        session.add(Node(node_id="a", name="first"))
    database.migrate()
    with database.read() as session:
        assert session.get_one(Node, "a").name == "first"


def test_a_migration_back_and_forth(database: Database) -> None:
    config = migrations()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection.execution_options(sqlite_write=True)
        with connection.begin():
            command.downgrade(config, "base")
    database.migrate()
    with database.read() as session:
        assert list(session.scalars(select(Node))) == []


def test_jobs_from_before_sum_up_what_was_read_to_compare(database: Database) -> None:
    with database.write() as session:
        session.add_all([Job(id="j", kind="preheat"), Job(id="none", kind="preheat")])
        session.flush()
        for node, read in (("a", 7), ("b", 5)):
            session.add(JobNode(job_id="j", url_index=0, node_id=node, state="done", bytes_audit=read))
    config = migrations()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection.execution_options(sqlite_write=True)
        with connection.begin():
            command.downgrade(config, "0004")
    database.migrate()
    with database.read() as session:
        assert {job.id: job.bytes_audit for job in session.scalars(select(Job))} == {"j": 12, "none": 0}


def test_jobs_from_before_have_no_figures_and_what_later_ones_tell_more_is_left_out(
    database: Database,
) -> None:
    with database.write() as session:
        session.add(Job(id="old", kind="preheat"))
    config = migrations()
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection.execution_options(sqlite_write=True)
        with connection.begin():
            command.downgrade(config, "0005")
    database.migrate()
    with database.write() as session:
        session.add(Job(id="new", kind="preheat", figures={"floor": 2.0, "of_a_later_version": [1]}))
    with database.read() as session:
        found = {job.id: presenters.job(job, Board()).figures for job in session.scalars(select(Job))}
    assert found == {"old": None, "new": Figures(floor=2.0)}


def test_several_processes_migrate_at_once(database_url: str) -> None:
    each = [Database(database_url) for _ in range(4)]
    with ThreadPoolExecutor(len(each)) as pool:
        list(pool.map(Database.migrate, each))
    with each[0].read() as session:
        assert list(session.scalars(select(Node))) == []
    for database in each:
        database.close()


def test_times_come_back_in_utc(database: Database) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    with database.write() as session:
        session.add(Job(id="j", kind="preheat", ended_at=at))
    with database.read() as session:
        found = session.get_one(Job, "j").ended_at
    assert found == at
    assert found is not None
    assert found.tzinfo is UTC


def test_writers_wait_for_each_other(database: Database) -> None:
    with database.write() as session:
        session.add(Node(node_id="n", version=0))

    def count() -> None:
        for _ in range(20):
            with database.write() as session:
                row = session.get_one(Node, "n", with_for_update=True)
                row.version += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(Node, "n").version == 80


def test_a_writer_gets_its_turn_beside_one_that_never_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own wait polls, and finds the file locked each time: "database is locked"."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 2000)
    database = Database(f"sqlite:///{tmp_path / 'manager.db'}")
    database.migrate()
    enough, busy = threading.Event(), threading.Event()

    def write_without_a_pause() -> None:
        while not enough.is_set():
            with database.write() as session:
                session.add(Audit(action="x", resource_type="x", resource_id="x", via="x"))
                session.flush()
                busy.set()
                enough.wait(0.05)  # a slow disk

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_without_a_pause)
        try:
            assert busy.wait(30)
            for number in range(5):
                with database.write() as session:
                    session.add(Node(node_id=f"n{number}", name="n"))
        finally:
            enough.set()
        writing.result(30)
    with database.read() as session:
        assert len(list(session.scalars(select(Node)))) == 5
    database.close()


def test_a_session_for_reading_writes_nothing(database: Database) -> None:
    """On SQLite it would fail only beside another writer: "database is locked", at once."""
    with database.read() as session:
        session.add(Node(node_id="a", name="a"))
        with pytest.raises(RuntimeError, match="write in a read-only session"):
            session.flush()
    with database.read() as session, pytest.raises(RuntimeError, match="write in a read-only session"):
        session.execute(update(Node).values(name="b"))


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(Node(node_id="x"))
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert session.get(Node, "x") is None


@pytest.mark.parametrize("scarce", ["actor", "action"])
def test_sqlite_learns_how_its_rows_are_distributed(tmp_path: Path, scarce: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'manager.db'}")
    database.migrate()
    with database.write() as session:
        session.add_all(Audit(**{"actor": "a", "action": "b", scarce: f"{n}"}) for n in range(500))
    database.analyze()
    query = "explain query plan select * from audit where actor = 'a' and action = 'b'"
    with database.read() as session:
        plan = str(session.connection().exec_driver_sql(query).all())
    assert f"ix_audit_{scarce} " in plan
    database.close()
