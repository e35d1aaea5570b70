import multiprocessing
import socket
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from evergreen.adapters import database
from evergreen.adapters.database import MIGRATIONS, migrate, open_engine
from evergreen.adapters.tables import Base, OutcomeRow
from evergreen.errors import ConfigurationError
from tests.databases import database_url, empty_postgres_url, engine, postgres_url, session
from tests.factories import MAY


def test_an_unfinished_write_is_never_seen_by_another_connection(engine: Engine) -> None:
    with Session(engine) as writer, Session(engine) as reader:
        writer.add(OutcomeRow(model="m", example_id="e", label_timestamp=MAY, label=1))
        writer.flush()
        before = reader.query(OutcomeRow).count()
        reader.rollback()
        writer.commit()
        after = reader.query(OutcomeRow).count()

    assert (before, after) == (0, 1)


def test_sqlite_is_opened_with_a_write_ahead_log_patience_and_foreign_keys(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'not' / 'there' / 'yet.db'}")

    with engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    engine.dispose()

    assert pragmas == {"journal_mode": "wal", "busy_timeout": 30_000, "foreign_keys": 1, "synchronous": 1}


def test_a_postgres_that_accepts_and_says_nothing_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)  # the least that libpq takes
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = open_engine(f"postgresql://someone@127.0.0.1:{silent.getsockname()[1]}/nowhere")
        began = time.monotonic()

        with pytest.raises(OperationalError, match="timeout"):
            engine.connect()

    assert time.monotonic() - began < 30


def test_a_postgres_that_is_gone_is_noticed_unless_its_url_has_more_patience() -> None:
    asked: list[dict[str, object]] = []
    for url in ("postgresql://nobody@127.0.0.1/n", "postgresql://nobody@127.0.0.1/n?tcp_user_timeout=90000"):
        engine = open_engine(url)

        @event.listens_for(engine, "do_connect")
        def _note(_dialect: object, _record: object, _args: object, options: dict[str, object]) -> None:
            asked.append(options)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            engine.connect()

    assert [one["tcp_user_timeout"] for one in asked] == [20_000, "90000"]
    assert [one["connect_timeout"] for one in asked] == [5, 5]
    assert asked[0].items() >= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2}.items()


def test_a_postgres_connection_takes_what_it_is_given(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["tcp_user_timeout"] == "20000"
    engine.dispose()


def test_processes_that_migrate_an_empty_sqlite_at_once_all_succeed(tmp_path: Path) -> None:
    migrate_from_processes(f"sqlite:///{tmp_path / 'home' / 'evergreen.db'}")


def test_processes_that_migrate_an_empty_postgres_at_once_all_succeed(empty_postgres_url: str) -> None:
    migrate_from_processes(empty_postgres_url)


def migrate_from_processes(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=migrate, args=(url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    engine = open_engine(url)
    with engine.connect() as connection:
        newest = max(path.name[:4] for path in (MIGRATIONS / "versions").glob("*.py"))
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest]
    engine.dispose()


def test_migrating_again_keeps_the_rows(engine: Engine, database_url: str) -> None:
    with Session(engine) as session, session.begin():
        session.add(OutcomeRow(model="m", example_id="e", label_timestamp=MAY, label=1))

    migrate(database_url)

    with Session(engine) as session:
        assert session.query(OutcomeRow).count() == 1


def test_what_a_migration_made_it_can_take_down(engine: Engine, database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
    left = inspect(engine).get_table_names()
    migrate(database_url)

    assert left == ["alembic_version"]
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}


def test_the_command_line_migrates_the_database_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))

    command.upgrade(Config(str(MIGRATIONS / "alembic.ini")), "head")

    engine = open_engine(f"sqlite:///{tmp_path / 'evergreen.db'}")
    assert "predictions" in inspect(engine).get_table_names()
    engine.dispose()


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    url = "postgresql://someone:secret@127.0.0.1:1/nowhere?connect_timeout=2"

    with pytest.raises(ConfigurationError, match="EVERGREEN_DATABASE_URL") as caught:
        migrate(url)

    assert "secret" not in str(caught.value)
    assert "someone" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"file/evergreen\.db"):
        migrate(f"sqlite:///{tmp_path / 'file' / 'evergreen.db'}")
