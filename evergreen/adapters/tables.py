"""Evergreen's own tables: what was served, what came of it, who serves now, and who asked for what.

One SQLAlchemy schema for SQLite (embedded) and Postgres (production). Only rows, columns and connections live here;
what may be written when is the business of the repositories beside it. Reads outside a write see what is committed at
that moment on both databases (READ COMMITTED); whoever reads and then writes does so by compare-and-swap.
To add a column: change it here, then `alembic -c deployments/migrations/alembic.ini revision --autogenerate -m WHAT`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Index, Text, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from evergreen.adapters.column_types import Json, UtcDateTime
from evergreen.errors import ConfigurationError
from evergreen.settings import ROOT

MIGRATIONS = ROOT / "deployments" / "migrations"
BUSY_SECONDS = 30.0
_MIGRATION_LOCK = 0x45766772  # "Evgr": the key of Postgres' advisory lock


class Base(DeclarativeBase):
    """Every table of the schema hangs here."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[Any]: Json, str: Text}


class PredictionRow(Base):
    """One answer that was given."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_model_event", "model", "event_timestamp"),
        Index("ix_predictions_model_example", "model", "example_id"),
    )

    prediction_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[int]
    role: Mapped[str]
    example_id: Mapped[str]
    event_timestamp: Mapped[datetime]
    answered_at: Mapped[datetime]
    score: Mapped[float]
    probabilities: Mapped[dict[str, Any] | None]
    features: Mapped[dict[str, Any]]
    stale: Mapped[list[Any]]
    latency_ms: Mapped[float]
    shadow_version: Mapped[int | None]
    shadow_score: Mapped[float | None]
    shadow_latency_ms: Mapped[float | None]
    shadow_probabilities: Mapped[dict[str, Any] | None]
    routed_by: Mapped[str | None]


class OutcomeRow(Base):
    """What came true, by when it became known: a correction is a later row, which an earlier `as_of` does not see."""

    __tablename__ = "outcomes"
    __table_args__ = (Index("ix_outcomes_model_known", "model", "label_timestamp"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    example_id: Mapped[str] = mapped_column(primary_key=True)
    label_timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    label: Mapped[float]


class ReleaseRow(Base):
    """Which version serves what share now; `revision` is what a change is compared and swapped on."""

    __tablename__ = "releases"

    model: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int]
    champion: Mapped[int | None]
    challenger: Mapped[int | None]
    challenger_share: Mapped[float]
    previous: Mapped[int | None]
    changed_at: Mapped[datetime]
    test: Mapped[dict[str, Any] | None]


class JournalRow(Base):
    """Every change of every release. Its key makes a second change from the same revision impossible."""

    __tablename__ = "release_journal"
    __table_args__ = (Index("uq_release_journal_request", "model", "request", unique=True),)

    model: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    action: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any]]
    request: Mapped[str | None]
    recorded_at: Mapped[datetime | None]


class DriftCheckRow(Base):
    """One look of the watch at one window."""

    __tablename__ = "drift_checks"

    model: Mapped[str] = mapped_column(primary_key=True)
    window_end: Mapped[datetime] = mapped_column(primary_key=True)
    window_start: Mapped[datetime]
    as_of: Mapped[datetime]
    version: Mapped[int]
    retrain: Mapped[bool]
    episode: Mapped[str | None]
    alarms: Mapped[list[Any]]
    reasons: Mapped[list[Any]]
    remedy: Mapped[str] = mapped_column(server_default="retrain")
    report_uri: Mapped[str | None]
    drift: Mapped[dict[str, Any] | None]
    performance: Mapped[dict[str, Any]]


class WindowEstimateRow(Base):
    """What was said of a window before its outcomes were in, and, once they are, what came true."""

    __tablename__ = "window_estimates"

    model: Mapped[str] = mapped_column(primary_key=True)
    window_end: Mapped[datetime] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    window_start: Mapped[datetime]
    as_of: Mapped[datetime]
    said: Mapped[dict[str, Any]]
    realised: Mapped[dict[str, Any] | None]
    realised_as_of: Mapped[datetime | None]


class RetrainRequestRow(Base):
    """One ask for a retrain, by one owner. The two partial indexes are law 4, kept by the database itself."""

    __tablename__ = "retrain_requests"
    __table_args__ = (
        Index("uq_retrain_requests_asker", "request_id", "owner", unique=True),
        Index(
            "uq_retrain_requests_running",
            "model",
            unique=True,
            sqlite_where=text("status = 'admitted'"),
            postgresql_where=text("status = 'admitted'"),
        ),
        Index(
            "uq_retrain_requests_episode",
            "model",
            "episode",
            unique=True,
            sqlite_where=text("status IN ('admitted', 'done')"),
            postgresql_where=text("status IN ('admitted', 'done')"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    request_id: Mapped[str]
    owner: Mapped[str]
    model: Mapped[str]
    cause: Mapped[str]
    episode: Mapped[str]
    as_of: Mapped[datetime]
    asked_at: Mapped[datetime]
    lease_until: Mapped[datetime]
    status: Mapped[str]
    reason: Mapped[str]
    version: Mapped[int | None]
    remedy: Mapped[str] = mapped_column(server_default="retrain")
    device_seconds: Mapped[float | None]


class TurnstileRow(Base):
    """One row a thing that only one transaction may decide at a time; writing it first takes its lock."""

    __tablename__ = "turnstiles"

    name: Mapped[str] = mapped_column(primary_key=True)


def open_engine(url: str) -> Engine:
    """Connect lazily to SQLite or Postgres; an embedded database's folder is made.

    SQLite: write-ahead log, foreign keys, up to 30 s of waiting for another writer. Python's driver begins a
    transaction with the first write and not with a read, so no reader's lock is ever upgraded and writers queue.
    """
    parsed = _driver(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        _make_folder(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")  # with the write-ahead log: durable to a killed process
        connection.execute("PRAGMA journal_mode = WAL")  # kept in the file: after the first time it costs nothing

    return engine


def migrate(url: str) -> None:
    """Bring the schema at `url` up to date. Safe when several processes do it at once: one works, the others wait.

    Costs 0.1 to 0.4 s the first time in a process (mostly importing Alembic), 5 ms after. Raises `ConfigurationError`
    where the database does not answer.
    """
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.exc import OperationalError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            _lock_migrations(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except OperationalError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise ConfigurationError(
            f"the database of EVERGREEN_DATABASE_URL ({shown}) does not answer: {error.orig}. "
            "Start it or correct the URL."
        ) from error
    finally:
        engine.dispose()


def insert_new(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose key is not there yet, in one statement; returns how many that were."""
    if not rows:
        return 0
    connection = session.connection()
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table.__table__).on_conflict_do_nothing()
    return connection.execute(statement, list(rows), execution_options={"preserve_rowcount": True}).rowcount


def lock(session: Session, name: str) -> None:
    """Pass the turnstile `name`: until this transaction ends, whoever else wants to pass it waits."""
    connection = session.connection()
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(TurnstileRow.__table__).values(name=name)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"name": name}))


def _driver(url: str) -> URL:
    """A plain `postgresql://` means psycopg 3, the driver in the `postgres` extra."""
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _make_folder(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"there is no folder for the database {database} and it cannot be made: {error}. "
            "Correct EVERGREEN_HOME or EVERGREEN_DATABASE_URL."
        ) from error


def _lock_migrations(connection: Connection) -> None:
    """Wait for whoever migrates now, and hold others off until this transaction ends: all of a migration or nothing."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
