"""How the database is opened, migrated and used: one transaction a session, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import fcntl
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker

from dragonfly_ray.serve.database.fair_lock import FairLock
from dragonfly_ray.serve.database.signals import Listener, Signals

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 10_000
POOL = 20
MIGRATION_LOCK = "migrations"
WRITES = "writes"
"""In the `info` of a session that may write."""


class Database:
    """Safe from any thread. `url`: SQLAlchemy's."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.engine = self._engine()
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        event.listen(self._sessions, "before_flush", _refuse_flush)
        event.listen(self._sessions, "do_orm_execute", _refuse_statement)
        self._writers = FairLock()
        self.signals = Signals()
        event.listen(self._sessions, "after_commit", self.signals.committed)
        self.listener = Listener(self._connect_parameters(), self.signals)
        """A service; what other replicas tell is heard while it runs."""

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string(hide_password=True)})"

    def _engine(self) -> Engine:
        if self.is_sqlite:
            engine = create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        # A connection that the server has closed meanwhile is replaced before it is used.
        return create_engine(self.url, pool_pre_ping=True, pool_size=POOL, max_overflow=POOL)

    def _connect_parameters(self) -> dict[str, Any] | None:
        """The driver's own; None: there are no other replicas on this database."""
        return None if self.is_sqlite else dict(self.engine.dialect.create_connect_args(self.url)[1])

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back if something is raised."""
        with self._turn(), self._sessions.begin() as session:
            session.info[WRITES] = True
            if self.is_sqlite:
                session.connection(execution_options={"sqlite_write": True})
            yield session

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """SQLite has one writer: those of this process queue here, in order."""
        mine = self.is_sqlite and self._writers.acquire(BUSY_TIMEOUT_MS / 1000)
        try:
            yield
        finally:
            if mine:
                self._writers.release()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction for reading only: a write in it raises `RuntimeError`."""
        with self._sessions() as session:
            yield session

    def migrate(self) -> None:
        """Brings the schema up to date; of several processes that try, one does."""
        with self.engine.connect() as connection, self._alone(connection):
            self._upgrade(connection)

    @contextlib.contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        if self.is_sqlite:
            with open(f"{self.url.database}.lock", "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Stays with the file. Two that ask for it at once do not wait: one fails.
                raw = connection.connection.dbapi_connection
                assert raw is not None
                raw.execute("PRAGMA journal_mode=WAL")
                yield
            return
        key = {"key": lock_key(MIGRATION_LOCK)}
        connection.execute(text("select pg_advisory_lock(:key)"), key)
        connection.commit()
        try:
            yield
        finally:
            connection.rollback()
            connection.execute(text("select pg_advisory_unlock(:key)"), key)
            connection.commit()

    def _upgrade(self, connection: Connection) -> None:
        connection = connection.execution_options(sqlite_write=True)
        config = migrations()
        config.attributes["connection"] = connection
        with connection.begin():
            command.upgrade(config, "head")

    def analyze(self) -> None:
        """Lets SQLite see how the rows are distributed. A sample is enough, and takes milliseconds."""
        with self.write() as session:
            connection = session.connection()
            connection.exec_driver_sql("PRAGMA analysis_limit=1000")
            connection.exec_driver_sql("ANALYZE")
        # Connections know what they found when they were opened.
        self.engine.dispose()

    def close(self) -> None:
        self.engine.dispose()


def migrations() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def lock_key(name: str) -> int:
    """The number of a PostgreSQL advisory lock."""
    return 0x0DF00000_00000000 | zlib.crc32(name.encode())


def serialise(session: Session, name: str) -> None:
    """Until this transaction ends, no other that asks for the same name goes on. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("select pg_advisory_xact_lock(:key)"), {"key": lock_key(name)})


def _refuse_flush(session: Session, *_: Any) -> None:
    """SQLite lets no reader become a writer while another one writes: it fails at once, and only then."""
    if not session.info.get(WRITES):
        raise RuntimeError("write in a read-only session; use Database.write()")


def _refuse_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        _refuse_flush(state.session)


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # The driver's own transactions begin too late for what follows to be one.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer that begins as a reader cannot wait for another writer: it fails at once.
    writes = connection.get_execution_options().get("sqlite_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
