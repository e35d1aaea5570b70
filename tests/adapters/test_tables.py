import multiprocessing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from evergreen.adapters.tables import MIGRATIONS, Base, OutcomeRow, RetrainRequestRow, migrate, open_engine
from evergreen.errors import ConfigurationError
from tests.databases import database_url, empty_postgres_url, engine, postgres_url, session
from tests.factories import MAY


def test_the_models_and_the_migrations_agree(engine: Engine) -> None:
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert differences == []


def test_a_moment_in_another_zone_comes_back_in_utc_to_the_microsecond(session: Session) -> None:
    new_york_summer = timezone(timedelta(hours=-4))
    moment = datetime(2013, 7, 4, 9, 30, 15, 123456, tzinfo=new_york_summer)
    session.add(OutcomeRow(model="m", example_id="e", label_timestamp=moment, label=1))
    session.commit()
    session.expire_all()

    stored = session.get_one(OutcomeRow, ("m", "e", moment)).label_timestamp

    assert stored == moment
    assert stored.isoformat() == "2013-07-04T13:30:15.123456+00:00"


def test_a_moment_without_a_zone_is_refused_not_guessed_at(session: Session) -> None:
    naive = datetime(2013, 7, 4)  # noqa: DTZ001
    session.add(OutcomeRow(model="m", example_id="e", label_timestamp=naive, label=1))

    with pytest.raises(StatementError, match="2013-07-04T00:00:00 has no time zone"):
        session.flush()


def test_moments_compare_in_time_order_in_the_database(session: Session) -> None:
    # Text on SQLite sorts right only when every value is written in one zone and one format.
    moments = [MAY, MAY + timedelta(microseconds=1), MAY.astimezone(timezone(timedelta(hours=9))) + timedelta(hours=1)]
    session.add_all(
        OutcomeRow(model="m", example_id=str(place), label_timestamp=moment, label=0)
        for place, moment in enumerate(moments)
    )
    session.commit()

    later = session.query(OutcomeRow.example_id).where(OutcomeRow.label_timestamp > MAY).order_by("label_timestamp")

    assert [row.example_id for row in later] == ["1", "2"]


def a_request_row(owner: str, episode: str, status: str) -> RetrainRequestRow:
    return RetrainRequestRow(
        request_id="r",
        owner=owner,
        model="m",
        cause="drift",
        episode=episode,
        as_of=MAY,
        asked_at=MAY,
        lease_until=MAY,
        status=status,
        reason="",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [(("e1", "admitted"), ("e2", "admitted")), (("e1", "done"), ("e1", "admitted")), (("e1", "done"), ("e1", "done"))],
)
def test_the_database_itself_refuses_a_second_retrain(
    session: Session, first: tuple[str, str], second: tuple[str, str]
) -> None:
    session.add(a_request_row("a", *first))
    session.flush()
    session.add(a_request_row("b", *second))

    with pytest.raises(IntegrityError):
        session.flush()


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
