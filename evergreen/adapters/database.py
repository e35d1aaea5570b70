"""Reaching Evergreen's own tables: a connection, the schema brought up to date, and the two writes that need a dialect.

The embedded database is SQLite, production's is Postgres. Reads outside a write see what is committed at that moment on
both (READ COMMITTED); whoever reads and then writes does so by compare-and-swap.
Used by `wiring.py` and by the repositories beside it; the rows are `tables.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from evergreen.adapters.tables import Base, TurnstileRow
from evergreen.errors import ConfigurationError
from evergreen.settings import ROOT

MIGRATIONS = ROOT / "deployments" / "migrations"
BUSY_SECONDS = 30.0
CONNECT_SECONDS = 5
SILENT_SECONDS = 20
"""A server that acknowledged nothing for so long, as one whose machine or network is gone, is an error."""
_MIGRATION_LOCK = 0x45766772  # "Evgr": the key of Postgres' advisory lock


def open_engine(url: str) -> Engine:
    """Connect lazily to SQLite or Postgres; an embedded database's folder is made.

    SQLite: write-ahead log, foreign keys, up to 30 s of waiting for another writer. Python's driver begins a
    transaction with the first write and not with a read, so no reader's lock is ever upgraded and writers queue.

    Postgres: waits `CONNECT_SECONDS` for a connection and `SILENT_SECONDS` for a sign of the server's machine, unless the URL
    says otherwise. A statement may take as long as it likes.
    """
    parsed = _driver(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, connect_args=_patience(parsed))
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
    """Insert the rows whose key is not there yet, in one statement; all have the first's columns. Returns how many that were."""
    if not rows:
        return 0
    connection = session.connection()
    statement, parameters = _insertion(table, tuple(rows[0]), connection.dialect)
    done = connection.exec_driver_sql(
        statement, [parameters(row) for row in rows], execution_options={"preserve_rowcount": True}
    )
    return done.rowcount


def lock(session: Session, name: str) -> None:
    """Pass the turnstile `name`: until this transaction ends, whoever else wants to pass it waits."""
    connection = session.connection()
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(TurnstileRow.__table__).values(name=name)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"name": name}))


@lru_cache
def _insertion(
    table: type[Base], names: tuple[str, ...], dialect: Dialect
) -> tuple[str, Callable[[Mapping[str, Any]], Any]]:
    """As the driver takes it, with what makes a row its parameters.

    SQLAlchemy compiles an `on_conflict_do_nothing` anew each time, 0.5 ms, and looks up each row's parameters one by one: half
    of what the prediction log's process took.
    """
    insert = (sqlite if dialect.name == "sqlite" else postgresql).insert(table)
    compiled = insert.on_conflict_do_nothing().compile(dialect=dialect, column_keys=names)
    types = {name: table.__table__.c[name].type.dialect_impl(dialect) for name in compiled.positiontup or names}
    binds = [(name, one.bind_processor(dialect)) for name, one in types.items()]

    def parameters(row: Mapping[str, Any]) -> Any:
        values = {name: row[name] if bind is None else bind(row[name]) for name, bind in binds}
        return tuple(values.values()) if compiled.positional else values

    return str(compiled), parameters


def _driver(url: str) -> URL:
    """A plain `postgresql://` means psycopg 3, the driver in the `postgres` extra."""
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _patience(url: URL) -> dict[str, int]:
    """In libpq's words. What it sends has to be acknowledged; where it only waits for an answer, the system asks (keepalives)."""
    wanted = {
        "connect_timeout": CONNECT_SECONDS,
        "tcp_user_timeout": SILENT_SECONDS * 1_000,
        "keepalives_idle": SILENT_SECONDS // 2,
        "keepalives_interval": SILENT_SECONDS // 4,
        "keepalives_count": 2,
    }
    return {name: value for name, value in wanted.items() if name not in url.query}


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
